# Reads:  the settings.
# Writes: results/runs/<run>/spec.json, the one thing that the training job reads: a queued job would re-read a config edited since.
# A run whose spec is gone has it written again, whatever else is to be done: all that reads a run reads its spec.


def lost_spec(run):
    """The spec of a finished run, if it is not there."""
    folder = ident.folder(run)
    return [] if (folder / "spec.json").is_file() or not (folder / "done.json").is_file() else folder / "spec.json"


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
