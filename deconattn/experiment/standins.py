"""Which runs a report shows: those of the configuration, and under `partial` what is there in their place."""

from __future__ import annotations

from typing import Any

from deconattn.experiment.guard import finished_runs, stem
from deconattn.experiment.identity import Identity
from deconattn.experiment.records import read_record
from deconattn.experiment.states import States, differences


def shown(ident: Identity, states: States, runs: list[str], partial: bool) -> dict[str, str]:
    """Run → what is to be said of it on every table and figure ("" for one that is as the configuration says).

    Without `partial` these are the configuration's runs. With it, a run that is not finished is stood in for by the
    newest finished one of the same model, variant, layout and seed, and an evaluation or analysis that is not up to date
    is shown as it is; each with a note.
    """
    if not partial:
        return dict.fromkeys(runs, "")
    others = finished_runs()
    stage = "analyse" if runs == ident.analysed else "evaluate"
    found = {}
    for run in runs:
        state = states.of_run(run, "pretrain")
        if state.fresh:
            below = states.of_run(run, stage)
            said = "evaluated" if stage == "evaluate" else "analysed"
            found[run] = f"stale, {said} with other settings or code ({below.why})" if below.status == "stale" else ""
        elif others.get(stem(run)):
            other = others[stem(run)][0].folder
            why = state.why or spec_differences(read_record(other / "spec.json")[0] or {}, ident.specs[run])
            said = f"{other.name} stands in for {run} ({why})" if other.name != run else why
            found[other.name] = f"stale, {said}"
        else:
            found[run] = ""
    return found


def spec_differences(old: dict[str, Any], new: dict[str, Any]) -> str:
    """The settings in which two runs' specs differ, in one line; code and tokens by name only."""
    before, after = ({key: spec.get(key) for key in ("model", "training", "seed")} for spec in (old, new))
    changes = differences(before, after)
    if old.get("tokens", {}).get("id") != new["tokens"]["id"]:
        changes.append("other tokens")
    if old.get("code") != new["code"]:
        changes.append("other code")
    return "; ".join(changes) or "made under another name"
