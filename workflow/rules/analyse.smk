# Reads:  model/ of a run, held-out text.
# Writes: attention.parquet (layer × head × indicator), scores.parquet (histograms of the scores before the softmax).


rule analyse:
    input:
        done="results/runs/{run}/done.json",
        model="results/runs/{run}/model/model.safetensors",
        heldout=f"{ident.tokens}/heldout.parquet",
    output:
        "results/runs/{run}/attention.parquet",
        "results/runs/{run}/scores.parquet",
    params:
        context_length=settings.tokens.context_length,
        device=lambda w, resources: training_resources(w).device,
        code=lambda w: ident.analysis_code(w.run),
    resources:
        gpu=lambda w: min(1, training_resources(w).gpus),
        mem_mb=memory,
        runtime=lambda w: training_resources(w).evaluation_minutes,
    shell:
        "{deconattn} analyse $(dirname {input.done}) {input.heldout} {params.context_length} --device {params.device}"
