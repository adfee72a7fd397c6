"""The command line: one subcommand a stage (`deconattn.stages`), its arguments, and errors as one line each."""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from deconattn import commands, stages
from deconattn.errors import UserError
from deconattn.peaks import PEAKS

Handler = Callable[[argparse.Namespace], None]


def main(arguments: list[str] | None = None) -> int:
    """Run one subcommand; returns the exit code: 0 done, 2 bad input (one line each on standard error), 75 stopped in time.

    A file that is missing, or that the system refuses, is one line too; `DECONATTN_TRACEBACK=1` shows where it is opened.
    Any other error is a fault of this program and keeps its traceback.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as standard error: no locale stops a command
    try:
        options = _parser().parse_args(arguments)
        options.handler(options)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (UserError, OSError) as error:
        line = str(error)
        if isinstance(error, OSError):
            if error.filename is None or os.environ.get("DECONATTN_TRACEBACK"):
                raise
            line = f"{os.fsdecode(error.filename)}: {error.strerror} (DECONATTN_TRACEBACK=1 shows where)"
        if os.environ.get("RANK", "0") == "0":  # under torchrun every process meets the same error; one prints it
            print(line, file=sys.stderr)
        return 2
    return 0


# ---- arguments: each says in one line what was given and what is allowed -----------------------------------------------
class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as every other error is said."""

    def error(self, message: str) -> NoReturn:
        """Raise `UserError`."""
        raise UserError(f"{self.prog}: {message} (see {self.prog} --help)")


