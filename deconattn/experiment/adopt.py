"""Declare the code as it stands to give the results of the code that finished runs were made with."""

from __future__ import annotations

import datetime
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from deconattn.errors import UserError
from deconattn.experiment.adoptions import Adoptions
from deconattn.experiment.code import code_digest
from deconattn.experiment.guard import amount
from deconattn.experiment.identity import Identity
from deconattn.experiment.records import read_record
from deconattn.experiment.settings import load_settings
from deconattn.experiment.states import OUTPUTS, States
from deconattn.nearest import not_one_of

STAGES = ("data", "training", "evaluation", "analysis")


@dataclass(frozen=True)
class Change:
    """Code that differs, and nothing else: `old` made `example`, which `new` would make under another name.

    `age` orders several such `old`: whether the example is made, and when.
    """

    stage: str
    variant: str
    old: str
    new: str
    example: str = ""
    age: tuple[bool, float] = (False, 0.0)


def changes(
    configs: list[Path],
    adoptions: Adoptions,
    stages: tuple[str, ...] = STAGES,
    variants: list[str] | None = None,
    origins: Collection[str] = (),
) -> tuple[list[Change], list[Change]]:
    """What is to be adopted, those of the data first, and what could be in its place: results of yet other code.

    For each digest that is new one alone is adopted: two would be declared to be the same, though nobody said so, and one
    of them may be a mistake that was taken back. It is the one of the newest results, or one of `origins` (digests).

    Raises:
        UserError: one of `origins` made nothing that could be adopted.
    """
    settings = load_settings(configs)
    found: dict[str, Change] = {}
    others: dict[tuple[str, str], Change] = {}
    while True:
        ident = Identity(settings, Adoptions((*adoptions.entries, *map(_entry, found.values()))))
        more: dict[str, Change] = {}
        for change in sorted(_differing(ident), key=lambda one: one.age, reverse=True):
            if change.stage not in stages or (variants and change.stage != "data" and change.variant not in variants):
                continue
            chosen = found.get(change.new) or more.get(change.new)
            if chosen is None and (not origins or change.old in origins):
                more[change.new] = change
            elif chosen is None or chosen.old != change.old:
                others.setdefault((change.old, change.new), change)
        # Names of runs follow from the names of their data: each round may bring others to light.
        if not more:
            break
        found |= more
    if strange := set(origins) - {change.old for change in found.values()}:
        known = {change.old for change in (*found.values(), *others.values())}
        raise UserError(f"--from: {not_one_of(min(strange), 'digest of results that could be adopted', sorted(known))}")
    return list(found.values()), list(others.values())


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
            if old and old not in ident.adoptions.same(place.digest):
                age = place.age_of(sibling)
                found.append(Change(place.stage, place.variant, old, place.digest, sibling.name, age))
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
                age = True, amount(record.get("ended"))
                found.append(Change(name, ident.run_of[run].variant, made, now, run, age))
    return found


def adopt(
    configs: list[Path],
    reason: str,
    stages: tuple[str, ...] = STAGES,
    variants: list[str] | None = None,
    origins: Collection[str] = (),
) -> tuple[list[Change], list[Change]]:
    """Write what is adopted into `config/adoptions.yaml`; returns it, and what could have been in its place.

    Raises:
        UserError: no reason is given, or there is nothing whose code alone has changed.
    """
    if not reason.strip():
        raise UserError("--reason: empty; say why the results stay the same, a reviewer will read it")
    adoptions = Adoptions.load()
    found, others = changes(configs, adoptions, stages, variants, origins)
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
    return found, others
