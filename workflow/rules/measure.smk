# Reads:  the settings alone: a model's shape, no weights.
# Writes: results/costs/<model>-<hash>.parquet (a row a variant × batch × length), -differences.parquet (why the paper's numbers are others),
#         .json (made from what, by which code); the tables that are gathered from all models', and their record.
from deconattn.experiment.measured import MEASURED, costs_spec, gathering_costs, measured_models, measured_path, measuring

measured = {measured_path(settings, model).name: model for model in measured_models(settings)}


def measuring_resources(wildcards):
    """A measurement runs where the model's training would, on one GPU at most."""
    return grid.resources_of(settings, measured[wildcards.costs])


rule measure:
    input:
        # None: its record alone says whether it is to be made again.
        unpack(lambda w: launch.needed(lambda: measuring(states, measured[w.costs]), f"results/costs/{w.costs}.json", {})),
    output:
        [f"results/costs/{{costs}}{tail}" for tail in MEASURED],
    params:
        spec=lambda w: canonical(costs_spec(settings, measured[w.costs])),
        out=lambda w: f"results/costs/{w.costs}",
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
        "{deconattn} measure {params.spec:q} {params.out} {params.place}"


rule aggregate_costs:
    input:
        unpack(
            lambda w: launch.needed(
                lambda: gathering_costs(states, partial),
                ident.report / "tables" / "aggregate_costs.json",
                {"measured": there([f"results/costs/{costs}{tail}" for costs in measured for tail in MEASURED])},
            )
        ),
    output:
        [ident.report / "tables" / name for name in GATHERED["aggregate_costs"]],
    params:
        files=" ".join(f"results/costs/{costs}" for costs in measured),
    localrule: True
    shell:
        "{deconattn} aggregate-costs {params.files} --report " + str(ident.report) + (" --partial" if partial else "")
