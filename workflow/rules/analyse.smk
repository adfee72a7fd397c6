# Reads:  model/ of a run, held-out text.
# Writes: attention.parquet (layer × head × indicator), scores.parquet (histograms of the scores before the softmax), analysis.json (its record).


def analysis_inputs(wildcards):
    """What an analysis reads; nothing for one whose record says that it is up to date."""
    folder = ident.folder(wildcards.run)
    launch.check_cost()
    return launch.needed(
        lambda: states.of_run(wildcards.run, "analyse"),
        folder / "analysis.json",
        {
            "done": ancient(folder / "done.json"),
            "spec": ancient(lost_spec(wildcards.run)),
            "model": ancient(folder / "model/model.safetensors"),
            "heldout": ancient(ident.tokens / "heldout.parquet"),
        },
    )


rule analyse:
    input:
        unpack(analysis_inputs),
    output:
        "results/runs/{run}/attention.parquet",
        "results/runs/{run}/scores.parquet",
        "results/runs/{run}/analysis.json",
    params:
        spec=lambda w: canonical(ident.analysis_spec(w.run)),
        device=lambda w, resources: training_resources(w).device,
    resources:
        gpu=lambda w: min(1, training_resources(w).gpus),
        mem_mb=memory,
        runtime=lambda w: training_resources(w).evaluation_minutes,
    shell:
        "{deconattn} analyse results/runs/{wildcards.run} {params.spec:q} --device {params.device}"
