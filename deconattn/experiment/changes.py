"""In what a finished result differs from what is to be made, and trainings that such a difference would repeat.

A launch stops before it repeats finished trainings because of a change of code. The names of a config's runs are committed
beside it (`<config>.ids`), so that a change that would train its grid again shows as a diff.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from deconattn import bf16
from deconattn.errors import UserError
from deconattn.experiment import grid
from deconattn.experiment.artefact import Artefact
from deconattn.experiment.code import reach, roots_of
from deconattn.experiment.identity import Identity
from deconattn.experiment.load import load_settings
from deconattn.experiment.prices import prices
from deconattn.experiment.record import hashed, is_done, made_from, read_record
from deconattn.experiment.results import Finished, begun, finished_runs, stem
from deconattn.files import atomic_write

CODE = "code: "
"""Beginning of the lines about code."""
NO_SETTINGS = ("code", "made_from", "tokens", "runs", "baselines")
LISTED = 5  # changed definitions that are named


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """`key: old → new` for each value that differs, nested keys dotted."""
    found = []
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            found += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            shown = ["none" if value is None else str(value) for value in (before, after)]
            found.append(f"{prefix}{key}: {' → '.join(shown)}")
    return found


def changes(record: dict[str, Any], spec: dict[str, Any]) -> list[str]:
    """Settings and definitions in which a record differs from a spec; not what the two are made from."""
    old, new = ({key: value for key, value in hashed(each).items() if key not in NO_SETTINGS}
                for each in (record["spec"], spec))  # fmt: skip
    found = differences(old, new)
    if record["spec"].get("code") != spec.get("code"):
        before, after = record.get("definitions") or {}, reach(*roots_of(spec))["definitions"]
        for name in sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name)):
            kind = "added" if name not in before else "removed" if name not in after else "changed"
            found.append(f"{CODE}{name} {kind}")
    return found


def _all_changes(record: dict[str, Any], spec: dict[str, Any], ident: Identity) -> list[str]:
    """The same, with those of everything that the two are made from."""
    found = changes(record, spec)
    old, new = made_from(record["spec"]), made_from(spec)
    for before, after in zip(old, new, strict=False):
        if before != after:
            made, wanted = read_record(before), ident.artefacts.get(after)
            if made and wanted:
                found += _all_changes(made, wanted.spec, ident)
            else:
                found.append(f"made from {after}, not {before}")
    return found if len(old) == len(new) else [*found, f"made from {len(new)} results, not {len(old)}"]


def retrained(ident: Identity) -> dict[Artefact, tuple[Finished, list[str]]]:
    """Training to be done → the latest finished run that differs from it in code alone, and in which definitions.

    A run that has saved a checkpoint does not count: somebody has already decided to train it.
    """
    wanted = [one for one in ident.trainings.values() if not is_done(one.folder) and not begun(one.folder)]
    named_alike: dict[str, list[Finished]] = defaultdict(list)
    for run in finished_runs() if wanted else []:
        named_alike[stem(run.folder.name)].append(run)
    found: dict[Artefact, tuple[Finished, list[str]]] = {}
    for one in wanted:
        for run in named_alike[stem(one.folder.name)]:
            lines = _all_changes(run.record, one.spec, ident)
            if all(line.startswith(CODE) for line in lines):
                found[one] = run, [line.removeprefix(CODE) for line in lines]
                break
    return found


def stop_if_retrained(ident: Identity, configs: str) -> None:
    """Stop a launch that would repeat more than `redo_gpu_hours` of finished training because of the code alone.

    Raises:
        UserError: what it would cost, the definitions that changed, the runs, and how to proceed.
    """
    found = sorted(retrained(ident).items(), key=lambda pair: -pair[1][0].gpu_hours)
    hours = sum(run.gpu_hours for _, (run, _) in found)
    if hours <= ident.settings.redo_gpu_hours:
        return
    changed = list(dict.fromkeys(line for _, (_, lines) in found for line in lines))
    lines = [
        f"stopped: {len(found)} finished runs ({hours:.3g} GPU-hours) would be trained again because the code has changed;",
        f"redo_gpu_hours allows {ident.settings.redo_gpu_hours:g}. What changed:",
        *[f"  {line}" for line in changed[:LISTED]],
        *([f"  and {len(changed) - LISTED} more"] if len(changed) > LISTED else []),
        "To train them again, add:",
        f"  --config redo_gpu_hours={math.ceil(hours)}",
        "If the code gives the same results, keep the runs under their new names:",
        *[f"  deconattn adopt {run.folder} {one.folder}" for one, (run, _) in found],
        "Why each result would be made again:",
        f"  deconattn explain {configs}",
    ]
    raise UserError("\n".join(lines))


def slow_in_bf16(ident: Identity, wanted: Iterable[Artefact]) -> bool:
    """Whether one of them is a training in bf16 on a CPU that is slow at it; a training that needs GPUs is not."""
    for one in wanted:
        if one.stage == "pretrain" and one.spec["training"]["precision"] == "bf16":
            resources = grid.resources_of(ident.settings, one.model or "")
            if resources.device != "cuda" and not resources.gpus and bf16.is_slow_here(resources.device):
                return True
    return False


def write_ids(config: Path) -> Path:
    """Write the names of a config's runs, with their hashes, into `<config>.ids`; returns its path."""
    path, ident = config.with_suffix(".ids"), Identity(load_settings([config]))
    with atomic_write(path) as temporary:
        names = sorted(one.folder.name for one in ident.trainings.values())
        temporary.write_text("\n".join(names) + "\n", encoding="utf-8")
    return path


def compare_ids(config: Path) -> str | None:
    """What differs between the runs of a config and `<config>.ids`: how many, what they cost, and what to type."""
    path, ident = config.with_suffix(".ids"), Identity(load_settings([config]))
    old = set(path.read_text(encoding="utf-8").split()) if path.is_file() else set()
    new = [one for one in ident.trainings.values() if one.folder.name not in old]
    gone = old - {one.folder.name for one in ident.trainings.values()}
    if not new and not gone:
        return None
    hours = sum(price.gpu_hours for price in prices(ident, new))
    renamed = sum(stem(one.folder.name) in set(map(stem, gone)) for one in new)
    return (
        f"{path}: {len(new)} of {len(ident.trainings)} runs have other names than there ({renamed} of them only another hash), "
        f"and {len(gone)} names are gone: a launch would train {hours:,.0f} GPU-hours (h100 at 40% MFU) that may be finished "
        f"under the old names. If that is meant: deconattn pin-ids {config}"
    )
