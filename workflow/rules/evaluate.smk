# Reads:  model/ of a run, tasks of the mirror, held-out documents.
# Writes: results/runs/<run>/evaluation-<hash>/{evaluation.parquet, samples.parquet, record.json},
#         results/baselines/<id>/baselines.parquet (random guess and majority class).


rule evaluate:
    input:
        lambda w: rules_.inputs(w.folder),
    output:
        "{folder}/done",
    wildcard_constraints:
        folder=r"results/runs/[^/]+/evaluation-[^/]+",
    priority: 1000  # before further trainings
    resources:
        gpu=lambda w: min(1, rules_.resources(w.folder).gpus),
        mem_mb=lambda w: rules_.memory(w.folder, "evaluation_memory_mb"),
        runtime=rules_.of_run("evaluation_minutes"),
    params:
        batch_size=rules_.of_run("evaluation_batch_size"),
        device=rules_.of_run("device"),
        deadline=rules_.deadline,
    shell:
        "exec {deconattn} evaluate {wildcards.folder} --batch-size {params.batch_size} --device {params.device} {params.deadline}"


rule baselines:
    input:
        lambda w: rules_.inputs(w.folder),
    output:
        "{folder}/done",
    wildcard_constraints:
        folder=r"results/baselines/[^/]+",
    shell:
        "{deconattn} baselines {wildcards.folder}"
