"""Why something would be made: settings old → new, definitions that changed, what it is made from, or that it never was."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deconattn.errors import UserError
from deconattn.experiment.artefact import Artefact
from deconattn.experiment.changes import changes, differences
from deconattn.experiment.identity import Identity
from deconattn.experiment.plan import jobs
from deconattn.experiment.readable import plural
from deconattn.experiment.record import amount, is_done, last_attempt, made_from, read_record, versions
from deconattn.experiment.results import begun, stem
from deconattn.nearest import not_one_of

LISTED = 4  # folders that are listed one by one where they share their reasons
EARLIER = "made before as "
"""Beginning of the reason that no two folders share."""


def explain(ident: Identity, wanted: str | None = None) -> dict[str, list[str]]:
    """Folder → why it is to be made, of all that a launch would make; with `wanted`, of that run and what lies in it.

    Raises:
        UserError: `wanted` is no run of the configuration.
    """
    todo = dict.fromkeys(Path(job.folder) for job in jobs(ident))
    if wanted is not None:
        runs = {one.folder.name: one.folder for one in ident.trainings.values()}
        name = Path(wanted).name
        found = [folder for run, folder in runs.items() if name in (run, stem(run)) or stem(name) == stem(run)]
        if not found:
            raise UserError(not_one_of(name, "run of this config", runs))
        todo = {folder: None for folder in todo if found[0] in (folder, folder.parent)}
    return {str(folder): reasons(ident, ident.artefacts[str(folder)]) for folder in todo}


def reasons(ident: Identity, one: Artefact) -> list[str]:
    """Why one result is to be made."""
    if earlier := _earlier(one):
        folder, record = earlier
        old, finished = made_from(record["spec"]), [need for need in one.needs if is_done(need)]
        found = [f"{EARLIER}{folder}", *changes(record, one.spec)]
        if set(old) - set(finished):
            found += [f"made from {need} now" for need in finished if need not in old]
    elif begun(one.folder):
        found = ["begun, and not finished"]
    else:
        attempt = last_attempt(one.folder)
        found = ["never made" if attempt == "not run yet" else f"never finished: {attempt}"]
    kinds = Counter(ident.artefacts[need].stage for need in one.needs if not is_done(need))
    sources = [f"{kind} × {count}" if count > 1 else kind for kind, count in kinds.items()]
    return found + [f"made from what is to be made: {source}" for source in sources]


def _earlier(one: Artefact) -> tuple[Path, dict[str, Any]] | None:
    """The latest finished result of the same name but for its hash, and but for the hash of its run."""
    above = one.folder.parent
    folders = above.parent.glob(f"{stem(above.name)}-*/*") if one.stage in ("evaluate", "analyse") else above.glob("*")
    alike = [folder for folder in folders if stem(folder.name) == stem(one.folder.name)]
    records = [(folder, record) for folder in alike if (record := read_record(folder))]
    return max(records, key=lambda each: amount(each[1].get("ended")), default=None)


def other_versions(ident: Identity) -> dict[str, list[str]]:
    """Folder → packages that made it in other versions than are installed: no reason to make it again."""
    found = {}
    for folder, one in ident.artefacts.items():
        if one.stage in ("pretrain", "evaluate", "analyse") and (record := read_record(folder)):
            found[folder] = differences(record.get("versions") or {}, versions(one.stage))
    return {folder: packages for folder, packages in found.items() if packages}


def explain_text(found: Mapping[str, list[str]], total: int | None, others: Mapping[str, list[str]]) -> str:
    """Reasons for a person, each once, with the folders that share them. `total`: all results; None for those of one run."""
    there = f"{(total or 0) - len(found)} of {plural(total or 0, 'result')} exist"
    lines = [there if total is not None else f"{plural(len(found), 'result')} to make"]
    heading = "made with other packages than are installed (no reason to run again): "
    for start, reasons_of in (("", found), (heading, others)):
        groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for folder, because in reasons_of.items():
            own = f" ({because[0]})" if because[0].startswith(EARLIER) else ""
            groups[tuple(because[1:] if own else because)].append(f"  {folder}{own}")
        for shared, folders in groups.items():
            more = [f"  and {len(folders) - LISTED} more"] if len(folders) > LISTED else []
            lines += ["", f"{start}{plural(len(folders), 'result')}", *folders[:LISTED], *more]
            lines += [f"    {reason}" for reason in shared]
    return "\n".join(lines)
