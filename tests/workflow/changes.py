"""The matrix of changes: what is edited in a finished project, and exactly which jobs a launch then runs.

`python -m tests.workflow.changes` prints the table of docs/changes.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tests.project import CONFIG
from tests.workflow.edits import (
    MLP_EDITED,
    Edit,
    add_file,
    both,
    code,
    config,
    copy_file,
    edit,
    more_text,
    moved,
    remove,
    touch,
)

Jobs = frozenset[tuple[str, str]]
"""(rule, folder without its hash; evaluations and analyses by their run)."""

MLP, RNDEMB, STANDARD = "tiny-mlp-uniform-s0", "tiny-rndembqk-even-s0", "tiny-standard-uniform-s0"
RUNS, ANALYSED = (MLP, RNDEMB, STANDARD), (RNDEMB, STANDARD)


@dataclass(frozen=True)
class Change:
    """A row: what is changed, in words; the edit; the jobs; and how the table says the jobs."""

    name: str
    edit: Edit
    jobs: Jobs
    said: str


def of(rules: str | Iterable[str], runs: Iterable[str]) -> Jobs:
    """Jobs of rules for runs."""
    names = rules.split() if isinstance(rules, str) else rules
    return frozenset((rule, run) for rule in names for run in runs)


def drawn(*names: str) -> Jobs:
    """Tables and figures, and the page of all of them."""
    kinds = frozenset(("table" if name.startswith("table") else "figure", name) for name in names)
    return kinds | of("page", ["page"])


EXHIBITS = ("table_findings", "table1", "figure1", "figure2", "figure4", "figure5")
REPORT = of("aggregate", ["test", "test-attention"]) | drawn(*EXHIBITS)
NOTHING: Jobs = frozenset()


def trained(*runs: str, analysed: Iterable[str] = ()) -> Jobs:
    """Whole runs: training, evaluation, and analysis of those that are analysed; the report."""
    return of("pretrain evaluate", runs) | of("analyse", analysed) | REPORT


ALL = trained(*RUNS, analysed=ANALYSED)
EVALUATED = of("evaluate", RUNS) | REPORT
BASELINES = of("baselines", ["items"])
TOKENS = of("tokenize_part", ["tales-32#0", "tales-32#1"]) | of("tokenize", ["tales-32"])
CORPUS = of("mirror_part", ["corpus-tales#0", "corpus-tales#1"]) | of("mirror_source", ["corpus-tales"])


SAID = {NOTHING: "nothing", ALL: "all runs; the report", REPORT: "the report"}


def row(name: str, edit: Edit, jobs: Jobs = NOTHING, said: str = "") -> Change:
    return Change(name, edit, jobs, said or SAID[jobs])


# fmt: off
CHANGES = [
    row("nothing", lambda project: None),
    # ---- code that changes nothing
    row("a comment in a mixer",
        code("mixers/mlp.py", "from torch import Tensor", "# a word\nfrom torch import Tensor")),
    row("formatting of the training loop",
        code("training/loop.py", "self.model.train()\n", "(\n            self.model.train()\n        )\n")),
    row("a new mixer's file", add_file("deconattn/mixers/mine.py", "import deconattn.mixers.standard\n")),
    row("a method of a mixer that the grid does not have",
        code("mixers/approximate.py", "    def ", "    def unused(self) -> None: ...\n\n    def ")),
    row("the text of an error", code("files.py", "no such file", "there is no such file")),
    row("a function that nothing uses, in a module that all runs use",
        code("files.py", "def write_json", "def unused() -> None: ...\n\n\ndef write_json")),
    row("a formula of costs, where nothing shows costs", code("costs.py", "return 3 * ", "return 2 * ")),
    row("all files of the code touched (a clone)", touch("deconattn/**/*", "workflow/**/*", "config/*", "Snakefile")),
    # ---- code that changes results
    row("a function of one mixer", MLP_EDITED, trained(MLP), "its runs: training, evaluation; the report"),
    row("a class attribute of one mixer", code("mixers/rndembqk.py", "side_stream", "unused = 1\n    side_stream"),
        trained(RNDEMB, analysed=[RNDEMB]), "its runs, with analysis; the report"),
    row("the class that all mixers share",
        code("mixers/base.py", "self.config = config", "self.config = config or None"), ALL),
    row("a function that some mixers use", code("mixers/base.py", "** 0.5", "** 0.25"),
        trained(RNDEMB, STANDARD, analysed=ANALYSED), "their runs, with analysis; the report"),
    row("the model", code("decoder.py", "return self.norm(x)", "return x"), ALL),
    row("the training loop", code("training/loop.py", "self.optimizer.step()", "pass"), ALL),
    row("tokenization", code("data/tokens.py", "documents + 1, size", "1 + documents, size"),
        ALL | TOKENS | BASELINES, "token table, baselines, all runs; the report"),
    row("evaluation", code("evaluation/scoring.py", "before or [self.prefix_token_id]", "before or [0]"),
        EVALUATED | BASELINES, "baselines, evaluation of all runs; the report"),
    row("analysis", code("analysis/indicators.py", "return 2 / (", "return 3 / ("),
        of("analyse", ANALYSED) | of("aggregate", ["test-attention"]) | drawn("figure1", "figure2"),
        "analysis of the runs that have one; its figures"),
    row("gathering of results", code("report/collect.py", "MAX_POINTS = 5_000", "MAX_POINTS = 4_000"), REPORT,
        "tables and figures"),
    row("drawing of one figure", code("report/curves.py", "_POINTS = 800", "_POINTS = 700"), drawn("figure5"),
        "that figure"),
    row("style of figures", code("report/style.py", "w_pad=0.03", "w_pad=0.04"),
        drawn("figure1", "figure2", "figure4", "figure5"), "all figures, no table"),
    row("layout of tables", code("report/templates/style.html", "max-width: 96rem", "max-width: 90rem"),
        drawn("table1", "table_findings"), "all tables, no figure"),
    row("the paper's published values", code("report/published_results.csv", "\n", "\n\n"),
        drawn("table_findings", "table1", "figure4"), "what shows them"),
    row("a margin of a claim", code("report/claims.csv", "0.693", "0.7"), drawn("table_findings", "figure4"),
        "what evaluates or marks claims"),
    # ---- the workflow
    row("white space in a shell command",
        edit("workflow/rules/pretrain.smk", "{params.launch} pretrain", "{params.launch}  pretrain")),
    # ---- settings of training
    row("the learning rate", config("peak_learning_rate: 4e-3", "peak_learning_rate: 5e-3"), ALL),
    row("layers and heads swapped",
        both(config("num_hidden_layers: 4", "num_hidden_layers: 2"),
             config("num_attention_heads: 2", "num_attention_heads: 4")), ALL),
    row("length said in tokens, the same", config("steps: 12", "tokens: 1536")),
    row("what is done about a loss that is not finite",
        config("heldout_every: 6", "heldout_every: 6\n  on_divergence: record")),
    row("vocabulary of the tokenizer", config("vocab_size: 384", "vocab_size: 300"),
        ALL | TOKENS | BASELINES | of("train_tokenizer", ["bpe300"]),
        "tokenizer, token table, baselines, all runs; the report"),
    # ---- the grid
    row("a seed added", config("layouts: [uniform]}", "layouts: [uniform], seeds: [0, 1]}"),
        trained("tiny-standard-uniform-s1", "tiny-mlp-uniform-s1", analysed=["tiny-standard-uniform-s1"]),
        "the new runs; the report"),
    row("a variant added", config("variants: [rndembqk]", "variants: [rndembqk, staticembqk]"),
        trained("tiny-staticembqk-even-s0", analysed=["tiny-staticembqk-even-s0"]), "the new runs; the report"),
    row("a variant dropped", config("variants: [standard, mlp]", "variants: [standard]"), REPORT),
    row("order of the grid's variants", config("variants: [standard, mlp]", "variants: [mlp, standard]")),
    row("a size added",
        both(config("training:\n", "  small: {hidden_size: 16, intermediate_size: 32, num_hidden_layers: 2,"
                    " num_attention_heads: 2, max_position_embeddings: 32}\n\ntraining:\n"),
             config("grid:\n", "grid:\n  - {models: [small], variants: [mlp], layouts: [uniform]}\n")),
        trained("small-mlp-uniform-s0"), "the new runs; the report"),
    row("a size renamed", lambda project: project.edit_all(CONFIG, "tiny", "dwarf"),
        trained("dwarf-mlp-uniform-s0", "dwarf-rndembqk-even-s0", "dwarf-standard-uniform-s0",
                analysed=["dwarf-rndembqk-even-s0", "dwarf-standard-uniform-s0"]),
        "its runs, which are named by it; the report"),
    # ---- what is measured and drawn
    row("a task added",
        both(copy_file("tests/data/mirror/tasks/rte.parquet", "tests/data/mirror/tasks/boolq.parquet"),
             config("tasks: [copa, rte,", "tasks: [copa, rte, boolq,")),
        EVALUATED | BASELINES | of("mirror_source", ["boolq-mirror"]),
        "its mirror, baselines, evaluation of all runs; the report"),
    row("a task dropped", config("tasks: [copa, rte,", "tasks: [copa,"), EVALUATED | BASELINES,
        "baselines, evaluation of all runs; the report"),
    row("evaluation in bf16", config("  modes: [full", "  precision: bf16\n  modes: [full"),
        EVALUATED, "evaluation of all runs; the report"),
    row("fewer items of a task", config("  modes: [full", "  limit: {copa: 3}\n  modes: [full"),
        EVALUATED | BASELINES, "baselines, evaluation of all runs; the report"),
    row("a mode dropped", config("modes: [full, skip, skip_mixer]", "modes: [full, skip]"),
        of("evaluate", [RNDEMB]) | REPORT, "evaluation of the hybrids; the report"),
    row("a context length beyond a side stream",
        config("  modes: [full", "  context_lengths: {heldout: [32, 64]}\n  modes: [full"),
        of("evaluate", [MLP, STANDARD]) | REPORT, "evaluation of all runs without a side stream; the report"),
    row("a figure of quality against cost added", config("  figure5:", "  figure_pareto: {models: [tiny]}\n  figure5:"),
        of("aggregate", ["test-run_costs"]) | drawn("figure_pareto"), "its table of costs, that figure"),
    row("a figure added", config("  figure5:", "  figure7: {model: tiny}\n  figure5:"), drawn("figure7"),
        "that figure"),
    row("the description", config("A tiny grid", "A small grid")),
    row("the name of the report", config("name: test", "name: other"),
        of("aggregate", ["other", "other-attention"]) | drawn(*EXHIBITS), "the report, in its new place"),
    row("a figure deleted, with its marker",
        remove("results/exhibits/figure5-*/figure5.png", "results/exhibits/figure5-*/done"), drawn("figure5"),
        "that figure, and the page"),
    # ---- data and files
    row("files of the mirror's source touched", touch("tests/data/mirror/**/*")),
    row("text of the mirror's source changed", more_text("tests/data/mirror/corpus/tales.parquet"),
        ALL | TOKENS | CORPUS | BASELINES | of("train_tokenizer", ["bpe384"]), "everything from there on"),
    row("an evaluation set's source changed", more_text("tests/data/mirror/tasks/copa.parquet"),
        EVALUATED | BASELINES | of("mirror_source", ["copa-mirror"]),
        "its mirror, baselines, evaluation of all runs; the report"),
    row("the mirror deleted", remove("resources/mirror/*")),
    row("the token table deleted, a seed added",
        both(remove("results/tokens"), config("layouts: [even]", "layouts: [even], seeds: [0, 1]")),
        trained("tiny-rndembqk-even-s1", analysed=["tiny-rndembqk-even-s1"]) | TOKENS,
        "token table, the new runs; the report"),
    row("all results touched, in any order", touch("results/**/*", "resources/**/*")),
    row("Snakemake's notes deleted", remove(".snakemake")),
    row("results copied to another machine", moved),
    row("weights deleted", remove("results/runs/*/model/model.safetensors")),
    row("a training curve and the run's marker deleted",
        remove(f"results/runs/{MLP}-*/train.parquet", f"results/runs/{MLP}-*/done"), of("pretrain", [MLP]),
        "its training"),
    row("specs deleted", remove("results/runs/*/spec.json"), NOTHING, "nothing (records have them)"),
    row("a run deleted", remove(f"results/runs/{MLP}-*"), of("pretrain", [MLP]),
        "that run (the tables have its values)"),
    row("intermediate folders deleted, an evaluation added",
        both(remove("results/tokenizers", "results/baselines"),
             config("  modes: [full", "  limit: {copa: 3}\n  modes: [full")),
        EVALUATED | BASELINES | of("train_tokenizer", ["bpe384"]),
        "what the evaluation reads; evaluation of all runs; the report"),
    # ---- how it is computed
    row("GPUs, processes, threads, micro-batch, memory, time limits",
        config("default: {processes: 1, threads: 1, device: cpu}",
               "default: {processes: 2, threads: 2, gpus: 2, device: auto, micro_batch_size: 1, compile: true, nodes: 2,"
               " evaluation_batch_size: 3, checkpoint_minutes: 7, memory_mb: 9000, runtime_minutes: 77, sharding: full,"
               " evaluation_minutes: 5, evaluation_memory_mb: 900, keep_checkpoints: true, device_memory_gb: 2,"
               " device_tflops: 1}")),
    row("another version of torch",
        add_file("torch-99.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: torch\nVersion: 99.0\n"), NOTHING,
        "nothing (`explain` shows it)"),
    row("hours that may be redone", config("name: test", "name: test\nredo_gpu_hours: 0")),
]
# fmt: on


def table() -> str:
    """The matrix as Markdown."""
    lines = ["| change | what runs again | jobs |", "| --- | --- | ---: |"]
    lines += [f"| {change.name} | {change.said} | {len(change.jobs)} |" for change in CHANGES]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")
