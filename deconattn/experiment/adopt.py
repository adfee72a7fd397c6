"""Declare the code as it stands to give the results of the code that finished runs were made with."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

from deconattn.errors import UserError
from deconattn.experiment.adoptions import Adoptions
from deconattn.experiment.code import code_digest
from deconattn.experiment.identity import Identity
from deconattn.experiment.records import read_record
from deconattn.experiment.settings import load_settings
from deconattn.experiment.states import OUTPUTS, States

STAGES = ("data", "training", "evaluation", "analysis")


@dataclass(frozen=True)
class Change:
    """Code that differs, and nothing else: `old` made results that `new` would make under another name."""

    stage: str
    variant: str
    old: str
    new: str


def changes(
    configs: list[Path], adoptions: Adoptions, stages: tuple[str, ...], variants: list[str] | None
) -> list[Change]:
    """What could be adopted, one for each pair of digests, those of the data first."""
    settings = load_settings(configs)
    found: dict[tuple[str, str], Change] = {}
    while True:
        ident = Identity(settings, Adoptions((*adoptions.entries, *map(_entry, found.values()))))
        more = {
            (change.old, change.new): change
            for change in _differing(ident)
            if change.stage in stages and (variants is None or change.stage == "data" or change.variant in variants)
        }
        # Names of runs follow from the names of their data: each round may bring others to light.
        if not (set(more) - set(found)):
            return list(found.values())
        found |= more


def _entry(change: Change) -> dict[str, str]:
    return {"from": change.old, "to": change.new, "what": "", "reason": "", "date": ""}


def _differing(ident: Identity) -> list[Change]:
    found = []
    for run in ident.specs:
        ident.evaluation_spec(run)
    for place in ident.placements:
        if place.exists:
            continue
        for sibling in place.siblings():
            old = place.code_of(sibling)
            if old and old not in ident.adoptions.same(place.digest) and place.path_of(old) == sibling:
                found.append(Change(place.stage, place.variant, old, place.digest))
    states = States(ident)
    for stage, name in (("evaluate", "evaluation"), ("analyse", "analysis")):
        for run in ident.specs if stage == "evaluate" else ident.analysed:
            state = states.of_run(run, stage)
            if state.status != "stale" or not state.why.startswith("code: ") or "; " in state.why:
                continue
            record, _ = read_record(ident.folder(run) / OUTPUTS[stage][-1])
            modules = Identity.evaluation_modules if stage == "evaluate" else Identity.analysis_modules
            if record:
                made, now = record["spec"]["code"], code_digest(*modules(ident.run_of[run]))
                found.append(Change(name, ident.run_of[run].variant, made, now))
    return found


def adopt(
    configs: list[Path], reason: str, stages: tuple[str, ...] = STAGES, variants: list[str] | None = None
) -> list[dict[str, str]]:
    """Write the entries into `config/adoptions.yaml`; returns them.

    Raises:
        UserError: no reason is given, or there is nothing whose code alone has changed.
    """
    if not reason.strip():
        raise UserError("--reason: empty; say why the results stay the same, a reviewer will read it")
    adoptions = Adoptions.load()
    found = changes(configs, adoptions, stages, variants)
    if not found:
        raise UserError(
            f"{' '.join(map(str, configs))}: nothing to adopt: no finished result differs from the config in its code alone "
            "(deconattn explain tells what differs)"
        )
    today = datetime.date.today().isoformat()
    entries = [
        {**_entry(change), "what": f"{change.stage} {change.variant}".strip(), "reason": reason, "date": today}
        for change in found
    ]
    adoptions.add(entries)
    return entries