def _number(kind: type, words: str, is_allowed: Callable[[float], bool]) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or not is_allowed(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not {words}")
        return value

    return parse


positive_int = _number(int, "a whole number of at least 1", lambda value: value >= 1)
positive_float = _number(float, "a finite number above 0", lambda value: value > 0)
non_negative_float = _number(float, "a finite number of at least 0", lambda value: value >= 0)


def json_value(text: str) -> Any:
    """A value of JSON."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise argparse.ArgumentTypeError(f"{text[:60]!r} is not a JSON object") from None


Argument = tuple[str, dict[str, Any]]


def _arg(flag: str, kind: Callable[[str], Any] = str, help: str | None = None, **keywords: Any) -> Argument:
    return flag, {"type": kind, "help": help, **keywords}


def _flag(flag: str, help: str) -> Argument:
    return flag, {"action": "store_true", "help": help}


def _configs(help: str = "files that are merged, as for snakemake", many: str = "+") -> Argument:
    return _arg("configs", Path, help, nargs=many, metavar="CONFIG")


FOLDER = _arg("folder", Path, "holds spec.json; all that is made comes here")
PART = _arg("--part", help="one part of the corpus; without it, all parts together", default="", metavar="NNNN")
DEVICE = _arg("--device", default="auto", choices=("auto", "cpu", "cuda"))
THREADS = _arg("--threads", positive_int, default=1)
DEADLINE = _arg("--deadline-minutes", non_negative_float,
                "stop, save and exit with 75 before so many minutes are over; 0: never")  # fmt: skip
AS_JSON = _flag("--json", "for programs")
SETTINGS = ("--config", {"nargs": "+", "action": "extend", "default": [], "metavar": "KEY=VALUE",
                         "help": "settings that override those of the files, as for snakemake"})  # fmt: skip
HOURS: dict[str, Any] = {"kind": non_negative_float, "metavar": "HOURS"}

COMMANDS: list[tuple[Handler, list[Argument]]] = [
    (commands.check, [_configs()]),
    (stages.fetch, [FOLDER]),
    (stages.mirror, [FOLDER, PART]),
    (stages.train_tokenizer, [FOLDER]),
    (stages.tokenize, [FOLDER, PART]),
    (stages.side_text, [FOLDER]),
    (stages.pretrain, [
        _arg("run", Path), _arg("tokens", Path, "token table (default: the spec's)", nargs="?"),
        _arg("--side-text", Path), _arg("--tokenizer", Path), DEVICE, THREADS,
        _arg("--micro-batch-size", positive_int),
        _arg("--device-memory-gb", positive_float, "work the micro-batch out from so much memory"),
        _arg("--device-tflops", positive_float, "what the device could do at most, for MFU"),
        _arg("--sharding", default="none", choices=("none", "full")),
        _flag("--compile", "torch.compile each block"),
        _arg("--checkpoint-minutes", non_negative_float, default=15.0),
        _flag("--keep-checkpoints", "keep the last one when the results are whole"),
        _flag("--take-over", "ask a process that trains this run to save and leave"),
        DEADLINE,
    ]),
    (stages.evaluate, [FOLDER, _arg("--batch-size", positive_int, default=16), DEVICE, DEADLINE]),
    (stages.baselines, [FOLDER]),
    (stages.analyse, [FOLDER, DEVICE, DEADLINE]),
    (stages.measure, [
        FOLDER, DEVICE, THREADS, DEADLINE,
        _arg("--memory-mb", positive_int, "main memory; what needs more is left out, and its row says so"),
    ]),
    (stages.aggregate, [FOLDER]),
    (stages.exhibit, [FOLDER]),
    (stages.draw, [_arg("exhibit"), _arg("options", json_value), _arg("tables", Path), _arg("folder", Path)]),
    (stages.page, [FOLDER]),
    (commands.pin, [_configs()]),
    (commands.plan, [
        _configs(), SETTINGS, AS_JSON, _arg("--gpus", positive_int, "GPUs for the wall time"),
        _arg("--device", help="where no finished run tells the speed (default h100)", default="h100", choices=PEAKS),
        _arg("--mfu", positive_float, "model FLOPs utilisation there (default: published ones, by size)"),
    ]),
    (commands.status, [_configs(), SETTINGS, AS_JSON]),
    (commands.doctor, [
        _configs(), SETTINGS,
        _arg("--without", help="checks to leave out, such as gpu on a login node", nargs="+", default=[],
             choices=("python", "gpu", "compiler", "disk", "locks", "sources")),
    ]),
    (commands.explain, [_configs("files that are merged, as for snakemake; then, at most, one run"), SETTINGS, AS_JSON]),
    (commands.adopt, [
        _arg("old", Path, "folder of a result", metavar="OLD"),
        _arg("new", Path, "the folder that today's code names", metavar="NEW"),
        _arg("--reason", help="why the results are the same; kept in the records", default=""),
        _flag("--dry-run", "list, and rename nothing"),
    ]),
    (commands.prune, [
        _configs("configs, each by itself", "*"), AS_JSON,
        _arg("--configfile", Path, "configs that are merged, as for snakemake (may be repeated)", nargs="+",
             action="append", default=[], metavar="CONFIG"),
        _flag("--delete", "delete what is listed and not in use"),
        _arg("--older-than", help="keep what was written to since (default 1)", default=1.0, **HOURS),
        _arg("--launched-within", help="keep unfinished results that a launch asked for since then, as their jobs may "
                                       "still wait (default 168; 0 when none does)", default=168.0, **HOURS),
    ]),
    (commands.verify, [_configs("only what this config names", "*"), SETTINGS, AS_JSON]),
    (commands.report, [
        _configs(), SETTINGS, _flag("--partial", "tables of what is finished, as with profiles/figures"),
    ]),
    (commands.pin_ids, [_arg("config", Path, metavar="CONFIG"), _flag("--check", "compare, and write nothing")]),
]  # fmt: skip
"""What each subcommand calls, and its arguments; the name is the function's, the help its docstring's first line."""


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="deconattn", description="Which parts of attention does a language model need?")
    subcommands = parser.add_subparsers(required=True, metavar="COMMAND")
    for handler, arguments in COMMANDS:
        help = (handler.__doc__ or "").split("\n")[0]
        sub = subcommands.add_parser(handler.__name__.replace("_", "-"), help=help, description=help)
        for flag, keywords in arguments:
            sub.add_argument(flag, **keywords)
        sub.set_defaults(handler=handler)
    return parser
