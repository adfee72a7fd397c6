"""Checks of the data: the mirror, tokenizers, token tables, fixed texts."""

from __future__ import annotations

from pathlib import Path

from deconattn.experiment.verify_files import Files, entries, section

TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


def mirror(found: Files, folder: Path) -> bool:
    """Parts of a corpus, evaluation sets, a tokenizer, an archive: each has its manifest. False: not finished."""
    if folder.parent.name == "packages":
        archive = found.record(folder / "manifest.json") if any(folder.iterdir()) else None
        if archive:
            found.sum(folder / str(archive.get("file")), archive.get("sha256"), "manifest.json")
        return archive is not None
    if folder.name.startswith("tokenizer-"):
        return tokenizer(found, folder)
    whole = True
    if (folder / "manifest.json").is_file():
        manifest = found.record(folder / "manifest.json")
        parts = entries((manifest or {}).get("parts"))
        if manifest is not None and not parts:
            found.bad(folder / "manifest.json", "names no parts")
        for part in parts:
            path = folder / str(part.get("file"))
            found.sum(path, part.get("sha256"), "manifest.json")
            found.there(path.with_suffix(".json"), "manifest.json")
    elif folder.name.startswith("corpus-"):
        whole = False
    for path in sorted(folder.glob("*.json")):
        if path.name in ("manifest.json", "record.json"):
            continue
        if (one := found.record(path)) is not None:
            found.sum(path.with_suffix(".parquet"), one.get("sha256"), path.name)
    for path in sorted(folder.glob("*.parquet")):
        if not path.with_suffix(".json").is_file() and whole:
            found.bad(path, f"has no {path.stem}.json beside it: what it should hold is not known")
    if whole:
        found.record(folder / "record.json")
    return whole


def tokenizer(found: Files, folder: Path) -> bool:
    """tokenizer.json against its manifest, and both, with how it is loaded, against record.json."""
    if not any((folder / name).is_file() for name in ("manifest.json", "record.json")):
        return False
    manifest = found.record(folder / "manifest.json", "the folder")
    if manifest is not None:
        found.sum(folder / "tokenizer.json", manifest.get("sha256"), "manifest.json")
    record = found.record(folder / "record.json")
    if record and "files" in record:
        found.sums(folder / "record.json", record, ["tokenizer_config.json"])
    else:
        found.record(folder / "tokenizer_config.json")
    return True


def tokens(found: Files, folder: Path) -> bool:
    """Every part and the held-out documents against the manifest, and each part's own against the part's."""
    if not any((folder / name).is_file() for name in ("manifest.json", "record.json")):
        return False
    manifest = found.record(folder / "manifest.json", "the folder")
    record = found.record(folder / "record.json")
    if record:
        found.sums(folder / "record.json", record)
    parts = entries((manifest or {}).get("parts"))
    wanted = section(record, "spec").get("parts")
    if manifest is not None and (not parts or wanted not in (None, len(parts))):
        found.bad(folder / "manifest.json", f"names {len(parts)} parts; the table has {wanted or 'some'}")
    if manifest is not None:
        heldout = section(manifest, "heldout")
        found.sum(folder / str(heldout.get("file", "heldout.parquet")), heldout.get("sha256"), "manifest.json")
    for part in parts:
        path = folder / str(part.get("file"))
        found.sum(path, part.get("sha256"), "manifest.json")
        own_path = path.with_suffix(".json")
        own = found.record(own_path, "manifest.json")
        if own is None:
            continue
        if differing := sorted(key for key, value in part.items() if own.get(key) != value):
            found.bad(
                own_path, f"{differing[0]} is not what manifest.json has: changed or damaged since it was written"
            )
        name = path.name.replace("part-", "heldout-")
        found.sum(folder / name, section(own, "heldout").get("sha256"), own_path.name)
    return True


def side_text(found: Files, folder: Path) -> bool:
    """side.parquet against record.json; one of before that kept sums is read."""
    if not any((folder / name).is_file() for name in ("side.parquet", "record.json")):
        return False
    record = found.record(folder / "record.json")
    if record and "files" in record:
        found.sums(folder / "record.json", record, ["side.parquet"])
    else:
        found.parquet(folder / "side.parquet", "the folder")
    return True
