# Reads:  results/runs/<run>/spec.json, results/tokens/<id>.
# Writes: model/, train.parquet, done.json. Undeclared, so that no failure deletes them: checkpoints/, log/.


def training_resources(wildcards):
    """How a run of this model is computed: never part of its identity."""
    return grid.resources_of(settings, ident.specs[wildcards.run]["model"]["name"])


def launcher(wildcards):
    """One process, or torchrun for several."""
    processes = training_resources(wildcards).processes
    if processes == 1:
        return deconattn
    return f"{sys.executable} -m torch.distributed.run --standalone --nproc_per_node {processes} -m deconattn"


def training_options(wildcards):
    """Command-line options of the trainer."""
    r = training_resources(wildcards)
    options = [f"--threads {r.threads} --device {r.device} --checkpoint-minutes {r.checkpoint_minutes}"]
    if r.micro_batch_size:
        options.append(f"--micro-batch-size {r.micro_batch_size}")
    if r.compile:
        options.append("--compile")
    side = ident.side_path(ident.specs[wildcards.run])
    if side:
        options.append(f"--side-text {side}")
    return " ".join(options)


rule pretrain:
    input:
        spec="results/runs/{run}/spec.json",
        tokens=f"{ident.tokens}/manifest.json",
        side=lambda w: ident.side_path(ident.specs[w.run]) or [],
    output:
        "results/runs/{run}/model/config.json",
        "results/runs/{run}/model/model.safetensors",
        "results/runs/{run}/train.parquet",
        "results/runs/{run}/done.json",
    params:
        launch=launcher,
        options=training_options,
    threads: lambda w: training_resources(w).processes * training_resources(w).threads
    resources:
        gpu=lambda w: training_resources(w).gpus,
        runtime=lambda w: training_resources(w).runtime_minutes,
        mem_mb=lambda w, attempt: training_resources(w).memory_mb * attempt,
    shell:
        "{params.launch} pretrain $(dirname {input.spec}) $(dirname {input.tokens}) {params.options}"
        " --deadline-minutes {resources.runtime} --progress lines"
