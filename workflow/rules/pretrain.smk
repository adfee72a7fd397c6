# Reads:  results/runs/<run>/spec.json, results/tokens/<id>.
# Writes: model/, train.parquet, done.json. Undeclared, so that no failure deletes them: checkpoints/, log/.


def training_resources(wildcards):
    """How a run of this model is computed: never part of its identity."""
    return grid.resources_of(settings, ident.specs[wildcards.run]["model"]["name"])


# How a run is computed is no part of what it is. Snakemake does not compare params that are functions of `resources`,
# so none of what follows makes a finished run stale.
def launcher(wildcards, resources):
    """One process, or torchrun for several."""
    processes = training_resources(wildcards).processes
    if processes == 1:
        return deconattn
    return f"{python} -m torch.distributed.run --standalone --nproc_per_node {processes} -m deconattn"


def training_options(wildcards, resources):
    """Command-line options of the trainer."""
    r = training_resources(wildcards)
    options = [f"--threads {r.threads} --device {r.device} --checkpoint-minutes {r.checkpoint_minutes}"]
    if r.micro_batch_size:
        options.append(f"--micro-batch-size {r.micro_batch_size}")
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
        side=lambda w, input: f"--side-text {input.side}" if input.get("side") else "",
    threads: lambda w: training_resources(w).processes * training_resources(w).threads
    resources:
        gpu=lambda w: training_resources(w).gpus,
        cpus_per_task=lambda w: training_resources(w).processes * training_resources(w).threads,
        runtime=lambda w: training_resources(w).runtime_minutes,
        mem_mb=memory,
    shell:
        "{params.launch} pretrain $(dirname {input.spec}) $(dirname {input.tokens}) {params.options} {params.side}"
        " --tokenizer $(dirname {input.tokenizer}) --deadline-minutes {resources.runtime} --progress lines"
