"""The matrix of changes: what is edited in a finished project, and exactly which jobs the real Snakefile then plans.

`python -m tests.workflow.changes` prints the table of docs/changes.md.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from tests.project import CONFIG, Project

Edit = Callable[[Project], None]
Jobs = frozenset[tuple[str, str]]
"""(rule, run without its hash, or "" for a job of no run)."""

MLP, RNDEMB, STANDARD = "tiny-mlp-uniform-s0", "tiny-rndembqk-even-s0", "tiny-standard-uniform-s0"
RUNS, ANALYSED = (MLP, RNDEMB, STANDARD), (RNDEMB, STANDARD)


@dataclass(frozen=True)
class Change:
    """A row: what is changed, in words; the edit; the jobs; and how the table says the jobs."""

    name: str
    edit: Edit
    jobs: Jobs
    said: str


def of(rules: str | Iterable[str], runs: Iterable[str] = ("",)) -> Jobs:
    """Jobs of rules for runs."""
    names = rules.split() if isinstance(rules, str) else rules
    return frozenset((rule, run) for rule in names for run in runs)


DRAWN = of("table1 figure1 figure2 figure4 figure5 provenance")
REPORT = of("aggregate") | DRAWN
REPORT_BOTH = REPORT | of("aggregate_analysis")
NOTHING: Jobs = frozenset()


def trained(*runs: str, analysed: Iterable[str] = ()) -> Jobs:
    """Whole runs: spec, training, evaluation, and analysis of those that are analysed; the report."""
    return of("spec pretrain evaluate", runs) | of("analyse", analysed) | (REPORT_BOTH if analysed else REPORT)


ALL = trained(*RUNS, analysed=ANALYSED)
EVALUATED = of("evaluate", RUNS) | REPORT
DATA = of("tokenize#0 tokenize#1 finish_tokens")


def code(file: str, old: str, new: str) -> Edit:
    """Replace a passage of the package."""
    return lambda project: project.edit(f"deconattn/{file}", old, new)


def config(old: str, new: str) -> Edit:
    """Replace a passage of the config."""
    return lambda project: project.edit(CONFIG, old, new)


MLP_EDITED = code("mixers/mlp.py", "return 3 * config", "return 1 + 3 * config")
"""A function of one mixer says something else."""


def both(*edits: Edit) -> Edit:
    """Several edits one after the other."""

    def edit(project: Project) -> None:
        for each in edits:
            each(project)

    return edit


def add_file(file: str, text: str) -> Edit:
    """Write a new file."""

    def edit(project: Project) -> None:
        path = project.folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    return edit


def remove(*patterns: str) -> Edit:
    """Delete files or folders."""

    def edit(project: Project) -> None:
        for path in [path for pattern in patterns for path in project.folder.glob(pattern)]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return edit


def touch(*patterns: str) -> Edit:
    """Give files new times, in an order that says nothing."""

    def edit(project: Project) -> None:
        paths = [path for pattern in patterns for path in sorted(project.folder.glob(pattern)) if path.is_file()]
        random.Random(1).shuffle(paths)
        now = 1_900_000_000
        for rank, path in enumerate(paths):
            os.utime(path, (now + rank, now + rank))

    return edit


def more_text(file: str) -> Edit:
    """Append a document to a corpus, or an item to an evaluation set: its last one again."""

    def edit(project: Project) -> None:
        table = pq.read_table(project.folder / file)
        pq.write_table(pa.concat_tables([table, table.slice(table.num_rows - 1)]), project.folder / file)

    return edit


def copy_file(source: str, target: str) -> Edit:
    """Copy one file of the project."""
    return lambda project: void(shutil.copy(project.folder / source, project.folder / target))


def void(_: object) -> None:
    """Nothing, of anything."""


def moved(project: Project) -> None:
    """The project in another folder, as copied to another machine: new times, and no notes of Snakemake."""
    touch("**/*")(project)
    remove(".snakemake")(project)
    target = project.folder.with_name("elsewhere")
    project.folder.rename(target)
    project.folder = target


def row(name: str, edit: Edit, jobs: Jobs, said: str) -> Change:
    return Change(name, edit, jobs, said)


MLP_AGAIN = trained(MLP)
CHANGES = [
    row("nothing", lambda project: None, NOTHING, "nothing"),
    # ---- code that changes nothing
    row(
        "a comment in a mixer",
        code("mixers/mlp.py", "from torch import Tensor", "# a word\nfrom torch import Tensor"),
        NOTHING,
        "nothing",
    ),
    row("a docstring of the model", code("model.py", '"""', '"""Another word. '), NOTHING, "nothing"),
    row(
        "formatting of the training loop",
        code("training/loop.py", "self.model.train()\n", "(\n            self.model.train()\n        )\n"),
        NOTHING,
        "nothing",
    ),
    row("progress messages", code("training/progress.py", "tokens/s", "tokens a second"), NOTHING, "nothing"),
    row(
        "a new mixer's file",
        add_file("deconattn/mixers/mine.py", "import deconattn.mixers.standard\n"),
        NOTHING,
        "nothing",
    ),
    row(
        "a function of a mixer that the grid does not have",
        code(
            "mixers/approximate.py",
            "def ",
            "def unused() -> None: ...\n\n\ndef ",
        ),
        NOTHING,
        "nothing",
    ),
    row(
        "all files of the code touched (a clone)",
        touch("deconattn/**/*", "workflow/**/*", "config/*", "Snakefile"),
        NOTHING,
        "nothing",
    ),
    # ---- code that changes results
    row(
        "a function of one mixer",
        MLP_EDITED,
        MLP_AGAIN,
        "its runs: spec, training, evaluation; the report",
    ),
    row(
        "a class attribute of one mixer",
        code("mixers/rndembqk.py", "side_stream", "unused = 1\n    side_stream"),
        trained(RNDEMB, analysed=[RNDEMB]),
        "its runs, with analysis; the report",
    ),
    row(
        "a module that all mixers share", code("mixers/_contract.py", "** 0.5", "** 0.25"), ALL, "all runs; the report"
    ),
    row("the model", code("model.py", "return self.norm(x)", "return x"), ALL, "all runs; the report"),
    row("the training loop", code("training/loop.py", "self.optimizer.step()", "pass"), ALL, "all runs; the report"),
    row(
        "the order of the data",
        code("data/order.py", "def batch", "def other() -> None: ...\n\n\ndef batch"),
        ALL,
        "all runs; the report",
    ),
    row(
        "tokenization",
        code("data/tokens.py", "def _chunks", "def other() -> None: ...\n\n\ndef _chunks"),
        ALL | DATA | of("baselines"),
        "token table, baselines, all runs; the report",
    ),
    row(
        "evaluation",
        code("evaluation/scoring.py", "\ndef ", "\ndef other() -> None: ...\n\n\ndef "),
        EVALUATED | of("baselines"),
        "baselines, evaluation of all runs; the report",
    ),
    row(
        "analysis",
        code("analysis/indicators.py", "def ", "def other() -> None: ...\n\n\ndef "),
        of("analyse", ANALYSED) | of("aggregate_analysis figure1 figure2 provenance"),
        "analysis of the runs that have one; its figures",
    ),
    row(
        "gathering of results",
        code("report/collect.py", "MAX_POINTS = 5_000", "MAX_POINTS = 4_000"),
        REPORT,
        "tables and figures",
    ),
    row(
        "drawing of one figure",
        code("report/figure5.py", "def draw", "def other() -> None: ...\n\n\ndef draw"),
        of("figure5 provenance"),
        "that figure",
    ),
    row(
        "style of figures",
        code("report/style.py", "def ", "def other() -> None: ...\n\n\ndef "),
        of("figure1 figure2 figure4 figure5 provenance"),
        "all figures, no table",
    ),
    row(
        "layout of tables",
        code("report/table_html.py", "def ", "def other() -> None: ...\n\n\ndef "),
        of("table1 provenance"),
        "all tables, no figure",
    ),
    row(
        "the paper's published values",
        code("report/published_results.csv", "\n", "\n\n"),
        of("table1 figure4 provenance"),
        "what shows them",
    ),
    # ---- the workflow
    row(
        "white space in a shell command",
        lambda project: project.edit(
            "workflow/rules/pretrain.smk", "{params.launch} pretrain", "{params.launch}  pretrain"
        ),
        NOTHING,
        "nothing",
    ),
    row(
        "a comment in the Snakefile",
        lambda project: project.edit("Snakefile", "import signal", "# a word\nimport signal"),
        NOTHING,
        "nothing",
    ),
    row(
        "a comment in a rule",
        lambda project: project.edit("workflow/rules/pretrain.smk", "    params:", "    # a word\n    params:"),
        NOTHING,
        "nothing",
    ),
    # ---- settings of training
    row(
        "the learning rate", config("peak_learning_rate: 4e-3", "peak_learning_rate: 5e-3"), ALL, "all runs; the report"
    ),
    row(
        "the learning rate said otherwise (0.004)",
        config("peak_learning_rate: 4e-3", "peak_learning_rate: 0.004"),
        NOTHING,
        "nothing",
    ),
    row(
        "layers and heads swapped",
        both(
            config("num_hidden_layers: 4", "num_hidden_layers: 2"),
            config("num_attention_heads: 2", "num_attention_heads: 4"),
        ),
        ALL,
        "all runs; the report",
    ),
    row("length said in tokens, the same", config("steps: 12", "tokens: 1536"), NOTHING, "nothing"),
    row(
        "order of keys",
        config("  steps: 12\n  sequences_per_step: 4\n", "  sequences_per_step: 4\n  steps: 12\n"),
        NOTHING,
        "nothing",
    ),
    row(
        "what is done about a loss that is not finite",
        config("heldout_every: 6", "heldout_every: 6\n  on_divergence: record"),
        NOTHING,
        "nothing",
    ),
    row(
        "vocabulary of the tokenizer",
        config("vocab_size: 384", "vocab_size: 300"),
        ALL | DATA | of("train_tokenizer baselines"),
        "tokenizer, token table, baselines, all runs; the report",
    ),
    # ---- the grid
    row(
        "a seed added",
        config("layouts: [uniform]}", "layouts: [uniform], seeds: [0, 1]}"),
        trained("tiny-standard-uniform-s1", "tiny-mlp-uniform-s1", analysed=["tiny-standard-uniform-s1"]),
        "the new runs; the report",
    ),
    row(
        "a variant added",
        config("variants: [rndembqk]", "variants: [rndembqk, staticembqk]"),
        trained("tiny-staticembqk-even-s0", analysed=["tiny-staticembqk-even-s0"]),
        "the new runs; the report",
    ),
    row("a variant dropped", config("variants: [standard, mlp]", "variants: [standard]"), REPORT, "the report"),
    row(
        "a variant dropped and added again",
        both(
            config("variants: [standard, mlp]", "variants: [standard]"),
            config("variants: [standard]", "variants: [standard, mlp]"),
        ),
        NOTHING,
        "nothing",
    ),
    row(
        "order of the grid's variants",
        config("variants: [standard, mlp]", "variants: [mlp, standard]"),
        NOTHING,
        "nothing",
    ),
    row(
        "a layout added",
        config("layouts: [even]", "layouts: [even, top]"),
        trained("tiny-rndembqk-top-s0"),
        "the new runs; the report",
    ),
    row(
        "a size added",
        both(
            config(
                "training:\n",
                "  small: {hidden_size: 16, intermediate_size: 32, num_hidden_layers: 2, num_attention_heads: 2,"
                " max_position_embeddings: 32}\n\ntraining:\n",
            ),
            config("grid:\n", "grid:\n  - {models: [small], variants: [mlp], layouts: [uniform]}\n"),
        ),
        trained("small-mlp-uniform-s0"),
        "the new runs; the report",
    ),
    row(
        "a size renamed",
        lambda project: project.edit_all(CONFIG, "tiny", "dwarf"),
        trained(
            "dwarf-mlp-uniform-s0",
            "dwarf-rndembqk-even-s0",
            "dwarf-standard-uniform-s0",
            analysed=["dwarf-rndembqk-even-s0", "dwarf-standard-uniform-s0"],
        ),
        "its runs, which are named by it; the report",
    ),
    # ---- what is measured and drawn
    row(
        "a task added",
        both(
            copy_file("tests/data/mirror/tasks/rte.parquet", "tests/data/mirror/tasks/boolq.parquet"),
            config("tasks: [copa, rte,", "tasks: [copa, rte, boolq,"),
        ),
        EVALUATED | of("mirror_task#boolq baselines"),
        "its mirror, baselines, evaluation of all runs; the report",
    ),
    row(
        "a task dropped",
        config("tasks: [copa, rte,", "tasks: [copa,"),
        EVALUATED | of("baselines"),
        "baselines, evaluation of all runs; the report",
    ),
    row(
        "a context length added",
        config("  modes: [full", "  context_lengths: {heldout: [16, 32]}\n  modes: [full"),
        EVALUATED,
        "evaluation of all runs; the report",
    ),
    row(
        "fewer items of a task",
        config("  modes: [full", "  limit: {copa: 3}\n  modes: [full"),
        EVALUATED | of("baselines"),
        "baselines, evaluation of all runs; the report",
    ),
    row(
        "a mode dropped",
        config("modes: [full, skip, skip_mixer]", "modes: [full, skip]"),
        of("evaluate", [RNDEMB]) | REPORT,
        "evaluation of the hybrids; the report",
    ),
    row(
        "a figure added",
        config("  figure5:", "  figure7: {model: tiny}\n  figure5:"),
        of("figure7 provenance"),
        "that figure",
    ),
    row("the description", config("A tiny grid", "A small grid"), NOTHING, "nothing"),
    row(
        "the name of the report",
        config("name: test", "name: other"),
        REPORT_BOTH | of("baselines"),
        "the report, in its new place",
    ),
    row(
        "a figure deleted", remove("results/reports/test/figures/figure5.png"), of("figure5 provenance"), "that figure"
    ),
    # ---- data and files
    row("files of the mirror's source touched", touch("tests/data/mirror/**/*"), NOTHING, "nothing"),
    row("files of the mirror touched", touch("resources/**/*"), NOTHING, "nothing"),
    row(
        "text of the mirror's source changed",
        more_text("tests/data/mirror/corpus/tales.parquet"),
        ALL | DATA | of("mirror_text#0 mirror_text#1 mirror_manifest train_tokenizer baselines"),
        "everything from there on",
    ),
    row(
        "an evaluation set's source changed",
        more_text("tests/data/mirror/tasks/copa.parquet"),
        EVALUATED | of("mirror_task#copa baselines"),
        "its mirror, baselines, evaluation of all runs; the report",
    ),
    row("the mirror deleted", remove("resources/mirror/corpus-*", "resources/mirror/tasks-*"), NOTHING, "nothing"),
    row("the token table deleted", remove("results/tokens"), NOTHING, "nothing"),
    row(
        "the token table deleted, a seed added",
        both(remove("results/tokens"), config("layouts: [even]", "layouts: [even], seeds: [0, 1]")),
        trained("tiny-rndembqk-even-s1", analysed=["tiny-rndembqk-even-s1"]) | DATA,
        "token table, the new runs; the report",
    ),
    row("all results touched, in any order", touch("results/**/*", "resources/**/*"), NOTHING, "nothing"),
    row("Snakemake's notes deleted", remove(".snakemake"), NOTHING, "nothing"),
    row(
        "Snakemake's notes deleted, a task dropped",
        both(remove(".snakemake"), config("tasks: [copa, rte,", "tasks: [copa,")),
        EVALUATED | of("baselines"),
        "as with its notes",
    ),
    row(
        "Snakemake's notes deleted, a figure's code changed",
        both(remove(".snakemake"), code("report/figure5.py", "def draw", "def other() -> None: ...\n\n\ndef draw")),
        of("figure5 provenance"),
        "as with its notes",
    ),
    row("results copied to another machine", moved, NOTHING, "nothing"),
    row("checkpoints deleted", remove("results/runs/*/checkpoints"), NOTHING, "nothing"),
    row("weights deleted", remove("results/runs/*/model/model.safetensors"), NOTHING, "nothing"),
    row(
        "a training curve deleted",
        remove(f"results/runs/{MLP}-*/train.parquet"),
        trained(MLP) - of("spec", [MLP]),
        "its training goes on from its last checkpoint; the report",
    ),
    row("a run's spec deleted", remove(f"results/runs/{MLP}-*/spec.json"), of("spec", [MLP]), "it is written again"),
    row(
        "a run's spec deleted, a task dropped",
        both(remove(f"results/runs/{MLP}-*/spec.json"), config("tasks: [copa, rte,", "tasks: [copa,")),
        EVALUATED | of("baselines") | of("spec", [MLP]),
        "as with its spec, which is written again",
    ),
    # ---- how it is computed
    row(
        "GPUs, processes, threads, micro-batch, memory, time limits",
        config(
            "default: {processes: 1, threads: 1, device: cpu}",
            "default: {processes: 2, threads: 2, gpus: 2, device: auto, micro_batch_size: 1, compile: true,"
            " evaluation_batch_size: 3, checkpoint_minutes: 7, memory_mb: 9000, runtime_minutes: 77, evaluation_minutes: 5}",
        ),
        NOTHING,
        "nothing",
    ),
    row(
        "another version of torch",
        add_file("torch-99.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: torch\nVersion: 99.0\n"),
        NOTHING,
        "nothing (`explain` shows it)",
    ),
    row("hours that may be redone", config("name: test", "name: test\nredo_gpu_hours: 0"), NOTHING, "nothing"),
]


def table() -> str:
    """The matrix as Markdown."""
    lines = ["| change | what runs again | jobs |", "| --- | --- | ---: |"]
    lines += [f"| {change.name} | {change.said} | {len(change.jobs)} |" for change in CHANGES]
    return "\n".join(lines) + "\n"


def planned(project: Project, *options: str) -> Jobs:
    """What a dry run of the real Snakefile prints, read from its text: with the part or task of jobs that have one."""
    done = project.snakemake("-n", *options)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    jobs = []
    rule = ""
    for line in said.splitlines():
        if line.startswith(("rule ", "localrule ", "checkpoint ")):
            rule = line.split()[1].rstrip(":")
            jobs.append((rule, ""))
        elif line.strip().startswith("wildcards: ") and jobs:
            values = dict(pair.split("=", 1) for pair in line.strip().removeprefix("wildcards: ").split(", "))
            run = values.get("run", "").rpartition("-")[0]
            part = f"#{int(values['part'])}" if "part" in values else f"#{values['task']}" if "task" in values else ""
            jobs[-1] = (rule + part, run)
    assert len(jobs) == len(set(jobs)), f"a job twice: {jobs}"
    return frozenset(job for job in jobs if job[0] != "all")


if __name__ == "__main__":
    print(table(), end="")
