# Reads:  the settings.
# Writes: results/runs/<run>/spec.json, the one thing that the training job reads: a queued job would re-read a config edited since.


rule spec:
    input:
        manifest=ancient(f"{ident.tokens}/manifest.json"),
    output:
        "results/runs/{run}/spec.json",
    params:
        spec=lambda w: canonical(ident.specs[w.run]),
    localrule: True
    shell:
        "{deconattn} spec {params.spec:q} {input.manifest} {output}"
