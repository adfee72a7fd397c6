# Reads:  runs, evaluations, analyses, costs (what is not there is a row of gaps with its reason, never a zero).
# Writes: results/tables/<config>-<hash>/{runs, evaluation, samples, training, gaps, baselines}.parquet; with `-attention` also {attention,
#         scores, analysis_gaps}.parquet; with `-run_costs` run_costs.parquet, what each run
#         costs by formula; with `-costs` {costs, cost_differences}.parquet alone.


rule aggregate:
    input:
        lambda w: rules_.inputs(w.folder),
    output:
        "{folder}/done",
    wildcard_constraints:
        folder=r"results/tables/[^/]+",
    localrule: True
    shell:
        "{deconattn} aggregate {wildcards.folder}"
