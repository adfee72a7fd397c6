# Reads:  results/runs/<run>/spec.json, results/tokens/<id>.
# Writes: model/, train.parquet, done.json. Undeclared, so that no failure deletes them: checkpoints/, lock/, log/.


def training_resources(wildcards):
    """How a run of this model is computed: never part of its identity."""
    return grid.resources_of(settings, ident.specs[wildcards.run]["model"]["name"])


# How a run is computed is no part of what it is. Snakemake does not compare params that are functions of `resources`,
# so none of what follows makes a finished run stale.
def launcher(wildcards, resources):
    """One process; torchrun for several; on each of several nodes a torchrun of its own, started by srun."""
    r = training_resources(wildcards)
    if r.processes == 1:
        return deconattn
    launch = f"{python} -m deconattn.training.launch {r.processes // r.nodes}"
    if r.nodes == 1:
        return launch
    # Only the whole job is counted in --gpus: a step that names none gets what the job has on each node.
    step = f"--nodes={r.nodes} --ntasks={r.nodes} --ntasks-per-node=1 --cpus-per-task={cpus(wildcards)}"
    return f"srun {step} --kill-on-bad-exit=0 {launch}"


def cpus(wildcards):
    """CPUs of a training on each node."""
    r = training_resources(wildcards)
    return r.processes * r.threads // r.nodes


def training_options(wildcards, resources):
    """Command-line options of the trainer."""
    r = training_resources(wildcards)
    options = [f"--threads {r.threads} --device {r.device} --sharding {r.sharding} --checkpoint-minutes {r.checkpoint_minutes}"]
    for option in ("micro_batch_size", "device_memory_gb", "device_tflops"):
        if getattr(r, option):
            options.append(f"--{option.replace('_', '-')} {getattr(r, option)}")
    if r.compile:
        options.append("--compile")
    return " ".join(options)


def memory(wildcards, attempt):
    """Main memory in MB: a quarter more with each attempt, as a stop at the time limit is an attempt too."""
    return training_resources(wildcards).memory_mb * (3 + attempt) // 4


def training_inputs(wildcards):
    """What a training reads; nothing for a run that is finished, which no other file can make unfinished."""
    run = wildcards.run
    launch.check_cost()
    return launch.needed(
        lambda: states.of_run(run, "pretrain"),
        ident.folder(run) / "done.json",
        {
            "spec": ancient(ident.folder(run) / "spec.json"),
            "tokens": ancient(ident.tokens / "manifest.json"),
            "side": ancient(ident.side_path(ident.specs[run]) or []),
            "tokenizer": ancient(ident.tokenizer / "tokenizer.json"),
        },
    )


# Paths are not taken from `input`: a training that ran on alone, its snakemake killed, may have finished before it is planned again.
def side_option(wildcards, resources):
    """The side text of a run that reads one."""
    path = ident.side_path(ident.specs[wildcards.run])
    return f"--side-text {path}" if path else ""


rule pretrain:
    input:
        unpack(training_inputs),
    output:
        "results/runs/{run}/model/config.json",
        "results/runs/{run}/model/model.safetensors",
        "results/runs/{run}/train.parquet",
        "results/runs/{run}/done.json",
    params:
        launch=launcher,
        options=training_options,
        side=side_option,
        tokens=lambda w, resources: ident.tokens,
        tokenizer=lambda w, resources: ident.tokenizer,
    threads: cpus
    resources:
        gpu=lambda w: training_resources(w).gpus,
        nodes=lambda w: training_resources(w).nodes,
        cpus_per_task=cpus,
        runtime=lambda w: training_resources(w).runtime_minutes,
        mem_mb=memory,
    # The last command of the shell is replaced by the trainer: at the time limit Slurm ends a job whose shell is gone at once.
    # A training that runs on alone, since the snakemake that started it was killed, is asked to save and leave.
    shell:
        "exec {params.launch} pretrain results/runs/{wildcards.run} {params.tokens} {params.options} {params.side}"
        " --tokenizer {params.tokenizer} --deadline-minutes {resources.runtime} --take-over --progress lines"


spread = [re.escape(name) for name, spec in ident.specs.items() if grid.resources_of(settings, spec["model"]["name"]).nodes > 1]
if spread:

    # A job of several nodes is a job that calls srun itself, which the executor is told by the key `mpi`, whatever its value.
    use rule pretrain as pretrain_on_nodes with:
        wildcard_constraints:
            run="|".join(spread),
        resources:
            gpu=lambda w: training_resources(w).gpus,
            nodes=lambda w: training_resources(w).nodes,
            cpus_per_task=cpus,
            runtime=lambda w: training_resources(w).runtime_minutes,
            mem_mb=memory,
            mpi="srun",
            tasks=lambda w: training_resources(w).nodes,
            tasks_per_gpu=0,

    ruleorder: pretrain_on_nodes > pretrain
