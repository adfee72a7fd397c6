# Reads:  model/ of a run, tasks of the mirror, held-out documents.
# Writes: evaluation.parquet (a row a task × metric × context × mode), samples.parquet (a row an item), evaluation.json (made from
#         what, by which code and packages, with which sums); baselines.parquet and its record.


def evaluation_inputs(wildcards):
    """What an evaluation reads; nothing for one whose record says that it is up to date."""
    folder = ident.folder(wildcards.run)
    launch.check_cost()
    return launch.needed(
        lambda: states.of_run(wildcards.run, "evaluate"),
        folder / "evaluation.json",
        {
            "done": ancient(folder / "done.json"),
            "spec": ancient(lost_spec(wildcards.run)),
            "model": ancient(folder / "model/model.safetensors"),
            "tokenizer": ancient(ident.tokenizer / "tokenizer.json"),
            "tasks": [ancient(file) for file in ident.task_files.values()],
        },
    )


rule evaluate:
    input:
        unpack(evaluation_inputs),
    output:
        "results/runs/{run}/evaluation.parquet",
        "results/runs/{run}/samples.parquet",
        "results/runs/{run}/evaluation.json",
    params:
        spec=lambda w: canonical(ident.evaluation_spec(w.run)),
        tokenizer=ident.tokenizer,
        batch_size=lambda w, resources: training_resources(w).evaluation_batch_size,
        device=lambda w, resources: training_resources(w).device,
    resources:
        gpu=lambda w: min(1, training_resources(w).gpus),
        mem_mb=memory,
        runtime=lambda w: training_resources(w).evaluation_minutes,
    shell:
        "{deconattn} evaluate results/runs/{wildcards.run} {params.tokenizer} {params.spec:q}"
        " --batch-size {params.batch_size} --device {params.device}"


rule baselines:
    input:
        unpack(
            lambda w: launch.needed(
                states.baselines,
                ident.report / "tables" / "baselines.json",
                {
                    "tokenizer": ancient(ident.tokenizer / "tokenizer.json"),
                    "tasks": [ancient(file) for file in ident.task_files.values()],
                },
            )
        ),
    output:
        ident.report / "tables" / "baselines.parquet",
        ident.report / "tables" / "baselines.json",
    params:
        spec=canonical(ident.baselines_spec),
        tokenizer=ident.tokenizer,
    shell:
        "{deconattn} baselines {params.spec:q} {params.tokenizer} {output[0]}"
