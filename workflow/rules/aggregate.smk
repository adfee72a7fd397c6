# Reads:  the results of all runs of the configuration (a run that is not there is a row of gaps, never a zero).
# Writes: results/reports/<name>/tables/{runs,evaluation,training,gaps}.parquet, and of the analysis {attention,scores,analysis_gaps}.parquet.


rule aggregate:
    input:
        results=results_of(run_names, "done.json", "train.parquet", "evaluation.parquet"),
        baselines=ident.report / "tables" / "baselines.parquet",
    output:
        [ident.report / "tables" / f"{name}.parquet" for name in ("runs", "evaluation", "training", "gaps")],
    params:
        runs=canonical(run_names),
        code=code_digest("deconattn.report.collect"),
    localrule: True
    shell:
        "{deconattn} aggregate {params.runs:q} {input.baselines} " + str(ident.report)


rule aggregate_analysis:
    input:
        results_of(ident.analysed, "attention.parquet", "scores.parquet"),
    output:
        [ident.report / "tables" / f"{name}.parquet" for name in ("attention", "scores", "analysis_gaps")],
    params:
        runs=canonical(ident.analysed),
        code=code_digest("deconattn.report.collect_analysis"),
    localrule: True
    shell:
        "{deconattn} aggregate-analysis {params.runs:q} " + str(ident.report)
