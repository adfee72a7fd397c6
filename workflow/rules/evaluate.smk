# Reads:  model/ of a run, tasks of the mirror, held-out documents.
# Writes: evaluation.parquet (a row a task × metric × context × mode), samples.parquet (a row an item); baselines.parquet.


def task_files(tasks):
    """Parquet of each task: the mirror's, or the corpus' own held-out documents."""
    return {task: f"{ident.tokens}/heldout.parquet" if task == "heldout" else f"{ident.tasks}/{task}.parquet" for task in tasks}


rule evaluate:
    input:
        done="results/runs/{run}/done.json",
        model="results/runs/{run}/model/model.safetensors",
        tokenizer=f"{ident.tokenizer}/tokenizer.json",
        tasks=list(task_files(settings.evaluation.tasks).values()),
    output:
        "results/runs/{run}/evaluation.parquet",
        "results/runs/{run}/samples.parquet",
    params:
        spec=lambda w: canonical(ident.evaluation_spec(w.run)),
        files=canonical(task_files(settings.evaluation.tasks)),
        batch_size=lambda w, resources: training_resources(w).evaluation_batch_size,
        device=lambda w, resources: training_resources(w).device,
    resources:
        gpu=lambda w: min(1, training_resources(w).gpus),
        mem_mb=memory,
        runtime=lambda w: training_resources(w).evaluation_minutes,
    shell:
        "{deconattn} evaluate $(dirname {input.done}) $(dirname {input.tokenizer}) {params.spec:q} {params.files:q}"
        " --batch-size {params.batch_size} --device {params.device}"


rule baselines:
    input:
        tokenizer=f"{ident.tokenizer}/tokenizer.json",
        tasks=list(task_files(settings.evaluation.tasks).values()),
    output:
        ident.report / "tables" / "baselines.parquet",
    params:
        files=canonical(task_files(settings.evaluation.tasks)),
        limits=canonical({task: settings.evaluation.limit_of(task) for task in settings.evaluation.tasks}),
        code=code_digest("deconattn.evaluation.baselines"),
    shell:
        "{deconattn} baselines {params.files:q} {params.limits:q} $(dirname {input.tokenizer}) {output}"
