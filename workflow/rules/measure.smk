# Reads:  the model classes: a shape, no weights.
# Writes: results/costs/<model>-<device>-<hash>/{costs.parquet (a row a variant × batch × length), costs-differences.parquet, record.json}.


rule measure:
    input:
        lambda w: rules_.inputs(w.folder),
    output:
        "{folder}/done",
    wildcard_constraints:
        folder=r"results/costs/[^/]+",
    # Times are taken alone on a machine: here all its cores are claimed, on a cluster those that a process of the model gets.
    threads: lambda w: max(rules_.resources(w.folder).threads, workflow.cores or 1)
    resources:
        gpu=lambda w: min(1, rules_.resources(w.folder).gpus),
        cpus_per_task=rules_.of_run("threads"),
        runtime=rules_.of_run("evaluation_minutes"),
        mem_mb=lambda w: rules_.memory(w.folder, "evaluation_memory_mb"),
    params:
        device=rules_.of_run("device"),
        threads=rules_.of_run("threads"),
        memory=rules_.of_run("evaluation_memory_mb"),
        deadline=rules_.deadline,
    shell:
        "exec {deconattn} measure {wildcards.folder} --device {params.device} --threads {params.threads}"
        " --memory-mb {params.memory} {params.deadline}"
