# DeconAttn: from text to the paper's tables and figures. Each stage is one file in workflow/rules.
#
#   snakemake                                                   the demo (config/demo.yaml)
#   snakemake --profile slurm --configfile config/paper.yaml    the paper's grid on a cluster
import signal
import sys

# Slurm's warning signal goes to every process of a job step. Ignored here, and so in what is started from here, it reaches the one
# process that handles it: the trainer, which saves and ends.
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
sys.path.insert(0, workflow.basedir)

if not workflow.configfiles:

    configfile: "config/demo.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/mirror.smk"
include: "workflow/rules/tokens.smk"
include: "workflow/rules/spec.smk"
include: "workflow/rules/pretrain.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/analyse.smk"
include: "workflow/rules/measure.smk"
include: "workflow/rules/aggregate.smk"
include: "workflow/rules/figures.smk"


report: "workflow/report/workflow.rst"


rule all:
    input:
        # The runs are named beside what is drawn from them: had a run lost its record, its table alone would not tell.
        results_of(run_names, "done.json"),
        [] if partial else [spec for run in run_names if (spec := lost_spec(run))],
        [ident.report / "figures" / f"{exhibit}.png" for exhibit in figure_names],
        [ident.report / "tables" / f"{exhibit}.html" for exhibit in table_names],
        [ident.report / "provenance.html"] if settings.exhibits else [],
    default_target: True
    localrule: True
