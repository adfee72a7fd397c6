"""Why something would run again: settings old → new, modules and functions that changed, data, package versions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deconattn.errors import UserError
from deconattn.experiment.code import parts_of
from deconattn.experiment.guard import begun, finished_runs, stem
from deconattn.experiment.identity import RESULTS, Identity
from deconattn.experiment.job import run_of
from deconattn.experiment.records import CODE, read_record, versions
from deconattn.experiment.states import OUTPUTS, State, States, differences
from deconattn.nearest import not_one_of

STAGE_NAME = {"pretrain": "training", "evaluate": "evaluation", "analyse": "analysis"}


def changes_of(ident: Identity, states: States, run: str, other: Path) -> list[str]:
    """Why a run is to be trained although `other` is a finished run of its model, variant, layout and seed."""
    state = states.of_run(run, "pretrain")
    if other.name == run:
        return [state.why or f"{missing_of(other, 'pretrain')} is gone, and is needed again"]
    old, new = read_record(other / "spec.json")[0] or {}, ident.specs[run]
    found = differences(
        {key: old.get(key) or {} for key in ("model", "training")}, {key: new[key] for key in ("model", "training")}
    )
    found = [change.removeprefix("model.") if change.startswith("model.name") else change for change in found]
    found += _token_changes(ident, old)
    if old.get("side_text") != new.get("side_text"):
        found.append(f"side text: {old.get('side_text')} → {new.get('side_text')}")
    if old.get("code") != new["code"]:
        found += code_changes(str(old.get("code")), Identity.training_modules(run_of(new)))
    return found or [f"{other.name} was made by an earlier version of how runs are named"]


def _token_changes(ident: Identity, old: dict[str, Any]) -> list[str]:
    """What changed in the data: the settings of the token table, its corpus and tokenizer, or its content alone."""
    before, now = old.get("tokens") or {}, ident.tokens.name
    if before.get("id") == now:
        return []
    record, _ = read_record(RESULTS / "tokens" / str(before.get("id")) / "record.json")
    if record is None:
        return [f"tokens: {before.get('id')} → {now}"]
    then, new = record["spec"], ident.tokens_spec
    found = differences({k: v for k, v in then.items() if k != "code"}, {k: v for k, v in new.items() if k != "code"})
    if then.get("code") != new["code"]:
        found += code_changes(then["code"], ["deconattn.data.tokens"])
    return [f"tokens.{change}" for change in found]


def code_changes(digest: str, modules: list[str]) -> list[str]:
    """Modules and functions that differ between the code of `digest` and the code as it stands."""
    old, _ = read_record(CODE / f"{digest}.json")
    if old is None:
        return [f"code {digest}: of it no functions were written down; it is not the code as it stands"]
    new = parts_of(*modules)
    found = []
    for module in sorted(old.keys() | new.keys()):
        if module not in new or module not in old:
            found.append(f"code: {module} {'no longer reached' if module not in new else 'newly reached'}")
            continue
        for name in sorted(old[module].keys() | new[module].keys()):
            before, after = old[module].get(name), new[module].get(name)
            if before != after:
                what = "added" if before is None else "removed" if after is None else "changed"
                found.append(f"code: {module}: {name} {what}")
    return found or ["code: only names of modules"]


def missing_of(folder: Path, stage: str) -> str:
    """The first output of a stage that is not there."""
    return next((name for name in OUTPUTS[stage] if not (folder / name).is_file()), "nothing")


def version_changes(folder: Path) -> list[str]:
    """Package versions of a run's results that are not those installed here: told, and no reason to run again."""
    found = []
    for stage, name in STAGE_NAME.items():
        record, _ = read_record(folder / OUTPUTS[stage][-1])
        if record and record.get("versions"):
            found += [f"{name}: {change}" for change in differences(record["versions"], versions(name))]
    return found


def explain(ident: Identity, states: States, wanted: str | None = None) -> dict[str, dict[str, list[str]]]:
    """Run → stage → reasons, for all that is not as it should be (for `wanted`, a run, all that is known of it).

    Reasons of "versions" are no reasons to run again.

    Raises:
        UserError: `wanted` is no run of the configuration.
    """
    others = finished_runs()
    found: dict[str, dict[str, list[str]]] = {}
    for run in _selected(ident, wanted):
        reasons: dict[str, list[str]] = {}
        state = states.of_run(run, "pretrain")
        if not state.fresh:
            same = [one for one in others.get(stem(run), []) if one.folder.name == run] or others.get(stem(run), [])
            if same:
                reasons["training"] = [
                    f"finished as {same[0].folder.name}",
                    *changes_of(ident, states, run, same[0].folder),
                ]
            elif begun(ident.folder(run)):
                reasons["training"] = ["begun, and not finished"]
            else:
                reasons["training"] = ["never trained"]
        else:
            for stage in ("evaluate", *(["analyse"] if run in states.analysed else [])):
                reasons |= _stage_reasons(ident, run, stage, states.of_run(run, stage))
            if not (ident.folder(run) / "spec.json").is_file():
                reasons["spec"] = ["spec.json is gone, and is written again"]
            if told := version_changes(ident.folder(run)):
                reasons["versions"] = told
        if reasons or wanted:
            found[run] = reasons
    return found


def _stage_reasons(ident: Identity, run: str, stage: str, state: State) -> dict[str, list[str]]:
    name, folder = STAGE_NAME[stage], ident.folder(run)
    if state.fresh:
        return {}
    if state.status == "missing":
        return {name: [f"{missing_of(folder, stage)} is not there"]}
    record, _ = read_record(folder / OUTPUTS[stage][-1])
    lines = [why for why in state.why.split("; ") if not why.startswith("code: ")]
    if record and "code: " in state.why:
        modules = Identity.evaluation_modules if stage == "evaluate" else Identity.analysis_modules
        lines += code_changes(str(record.get("code")), modules(ident.run_of[run]))
    return {name: lines}


def _selected(ident: Identity, wanted: str | None) -> list[str]:
    if wanted is None:
        return list(ident.specs)
    name = Path(wanted).name
    runs = [run for run in ident.specs if name in (run, stem(run)) or stem(name) == stem(run)]
    if not runs:
        raise UserError(not_one_of(name, "run of this config", list(ident.specs)))
    return runs
