# Reads:  the mirror of the corpus.
# Writes: results/tokenizers/<id>/tokenizer.json (where one is trained), results/tokens/<id>/{part-NNNN.parquet, heldout.parquet,
#         manifest.json}, results/sidetexts/<id>/side.parquet.


rule train_tokenizer:
    input:
        lambda w: rules_.inputs(w.folder),
    output:
        "{folder}/done",
    wildcard_constraints:
        folder=r"results/tokenizers/[^/]+",
    shell:
        "{deconattn} train-tokenizer {wildcards.folder}"


rule tokenize_part:
    input:
        lambda w: rules_.inputs(w.folder, w.part),
    output:
        "{folder}/done-{part}",
    wildcard_constraints:
        folder=r"results/tokens/[^/]+",
    resources:
        runtime=lambda w: rules_.tokenize_minutes(w.folder, w.part),
    shell:
        "{deconattn} tokenize {wildcards.folder} --part {wildcards.part}"


rule tokenize:
    input:
        lambda w: rules_.inputs(w.folder),
    output:
        "{folder}/done",
    wildcard_constraints:
        folder=r"results/tokens/[^/]+",
    localrule: True
    shell:
        "{deconattn} tokenize {wildcards.folder}"


rule side_text:
    input:
        lambda w: rules_.inputs(w.folder),
    output:
        "{folder}/done",
    wildcard_constraints:
        folder=r"results/sidetexts/[^/]+",
    localrule: True
    shell:
        "{deconattn} side-text {wildcards.folder}"
