# Reads:  the results of all runs of the configuration (a run that is not there is a row of gaps, never a zero).
# Writes: results/reports/<name>/tables/{runs,evaluation,training,gaps}.parquet, and of the analysis {attention,scores,analysis_gaps}.parquet,
#         each set with a record of the runs that it was gathered from.


def gathered(name, runs, inputs):
    """Inputs of a gathering: none where its record names these very results and no run is to be done."""
    return lambda w: launch.needed(lambda: states.gathering(name, runs, partial), ident.report / "tables" / f"{name}.json", inputs)


rule aggregate:
    input:
        unpack(
            gathered(
                "aggregate",
                shown_runs,
                {
                    "results": results_of(shown_runs, "done.json", "train.parquet", "evaluation.parquet", "evaluation.json"),
                    "baselines": ident.report / "tables" / "baselines.parquet",
                    "record": ident.report / "tables" / "baselines.json",
                },
            )
        ),
    output:
        [ident.report / "tables" / name for name in GATHERED["aggregate"]],
    params:
        runs=canonical(shown_runs),
    localrule: True
    shell:
        "{deconattn} aggregate {params.runs:q} " + str(ident.report)


rule aggregate_analysis:
    input:
        unpack(
            gathered(
                "aggregate_analysis",
                analysed_runs,
                {"results": results_of(analysed_runs, "attention.parquet", "scores.parquet", "analysis.json")},
            )
        ),
    output:
        [ident.report / "tables" / name for name in GATHERED["aggregate_analysis"]],
    params:
        runs=canonical(analysed_runs),
    localrule: True
    shell:
        "{deconattn} aggregate-analysis {params.runs:q} " + str(ident.report)
