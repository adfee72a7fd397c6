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


rule pretrain:
    input:
        spec="results/runs/{run}/spec.json",
        tokens=f"{ident.tokens}/manifest.json",
        side=lambda w: ident.side_path(ident.specs[w.run]) or [],
        tokenizer=f"{ident.tokenizer}/tokenizer.json",
    output:
        "results/runs/{run}/model/config.json",
        "results/runs/{run}/model/model.safetensors",
        "results/runs/{run}/train.parquet",
        "results/runs/{run}/done.json",
    params:
        launch=launcher,
        options=training_options,
        side=lambda w, input: f"--side-text {input.side}" if input.side else "",
    threads: lambda w: training_resources(w).processes * training_resources(w).threads
    resources:
        gpu=lambda w: training_resources(w).gpus,
        cpus_per_task=lambda w: training_resources(w).processes * training_resources(w).threads,
        runtime=lambda w: training_resources(w).runtime_minutes,
        mem_mb=memory,
    shell:
        "{params.launch} pretrain $(dirname {input.spec}) $(dirname {input.tokens}) {params.options} {params.side}"
        " --tokenizer $(dirname {input.tokenizer}) --deadline-minutes {resources.runtime} --progress lines"
