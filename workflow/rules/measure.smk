# Reads:  the settings alone: a model's shape, no weights.
# Writes: results/costs/<model>-<hash>.parquet (a row a variant × batch × length), -differences.parquet (why the paper's numbers are others).
from deconattn.experiment.measured import measure_code, measure_spec, measured_models, measured_path

measured = {measured_path(settings, model).name: model for model in measured_models(settings)}


def measuring_resources(wildcards):
    """A measurement runs where the model's training would, on one GPU at most."""
    return grid.resources_of(settings, measured[wildcards.costs])


rule measure:
    output:
        "results/costs/{costs}.parquet",
        "results/costs/{costs}-differences.parquet",
    params:
        spec=lambda w: canonical(measure_spec(settings, measured[w.costs])),
        out=lambda w: f"results/costs/{w.costs}",
        code=lambda w: measure_code(settings, measured[w.costs]),
        # How it is measured is written into the table and no part of what it is; functions of `resources` are not compared.
        place=lambda w, resources: f"--device {measuring_resources(w).device} --threads {measuring_resources(w).threads} --memory-mb {resources.mem_mb}",
    wildcard_constraints:
        costs="|".join(measured) or "none",
    # Times are taken alone on a machine: here all its cores are claimed, on a cluster those that a process of the model gets.
    threads: lambda w: max(measuring_resources(w).threads, workflow.cores or 1)
    resources:
        gpu=lambda w: min(1, measuring_resources(w).gpus),
        cpus_per_task=lambda w: measuring_resources(w).threads,
        runtime=lambda w: measuring_resources(w).evaluation_minutes,
        mem_mb=lambda w: measuring_resources(w).memory_mb,
    shell:
        "{deconattn} measure {params.spec:q} {params.out} {params.place} --code {params.code}"


rule aggregate_costs:
    input:
        there([f"results/costs/{costs}{tail}.parquet" for costs in measured for tail in ("", "-differences")]),
    output:
        [ident.report / "tables" / f"{name}.parquet" for name in ("costs", "cost_differences")],
    params:
        files=" ".join(f"results/costs/{costs}" for costs in measured),
        code=code_digest("deconattn.report.collect_costs"),
    localrule: True
    shell:
        "{deconattn} aggregate-costs {params.files} --report " + str(ident.report) + (" --partial" if partial else "")
