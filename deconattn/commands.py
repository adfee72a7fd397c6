"""The subcommands that ask about configs and results, and keep both in order.

Each imports what it needs: a job of the pipeline, which needs none of it, starts in half the time.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deconattn.errors import UserError

if TYPE_CHECKING:
    from deconattn.experiment.identity import Identity
    from deconattn.experiment.load import Settings


def _identity(options: argparse.Namespace, partial: bool = False) -> Identity:
    from deconattn.experiment.identity import Identity
    from deconattn.experiment.load import load_settings

    return Identity(load_settings(options.configs, options.config), partial)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=1, ensure_ascii=False, default=str))


def _note_unpinned(settings: Settings, options: argparse.Namespace) -> None:
    from deconattn.experiment.pins import unpinned

    if note := unpinned(settings, options.configs):
        print(note, file=sys.stderr)


def check(options: argparse.Namespace) -> None:
    """Print every error of a config, or what it would run."""
    from deconattn.experiment.grid import runs
    from deconattn.experiment.load import load_settings

    settings = load_settings(options.configs)
    _note_unpinned(settings, options)
    names = ", ".join(map(str, options.configs))
    print(f"{names}: {len(runs(settings))} runs, {len(settings.exhibits)} exhibits, no errors")


def pin(options: argparse.Namespace) -> None:
    """Write the commits of hub sources into a config."""
    from deconattn.data import hub
    from deconattn.data.definitions import definition
    from deconattn.experiment.load import load_settings
    from deconattn.experiment.pins import remotes, write_commits

    settings = load_settings(options.configs)
    own = settings.evaluation.definitions
    found = remotes(settings, lambda task: str(definition(task, own.get(task))["dataset_path"]))
    commits, failed = {}, []
    for remote in found:
        if remote.pinned:
            continue
        try:
            commits[remote.keys] = hub.commit_of(remote.kind, remote.repository, remote.revision)
        except UserError as error:
            failed.append(str(error))
            if isinstance(error, hub.Unreachable):
                break
    for line in write_commits(options.configs, commits):
        print(line)
    if failed:
        raise UserError("\n".join(dict.fromkeys(failed)))
    print(f"{len(found)} sources of a hub, each with its commit")


def plan(options: argparse.Namespace) -> None:
    """Print what would run and what it costs."""
    from deconattn.experiment.plan import make_plan, print_plan

    if options.mfu and options.mfu > 1:
        raise UserError(f"--mfu {options.mfu:g} is not allowed; must be at most 1")
    ident = _identity(options)
    _note_unpinned(ident.settings, options)
    configs = [str(config) for config in options.configs]
    found = make_plan(ident, configs, gpus=options.gpus, device=options.device, mfu=options.mfu)
    _print_json(found) if options.json else print_plan(found)


def status(options: argparse.Namespace) -> None:
    """Print how far each run is."""
    from deconattn.status import print_statuses, statuses, totals

    ident = _identity(options)
    found = statuses(ident)
    if options.json:
        _print_json({"runs": [asdict(each) for each in found], "totals": totals(found)})
    else:
        print_statuses(ident, found)


def doctor(options: argparse.Namespace) -> None:
    """Print whether this machine can run a config; exit code 1 when something is missing."""
    from deconattn.doctor import examine

    configs = [str(config) for config in options.configs]
    if failed := examine(_identity(options), configs, options.without):
        print(f"{failed} of these must be mended", file=sys.stderr)
        sys.exit(1)


def explain(options: argparse.Namespace) -> None:
    """Print why each result would be made."""
    from deconattn.experiment import explain as explaining

    runs = [str(path) for path in options.configs if path.suffix not in (".yaml", ".yml")]
    options.configs = [path for path in options.configs if str(path) not in runs]
    if len(runs) > 1 or not options.configs:
        raise UserError("explain CONFIG [RUN]: one or more .yaml files, and at most one run")
    ident = _identity(options)
    found = explaining.explain(ident, runs[0] if runs else None)
    if options.json:
        _print_json(found)
        return
    total = None if runs else len(ident.artefacts)
    print(explaining.explain_text(found, total, {} if runs else explaining.other_versions(ident)))


def adopt(options: argparse.Namespace) -> None:
    """Keep a result, and what was made from it, under the name that today's code gives it."""
    from deconattn.experiment import adopt as adopting
    from deconattn.training.lock import owner_of

    moves = adopting.plan_moves(options.old, options.new, owner_of)
    if not options.dry_run:
        adopting.adopt(moves, options.reason)
    for move in moves:
        print(f"{'would rename' if options.dry_run else 'renamed'} {move.old} → {move.new}")


