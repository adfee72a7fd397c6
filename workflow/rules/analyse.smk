# Reads:  model/ of a run, held-out text.
# Writes: results/runs/<run>/analysis-<hash>/{attention.parquet (layer × head × indicator), scores.parquet (histograms), record.json}.


rule analyse:
    input:
        lambda w: rules_.inputs(w.folder),
    output:
        "{folder}/done",
    wildcard_constraints:
        folder=r"results/runs/[^/]+/analysis-[^/]+",
    priority: 1000  # before further trainings
    resources:
        gpu=lambda w: min(1, rules_.resources(w.folder).gpus),
        mem_mb=lambda w: rules_.memory(w.folder, "evaluation_memory_mb"),
        runtime=rules_.of_run("evaluation_minutes"),
    params:
        device=rules_.of_run("device"),
        deadline=rules_.deadline,
    shell:
        "exec {deconattn} analyse {wildcards.folder} --device {params.device} {params.deadline}"
