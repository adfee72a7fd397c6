"""The arguments of `deconattn plan`, `explain`, `adopt`, `prune` and `verify`; `commands` answers them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from deconattn.arguments import hours


def add(command: Callable[..., None]) -> None:
    """Tell the command line of them: `command(name, handler, *arguments)`, a handler's docstring being its help."""
    configs = (
        "configs",
        {"type": Path, "nargs": "+", "metavar": "CONFIG", "help": "files that are merged, as for snakemake"},
    )
    as_json = ("--json", {"action": "store_true", "help": "for programs"})

    def ask(name: str, help: str) -> Callable[[argparse.Namespace], None]:
        def handler(options: argparse.Namespace) -> None:
            from deconattn.experiment import commands

            getattr(commands, name)(options)

        handler.__doc__ = help
        return handler

    command("plan", ask("plan", "Say what would run and what it costs."), configs, as_json,
            ("--gpus", {"type": int, "help": "GPUs for the wall time"}),
            ("--device", {"default": "h100", "help": "GPU where no finished run tells the speed (default h100)"}),
            ("--mfu", {"type": float, "default": 0.4, "help": "model FLOPs utilisation there (default 0.4)"}))  # fmt: skip
    command("explain", ask("explain", "Say why each run would run again."), configs, as_json,
            ("--run", {"help": "one run, by its folder, name or name without hash"}))  # fmt: skip
    command("adopt", ask("adopt", "Declare the code as it stands to give the results of the finished runs."), configs,
            ("--reason", {"required": True, "help": "why the results stay the same"}),
            ("--stage", {"action": "append", "choices": ("data", "training", "evaluation", "analysis"),
                         "help": "only this stage (may be repeated)"}),
            ("--variant", {"action": "append", "help": "only runs of this variant (may be repeated)"}),
            ("--from", {"action": "append", "dest": "origins", "metavar": "DIGEST",
                        "help": "only code with this digest, where results of several are there (default: the newest's)"}),
            ("--dry-run", {"action": "store_true", "help": "list, and write nothing"}))  # fmt: skip
    command("prune", ask("prune", "List results that no config names; delete them only with --delete."),
            ("configs", {"type": Path, "nargs": "*", "metavar": "CONFIG", "help": "configs, each by itself"}), as_json,
            ("--configfile", {"type": Path, "nargs": "+", "action": "append", "metavar": "CONFIG",
                              "help": "configs that are merged, as for snakemake (may be repeated)"}),
            ("--delete", {"action": "store_true", "help": "delete what is listed and not in use"}),
            ("--older-than", {"type": hours, "default": 1.0, "metavar": "HOURS",
                              "help": "keep what was written to since (default 1)"}),
            ("--launched-within", {"type": hours, "default": 168.0, "metavar": "HOURS",
                                   "help": "keep what launches since then name, as their jobs may still wait "
                                           "(default 168; 0 when none does)"}))  # fmt: skip
    command("verify", ask("verify", "Check every result against its spec, manifests and checksums."),
            ("configs", {"type": Path, "nargs": "*", "metavar": "CONFIG", "help": "only the runs of this config"}),
            as_json)  # fmt: skip