def prune(options: argparse.Namespace) -> None:
    """List results that no config names; delete them only with --delete."""
    from rich.filesize import decimal

    from deconattn.experiment import prune as pruning
    from deconattn.experiment.readable import duration, plural
    from deconattn.training.lock import owner_of

    merged = {config.resolve() for each in options.configfile for config in each}
    sets = [*options.configfile, *([config] for config in options.configs if config.resolve() not in merged)]
    if not sets:
        raise UserError("no config is given")
    found, notes = pruning.orphans(sets)
    pruning.keep(found, options.older_than, options.launched_within, owner_of)
    largest_first = sorted(found, key=lambda orphan: -orphan.bytes)
    going = [orphan for orphan in found if not orphan.kept]
    print(*notes, sep="\n", end="\n" * bool(notes), file=sys.stderr)
    if options.json:
        _print_json([asdict(orphan) for orphan in largest_first])
    else:
        for orphan in largest_first:
            unfinished = "" if orphan.finished else " (not finished)"
            print(f"{decimal(orphan.bytes):>12}  {duration(orphan.hours) + ' ago':>16}  {orphan.path}{unfinished}")
    for orphan in going if options.delete else ():
        pruning.delete(orphan, owner_of)
    for orphan in found:
        if orphan.kept:
            print(f"kept {orphan.path}: {orphan.kept}", file=sys.stderr)
    gone = [orphan for orphan in going if not orphan.kept]
    size = f"{plural(len(gone), 'folder')}, {decimal(sum(orphan.bytes for orphan in gone))}"
    said = f"deleted {size}" if options.delete else f"{size} may go; nothing is deleted without --delete"
    print(said if found else "no orphans", file=sys.stderr)
    if len(gone) < len(going):
        sys.exit(1)


def verify(options: argparse.Namespace) -> None:
    """Check every result against its record; exit code 1 when something is wrong."""
    from rich.filesize import decimal

    from deconattn.experiment.verify import verify as check_results
    from deconattn.training.lock import owner_of

    wanted = {Path(folder) for folder in _identity(options).artefacts} if options.configs else None
    found = check_results(wanted, owner_of)
    if options.json:
        _print_json(asdict(found))
    else:
        for problem in found.problems:
            print(problem)
        checked = ", ".join(f"{count} {kind}" for kind, count in found.checked.items()) or "nothing there"
        print(f"{checked}: {found.files:,} files ({decimal(found.bytes)}) read, {len(found.problems)} problems")
        if found.unfinished:
            print(f"not finished, not checked: {len(found.unfinished)} folders ({found.unfinished[0]} …)")
    if found.problems:
        sys.exit(1)


def report(options: argparse.Namespace) -> None:
    """Show in results/reports/<config> what a config names now, while it runs on a page with live curves (live.html)."""
    from deconattn.experiment.record import is_done
    from deconattn.experiment.rules import refresh_report
    from deconattn.live_page import write_live_page

    ident = _identity(options, options.partial)
    shown = refresh_report(ident)
    live = ident.report / "live.html"
    if is_done(ident.page.folder):
        live.unlink(missing_ok=True)
    else:
        print(write_live_page(ident))
    finished = sum(is_done(one.folder) for one in ident.exhibits.values())
    print(f"{ident.report}: {len(shown)} files, {finished} of {len(ident.exhibits)} exhibits")


def pin_ids(options: argparse.Namespace) -> None:
    """Write the names of a config's runs beside it (<config>.ids), so that a change of them shows in a diff."""
    from deconattn.experiment.changes import compare_ids, write_ids

    if options.check:
        if problem := compare_ids(options.config):
            raise UserError(problem)
        print(f"{options.config.with_suffix('.ids')}: the runs are those that are named there")
    else:
        print(f"{write_ids(options.config)}: written")
