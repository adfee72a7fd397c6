# Reads:  a token table.
# Writes: results/runs/<run>/{model/, train.parquet, record.json}; while it runs: checkpoints/, lock/, log/, curve.csv.
# GPUs, processes, threads and time limits are the config's `resources`, by model, and change no result.


rule pretrain:
    input:
        lambda w: rules_.inputs(w.folder),
    output:
        "{folder}/done",
    wildcard_constraints:
        folder=r"results/runs/[^/]+",
    # Small models and `standard` first, so that a partial report says something early (where more wait than `jobs` or cores allow).
    priority: lambda w: rules_.priority(w.folder)
    threads: lambda w: rules_.cpus(w.folder)
    resources:
        gpu=rules_.of_run("gpus"),
        nodes=rules_.of_run("nodes"),
        cpus_per_task=lambda w: rules_.cpus(w.folder),
        runtime=rules_.of_run("runtime_minutes"),
        mem_mb=lambda w: rules_.memory(w.folder),
        # Jobs on several nodes call srun themselves; the executor learns that from `mpi`.
        mpi=lambda w: rules_.on_nodes(w.folder, "srun"),
        tasks=lambda w: rules_.on_nodes(w.folder, rules_.resources(w.folder).nodes),
        tasks_per_gpu=lambda w: rules_.on_nodes(w.folder, 0),
    params:
        launch=lambda w: rules_.launcher(w.folder),
        options=lambda w: rules_.training_options(w.folder),
        deadline=rules_.deadline,
    # The last command of the shell is replaced by the trainer: at the time limit Slurm ends a job whose shell is gone at once.
    # A training that runs on alone, since the snakemake that started it was killed, is asked to save and leave.
    shell:
        "exec {params.launch} pretrain {wildcards.folder} {params.options} {params.deadline} --take-over"
