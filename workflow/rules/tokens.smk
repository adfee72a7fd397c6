# Reads:  corpus parts of the mirror.
# Writes: results/tokenizers/<id> (when trained), results/tokens/<id>/part-NNNN.parquet (one job a part), heldout.parquet, manifest.json,
#         results/sidetexts/<id>/side.parquet.

if settings.tokenizer.kind == "train":

    rule train_tokenizer:
        input:
            ancient(expand(f"{ident.corpus}/part-{{part}}.parquet", part=part_names)),
        output:
            f"{ident.tokenizer}/tokenizer.json",
        params:
            spec=canonical(ident.tokenizer_spec),
            # Its folder is named by it: a function of `resources`, which is not compared.
            code=lambda w, resources: ident.tokenizer_code,
        shell:
            "{deconattn} train-tokenizer {params.spec:q} $(dirname {output}) {input} --code {params.code}"


rule tokenize:
    input:
        corpus=ancient(f"{ident.corpus}/part-{{part}}.parquet"),
        mirror=ancient(f"{ident.corpus}/manifest.json"),
        tokenizer=ancient(f"{ident.tokenizer}/tokenizer.json"),
    output:
        rows=f"{ident.tokens}/part-{{part}}.parquet",
        heldout=f"{ident.tokens}/heldout-{{part}}.parquet",
        manifest=f"{ident.tokens}/part-{{part}}.json",
    params:
        spec=canonical(ident.tokens_spec),
    shell:
        "{deconattn} tokenize {params.spec:q} {wildcards.part} {input.corpus} $(dirname {input.tokenizer}) $(dirname {output.rows})"


rule finish_tokens:
    input:
        ancient(expand(f"{ident.tokens}/part-{{part}}.json", part=part_names)),
        ancient(expand(f"{ident.tokens}/heldout-{{part}}.parquet", part=part_names)),
        tokenizer=ancient(f"{ident.tokenizer}/tokenizer.json"),
    output:
        manifest=f"{ident.tokens}/manifest.json",
        heldout=f"{ident.tokens}/heldout.parquet",
    params:
        spec=canonical(ident.tokens_spec),
    localrule: True
    shell:
        "{deconattn} finish-tokens {params.spec:q} $(dirname {input.tokenizer}) $(dirname {output.manifest})"


rule side_text:
    input:
        text=ancient(f"{ident.side_text}/part-0000.parquet") if ident.side_text else [],
        tokens=ancient(f"{ident.tokens}/manifest.json") if not ident.side_text else [],
        tokenizer=ancient(f"{ident.tokenizer}/tokenizer.json"),
    output:
        "results/sidetexts/{side}/side.parquet",
    params:
        length=lambda w: w.side.split("-")[0],
    localrule: True
    shell:
        "{deconattn} side-text {params.length} $(dirname {input.tokenizer}) {output} {input.text} {input.tokens}"
