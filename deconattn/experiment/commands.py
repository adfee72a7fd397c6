"""The answers of `deconattn plan`, `explain`, `adopt`, `prune` and `verify`, printed."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path
from typing import Any

from deconattn.errors import UserError
from deconattn.experiment import show
from deconattn.experiment.adoptions import FILE, Adoptions
from deconattn.experiment.identity import Identity
from deconattn.experiment.in_use import age
from deconattn.experiment.settings import load_settings
from deconattn.experiment.states import States
from deconattn.nearest import not_one_of


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=1, ensure_ascii=False, default=str))


def plan(options: Namespace) -> None:
    """What would run and what it costs."""
    from deconattn.experiment.plan import make_plan

    if options.gpus is not None and options.gpus < 1:
        raise UserError(f"--gpus {options.gpus} is not allowed; must be 1 or more")
    found = make_plan(options.configs, gpus=options.gpus, device=options.device, mfu=options.mfu)
    _print_json(found.as_json()) if options.json else print(show.plan_text(found), end="")


def explain(options: Namespace) -> None:
    """Why runs would run again."""
    from deconattn.experiment.explain import explain as reasons

    configs, run = _configs_and_run(options)
    ident = Identity(load_settings(configs))
    states = States(ident)
    found = reasons(ident, states, run)
    total = len(found) if run else len(ident.specs)
    _print_json(found) if options.json else print(show.explain_text(found, total), end="")


def _configs_and_run(options: Namespace) -> tuple[list[Path], str | None]:
    """`explain CONFIG [RUN]`: what is no YAML file is a run."""
    configs = [path for path in options.configs if path.suffix in (".yaml", ".yml")]
    runs = [str(path) for path in options.configs if path not in configs]
    runs += [options.run] if options.run else []
    if len(runs) > 1 or not configs:
        raise UserError("explain CONFIG [RUN]: one or more .yaml files, and at most one run")
    return configs, runs[0] if runs else None


def adopt(options: Namespace) -> None:
    """Declare code to be equivalent."""
    from deconattn.experiment import adopt as adoption

    stages = tuple(options.stage or adoption.STAGES)
    variants = {variant for block in load_settings(options.configs).grid for variant in block.variants}
    for variant in options.variant or ():
        if variant not in variants:
            raise UserError(f"--variant {not_one_of(variant, 'variant of this grid', sorted(variants))}")
    if options.dry_run:
        found, others = adoption.changes(
            options.configs, Adoptions.load(), stages, options.variant, options.origins or ()
        )
    else:
        found, others = adoption.adopt(options.configs, options.reason, stages, options.variant, options.origins or ())
    for change in found:
        said = "would adopt" if options.dry_run else "adopted"
        print(f"{said} {change.stage} {change.variant}: {change.old} → {change.new} (made {change.example})")
    for change in others:
        print(
            f"left out {change.stage} {change.variant}: {change.old} (made {change.example}) is neither the code as it "
            f"stands nor that of the newest results; to adopt it instead: --from {change.old}",
            file=sys.stderr,
        )
    if not options.dry_run:
        print(f"written to {FILE}; commit it, so that it can be reviewed")


def prune(options: Namespace) -> None:
    """Orphans, and their deletion; exit code 1 when one could not be deleted."""
    from deconattn.experiment import prune as pruning

    merged = options.configfile or []
    given = [*options.configs, *(path for each in merged for path in each)]
    if all(path.name == FILE.name for path in given):
        raise UserError(f"no config is given ({FILE} is none)")
    found, notes = pruning.orphans(options.configs, pruning.other_configs(given), merged)
    kept = pruning.reasons(found, options.older_than, options.launched_within)
    for note in notes:
        print(note, file=sys.stderr)
    if options.json:
        _print_json([{**asdict(orphan), "kept": kept.get(orphan.path)} for orphan in found])
    elif found:
        rows = [
            (
                show.size(orphan.bytes),
                age(orphan.hours),
                str(orphan.path) + ("" if orphan.finished else " (not finished)"),
            )
            for orphan in found
        ]
        print("\n".join(show.table([("size", "last write", "folder"), *rows], right=(0,))))
    total = f"{len(found)} orphaned folders, {show.size(sum(orphan.bytes for orphan in found))}"
    if not options.delete:
        for path, why in kept.items():
            print(f"would be kept: {path}: {why}", file=sys.stderr)
        print(f"{total}; nothing is deleted without --delete" if found else "no orphans", file=sys.stderr)
        return
    deleted, failed = pruning.delete(found, kept)
    print(f"deleted {len(deleted)} folders, {show.size(sum(orphan.bytes for orphan in deleted))}", file=sys.stderr)
    for path, why in {**kept, **failed}.items():
        print(f"kept {path}: {why}", file=sys.stderr)
    if failed:
        sys.exit(1)


def verify(options: Namespace) -> None:
    """All results against their records; exit code 1 when something is wrong."""
    from deconattn.experiment.verify import Verifier

    wanted = set(Identity(load_settings(options.configs)).specs) if options.configs else None
    verifier = Verifier()
    verifier.all(wanted)
    if options.json:
        _print_json(
            {"problems": verifier.problems, "checked": verifier.checked, "files": verifier.files,
             "bytes": verifier.bytes, "unfinished": verifier.unfinished}
        )  # fmt: skip
    else:
        for problem in verifier.problems:
            print(problem)
        checked = ", ".join(f"{count} {kind}" for kind, count in verifier.checked.items())
        print(
            f"{checked}: {verifier.files:,} files ({show.size(verifier.bytes)}) read, {len(verifier.problems)} problems"
        )
        if verifier.unfinished:
            print(f"not finished, not checked: {len(verifier.unfinished)} folders ({verifier.unfinished[0]} …)")
    if verifier.problems:
        sys.exit(1)
