# DeconAttn: from text to the paper's tables and figures. Each stage is one file in workflow/rules.
#
#   snakemake                                                   the demo (config/demo.yaml)
#   snakemake --profile slurm --configfile config/paper.yaml    the paper's grid on a cluster
import os
import signal
import sys

# Slurm's warning signal goes to every process of a job step. Ignored here, and so in what is started from here, it reaches the one
# process that handles it: the trainer, which saves and ends.
signal.signal(signal.SIGUSR1, signal.SIG_IGN)

# The number of a cluster's job, with which it puts itself back into the queue when its time is over (deconattn/training/requeue.py).
if workflow.remote_exec:
    os.environ.update(DECONATTN_SLURM_JOB=os.environ.get("SLURM_JOB_ID", ""))

# The folder of this file, wherever snakemake was started and whatever uses it as a module; jobs find the package there too.
home = str(workflow.current_basedir)
sys.path.insert(0, home)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))

if not workflow.configfiles:

    configfile: os.path.relpath(os.path.join(home, "config/demo.yaml"))


include: "workflow/rules/common.smk"
include: "workflow/rules/mirror.smk"
include: "workflow/rules/tokenize.smk"
include: "workflow/rules/pretrain.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/analyse.smk"
include: "workflow/rules/measure.smk"
include: "workflow/rules/aggregate.smk"
include: "workflow/rules/exhibits.smk"


report: "workflow/report/workflow.rst"


rule all:
    default_target: True
    input:
        lambda w: rules_.targets(),
    localrule: True
