"""Whether every result is what its record says: specs, manifests and SHA-256 sums, of all that lies in `results`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from deconattn.experiment.identity import MIRROR, RESULTS, spec_hash
from deconattn.experiment.records import read_record
from deconattn.experiment.states import OUTPUTS, WEIGHTS
from deconattn.files import sha256_file

Say = Callable[[str], None]


class Verifier:
    """Checks, and counts what it read. `problems` are lines of path and what is wrong with it."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.files = 0
        self.bytes = 0
        self.checked: dict[str, int] = {}
        self.unfinished: list[str] = []

    def all(self, wanted: set[str] | None = None) -> None:
        """Check the mirror, tokenizers, token tables, runs (those of `wanted`, or all) and reports."""
        for kind, check, folders in (
            ("mirror", self.mirror, sorted(MIRROR.glob("*-*"))),
            ("tokenizers", self.tokenizer, sorted((RESULTS / "tokenizers").glob("*"))),
            ("token tables", self.tokens, sorted((RESULTS / "tokens").glob("*"))),
            ("runs", self.run, sorted((RESULTS / "runs").glob("*"))),
            ("reports", self.report, sorted((RESULTS / "reports").glob("*"))),
        ):
            chosen = [
                path for path in folders if path.is_dir() and (kind != "runs" or wanted is None or path.name in wanted)
            ]
            self.checked[kind] = len(chosen)
            for path in chosen:
                check(path)

    def _bad(self, path: Path, what: str) -> None:
        self.problems.append(f"{path}: {what}")

    def _sum(self, path: Path, sha256: Any, by: str) -> None:
        """A file against the sum that `by` states of it."""
        if not path.is_file():
            self._bad(path, f"missing, though {by} names it")
            return
        self.files += 1
        self.bytes += path.stat().st_size
        if sha256_file(path) != sha256:
            self._bad(path, f"its SHA-256 is not the one in {by}: changed or damaged since it was written")

    def _record(self, path: Path) -> dict[str, Any] | None:
        found, _ = read_record(path)
        if found is None:
            self._bad(path, "not readable as a record (JSON)")
        return found

    def _files(self, record_path: Path, record: dict[str, Any]) -> None:
        if "files" not in record:
            self._bad(record_path, "states no sums: written by an earlier version; its files cannot be checked")
        for name, sha256 in (record.get("files") or {}).items():
            self._sum(record_path.parent / name, sha256, record_path.name)

    # ---- data ---------------------------------------------------------------------------------------------------------------
    def mirror(self, folder: Path) -> None:
        """Parts of a corpus, evaluation sets, a tokenizer: each has its manifest beside it."""
        if folder.name.startswith("tokenizer-"):
            self.tokenizer(folder)
            return
        for path in sorted(folder.glob("*.json")):
            if path.name in ("manifest.json", "record.json"):
                continue
            if (manifest := self._record(path)) and "sha256" in manifest:
                self._sum(path.with_suffix(".parquet"), manifest["sha256"], path.name)

    def tokenizer(self, folder: Path) -> None:
        """tokenizer.json against its manifest."""
        manifest = self._record(folder / "manifest.json")
        sha256 = (manifest or {}).get("sha256")
        if isinstance(sha256, str):
            self._sum(folder / "tokenizer.json", sha256, "manifest.json")

    def tokens(self, folder: Path) -> None:
        """Every part and the held-out documents against the manifest."""
        if not (folder / "manifest.json").is_file():
            self.unfinished.append(str(folder))
            return
        manifest = self._record(folder / "manifest.json")
        for part in [*(manifest or {}).get("parts", ()), *([manifest["heldout"]] if manifest else ())]:
            self._sum(folder / part["file"], part["sha256"], "manifest.json")

    # ---- runs ---------------------------------------------------------------------------------------------------------------
    def run(self, folder: Path) -> None:
        """A run's spec against its name, its results against its spec, the tokens' manifest and the sums in its records."""
        if not (folder / "done.json").is_file():
            self.unfinished.append(str(folder))
            return
        spec, done = self._record(folder / "spec.json"), self._record(folder / "done.json")
        if spec is None or done is None:
            return
        for problem in self._spec_problems(folder, spec):
            self._bad(folder / "spec.json", problem)
        self._files(folder / "done.json", done)
        sha256 = spec.get("tokens", {}).get("manifest_sha256")
        if done.get("hash") != spec.get("hash") or done.get("key") != f"{spec.get('hash')}-{str(sha256)[:16]}":
            self._bad(folder / "done.json", "made from another spec or token table than spec.json names")
        manifest = RESULTS / "tokens" / str(spec.get("tokens", {}).get("id")) / "manifest.json"
        if manifest.is_file() and sha256_file(manifest) != sha256:
            self._bad(folder / "spec.json", f"{manifest} is not the token table that it was trained on")
        for stage in ("evaluate", "analyse"):
            self._below(folder, stage, done)

    def _spec_problems(self, folder: Path, spec: dict[str, Any]) -> Iterator[str]:
        try:
            digest, model = spec_hash(spec), spec["model"]
            name = f"{model['name']}-{model['variant']}-{model['layout']}-s{spec['seed']}-{digest}"
        except (KeyError, TypeError) as error:
            yield f"{error} is missing"
            return
        if digest != spec.get("hash"):
            yield f"its settings have hash {digest}, it says {spec.get('hash')}: edited since"
        elif name != folder.name:
            yield f"it is the spec of {name}"

    def _below(self, folder: Path, stage: str, done: dict[str, Any]) -> None:
        path = folder / OUTPUTS[stage][-1]
        if not path.is_file():
            if (folder / OUTPUTS[stage][0]).is_file():
                self._bad(
                    folder / OUTPUTS[stage][0], f"has no {path.name} beside it: what it was made from is not known"
                )
            return
        record = self._record(path)
        if record is None:
            return
        self._files(path, record)
        if record.get("run") != folder.name:
            self._bad(path, f"is of run {record.get('run')}")
        if record.get("weights") != (done.get("files") or {}).get(WEIGHTS):
            self._bad(path, "was made from other weights than done.json names")

    # ---- report -------------------------------------------------------------------------------------------------------------
    def report(self, folder: Path) -> None:
        """Every table and figure against the JSON beside it, and that against the gathered tables."""
        for path in sorted([*folder.glob("tables/table*.json"), *folder.glob("figures/figure*.json")]):
            record = self._record(path)
            if record is None:
                continue
            self._files(path, record)
            for name, sha256 in (record.get("tables") or {}).items():
                source = folder / "tables" / name
                if source.is_file() and sha256_file(source) != sha256:
                    self._bad(path, f"drawn from another {name} than is there; start snakemake again")
