"""The command line: one subcommand a stage (`deconattn.stages`), its arguments, and errors as one line each."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deconattn import stages
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

    def command(name: str, handler: Handler, *arguments: tuple[str, dict[str, Any]]) -> None:
        help = (handler.__doc__ or "").split("\n")[0]
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

    command("check", stages.check, ("config", {"type": Path, "nargs": "+"}))
    command("fetch-package", stages.fetch_package,
            ("package", {}), ("version", {}), ("folder", path))  # fmt: skip
    command("mirror-text", stages.mirror_text, source, ("part", number), ("parts", number), out)
    command("mirror-manifest", stages.mirror_manifest, ("folder", path), ("parts", number))
    command("mirror-task", stages.mirror_task, source, ("task", {}), out)
    command("mirror-tokenizer", stages.mirror_tokenizer, source, ("folder", path))
    command("train-tokenizer", stages.train_tokenizer,
            spec(vocab_size=int, heldout_fraction=(float, int)), ("folder", path),
            ("parts", {"type": Path, "nargs": "+"}), code)  # fmt: skip
    command("tokenize", stages.tokenize,
            spec(code=str, context_length=int, heldout_fraction=(float, int), budget=(int, type(None)), parts=int),
            ("part", number), ("corpus", path), ("tokenizer", path), ("folder", path))  # fmt: skip
    command("finish-tokens", stages.finish_tokens,
            spec(code=str, parts=int), ("tokenizer", path), ("folder", path))  # fmt: skip
    command("side-text", stages.side_text,
            ("length", number), ("tokenizer", path), out, ("text", path))  # fmt: skip
    command(
        "spec",
        stages.spec,
        spec(code=str, seed=int, model=dict, model__name=str, model__variant=str, model__layout=str, tokens=dict),
        ("tokens_manifest", path),
        out,
    )
    command("pretrain", stages.pretrain,
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
    command("evaluate", stages.evaluate,
            ("run", path), ("tokenizer", path), spec(code=str, files=dict),
            ("--batch-size", {"type": positive_int, "default": 16}), device)  # fmt: skip
    command("baselines", stages.baselines,
            spec(code=str, files=dict, limits=dict), ("tokenizer", path), out)  # fmt: skip
    command("analyse", stages.analyse,
            ("run", path), spec(code=str, context_length=int, heldout=str), device)  # fmt: skip
    command("measure", stages.measure,
            spec(model=dict, model__name=str, **{f"model__{name}": int for name in SHAPE}, variants=list, batch_sizes=list,
                 lengths=list, repeats=int),
            out, device, ("--threads", {"type": positive_int, "default": 1}),
            ("--memory-mb", {"type": positive_int,
                             "help": "main memory; what needs more is left out, and its row says so"}))  # fmt: skip
    runs = ("runs", {"type": json_text, "help": "run → note, as JSON"})
    command("aggregate", stages.aggregate, runs, ("report", path))
    command("aggregate-analysis", stages.aggregate_analysis, runs, ("report", path))
    command(
        "aggregate-costs",
        stages.aggregate_costs,
        ("files", {"type": Path, "nargs": "*", "help": "costs of a model, without .parquet"}),
        ("--report", {"type": Path, "required": True}),
        ("--partial", {"action": "store_true", "help": "pass over models that were not measured"}),
    )
    command("draw", stages.draw,
            ("exhibit", {}), ("options", {"type": json_text}), ("tables", path), ("folder", path))  # fmt: skip
    command("provenance", stages.provenance,
            ("exhibits", {"type": json_names}), ("report", path))  # fmt: skip
    questions.add(command)
    return parser
