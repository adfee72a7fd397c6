"""Whether every result is what its record says: specs, manifests and SHA-256 sums, of all that lies in `results`.

What each stage must have left is gone through, so that a file that is gone is found as well as one that is damaged. What a
stage has not begun to write is no fault; a folder without the file that ends its stage is listed as not finished, and of a
run that is not finished the checkpoints are checked, unless it is being trained.

By SHA-256: the mirror's Parquet and archives; tokenizer.json; parts and held-out documents of a token table, those of each
part among them; weights, their config, the curve and the tokenizer beside them; every file of a checkpoint; Parquet of
evaluation, analysis and baselines; gathered tables; tables and figures in each format, and the tables that they were drawn
from; the page of origins; what a launch wrote down, by its name.

By a sum of their own: done.json, the records of evaluation, analysis, baselines, data, gathered tables and the page of origins.

By what they must agree with: spec.json with its hash and folder, with done.json and the token table; records with their run
and weights; a part's manifest with its table's; the JSON of a table or figure with the page of origins.

Only by whether it can be read: results of before their sums were kept (fixed texts, gathered tables, the page of origins,
tokenizer_config.json, records), the tables of costs, and results/code.

Not covered: logs, locks, the memo of sources' sums, the HTML that `snakemake --report` writes, and what is gone with every
trace of it, such as an evaluation with its record. Whether a result is up to date is for `deconattn plan` to say.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from deconattn.experiment import in_use, verify_data, verify_report
from deconattn.experiment.identity import MIRROR, RESULTS, canonical, spec_hash
from deconattn.experiment.records import read_record
from deconattn.experiment.states import OUTPUTS, WEIGHTS
from deconattn.experiment.verify_files import Files, section
from deconattn.files import sha256_file

CHECKPOINT = ("model.safetensors", "optimizer.safetensors", "state.json", "train.parquet")


class Verifier(Files):
    """Checks all results. `checked` counts the folders of each kind, `unfinished` names those that are not."""

    def __init__(self) -> None:
        super().__init__()
        self.checked: dict[str, int] = {}
        self.unfinished: list[str] = []

    def all(self, wanted: set[str] | None = None) -> None:
        """Check all that there is; of the runs those of `wanted`, or all. Nothing ends it before everything was looked at."""
        kinds: list[tuple[str, Callable[[Files, Path], bool], list[Path]]] = [
            ("mirror", verify_data.mirror, [*MIRROR.glob("*-*"), *MIRROR.glob("packages/*")]),
            ("tokenizers", verify_data.tokenizer, list((RESULTS / "tokenizers").glob("*"))),
            ("token tables", verify_data.tokens, list((RESULTS / "tokens").glob("*"))),
            ("fixed texts", verify_data.side_text, list((RESULTS / "sidetexts").glob("*"))),
            ("runs", run, [path for path in (RESULTS / "runs").glob("*") if wanted is None or path.name in wanted]),
            ("reports", verify_report.report, list((RESULTS / "reports").glob("*"))),
            ("folders of costs", costs, [RESULTS / "costs"]),
            ("folders of notes", notes, [RESULTS / "code", RESULTS / "launches"]),
        ]
        for kind, check, folders in kinds:
            chosen = sorted(path for path in folders if path.is_dir())
            self.checked[kind] = len(chosen)
            for path in chosen:
                try:
                    if not check(self, path):
                        self.unfinished.append(str(path))
                except Exception as error:  # whatever a damaged file leads to, the others are checked all the same
                    self.bad(path, f"cannot be checked further ({type(error).__name__}: {error})")


# ---- runs -------------------------------------------------------------------------------------------------------------------
def run(found: Files, folder: Path) -> bool:
    """A run's spec against its name, its results against its spec, the tokens' manifest and the sums in its records."""
    finished = (folder / "done.json").is_file()
    if not finished and any((folder / name).is_file() for name in ("evaluation.json", "analysis.json")):
        found.bad(folder / "done.json", "missing, though the run was evaluated")
    if finished or not in_use.owner_of(folder):
        for path in sorted((folder / "checkpoints").glob("step-*")):
            _checkpoint(found, path)
    if not finished:
        return False
    done = found.record(folder / "done.json") or {}
    if done:
        has = found.sums(folder / "done.json", done, [name for name in OUTPUTS["pretrain"] if name != "done.json"])
        spec = found.record(folder / "spec.json")
        if spec is not None:
            _spec(found, folder, spec, done)
        _tokenizer(found, folder, has, section(spec, "tokens").get("id"))
    for stage in ("evaluate", "analyse"):
        _below(found, folder, stage, done)
    return True


def _spec(found: Files, folder: Path, spec: dict[str, Any], done: dict[str, Any]) -> None:
    for problem in _spec_problems(folder, spec):
        found.bad(folder / "spec.json", problem)
    tokens = section(spec, "tokens")
    sha256 = tokens.get("manifest_sha256")
    if done.get("hash") != spec.get("hash") or done.get("key") != f"{spec.get('hash')}-{str(sha256)[:16]}":
        found.bad(folder / "done.json", "made from another spec or token table than spec.json names")
    manifest = RESULTS / "tokens" / str(tokens.get("id")) / "manifest.json"
    if manifest.is_file() and sha256_file(manifest) != sha256:
        found.bad(folder / "spec.json", f"{manifest} is not the token table that it was trained on")


def _spec_problems(folder: Path, spec: dict[str, Any]) -> Iterator[str]:
    try:
        digest, model = spec_hash(spec), spec["model"]
        name = f"{model['name']}-{model['variant']}-{model['layout']}-s{spec['seed']}-{digest}"
    except (KeyError, TypeError) as error:
        yield f"not the spec of a run ({type(error).__name__}: {error})"
        return
    if digest != spec.get("hash"):
        yield f"its settings have hash {digest}, it says {spec.get('hash')}: edited since"
    elif name != folder.name or spec.get("run") != name:
        yield f"it is the spec of {name if name != folder.name else spec.get('run')}"


def _tokenizer(found: Files, folder: Path, summed: set[str], tokens: Any) -> None:
    """The tokenizer beside the weights; of before its sum was kept, against the one that made the token table."""
    for name in verify_data.TOKENIZER:
        path = folder / "model" / name
        if f"model/{name}" in summed:
            continue
        table, _ = read_record(RESULTS / "tokens" / str(tokens) / "manifest.json")
        if name == "tokenizer.json" and table and "tokenizer_sha256" in table:
            found.sum(path, table["tokenizer_sha256"], f"the token table {tokens}")
        else:
            found.record(path, "the folder")


def _checkpoint(found: Files, folder: Path) -> None:
    manifest = found.record(folder / "manifest.json", "the checkpoint") or {}
    for name, sha256 in manifest.items():
        found.sum(folder / name, sha256, "manifest.json")
    for name in CHECKPOINT:
        if name not in manifest and found.there(folder / name, "the checkpoint") and manifest:
            found.bad(folder / "manifest.json", f"states no sum of {name}")


def _below(found: Files, folder: Path, stage: str, done: dict[str, Any]) -> None:
    *files, last = OUTPUTS[stage]
    path = folder / last
    if not path.is_file():
        for name in [name for name in files if (folder / name).is_file()]:
            found.bad(folder / name, f"has no {last} beside it: what it was made from is not known")
        return
    record = found.record(path)
    if record is None:
        return
    found.sums(path, record, files)
    if record.get("run") != folder.name:
        found.bad(path, f"is of run {record.get('run')}")
    if record.get("weights") != section(done, "files").get(WEIGHTS):
        found.bad(path, "was made from other weights than done.json names")


# ---- what belongs to no run -------------------------------------------------------------------------------------------------
def costs(found: Files, folder: Path) -> bool:
    """What was measured of each model, in two tables; against the record beside them where there is one."""
    stems = {path.stem.removesuffix("-differences") for path in [*folder.glob("*.parquet"), *folder.glob("*.json")]}
    for stem in sorted(stems):
        names = [f"{stem}.parquet", f"{stem}-differences.parquet"]
        path = folder / f"{stem}.json"
        record = found.record(path) if path.is_file() else None
        summed = found.sums(path, record) if record and "files" in record else set()
        for name in names:
            if name not in summed:
                found.parquet(folder / name, "what lies beside it")
    return True


def notes(found: Files, folder: Path) -> bool:
    """What is known of states of the code, and what launches wrote down for their jobs, by the hash in its name."""
    for path in sorted(folder.glob("*.json")):
        record = found.record(path)
        if folder.name == "launches" and record is not None:
            if hashlib.sha256(canonical(record).encode()).hexdigest()[:16] != path.stem:
                found.bad(path, "not what its name is the hash of: changed or damaged since it was written")
    return True
