"""Checks of a report: gathered tables, baselines, tables and figures, the page of their origins."""

from __future__ import annotations

from pathlib import Path

from deconattn.experiment.states import FIGURE_KINDS, GATHERED, TABLE_KINDS, exhibit_record
from deconattn.experiment.verify_files import Files, section
from deconattn.files import sha256_file

COSTS = ("costs.parquet", "cost_differences.parquet")


def report(found: Files, folder: Path) -> bool:
    """All that a report must have, going by what is there of each stage. False: its page of origins is to be written."""
    tables = folder / "tables"
    for name, files in GATHERED.items():
        _gathered(found, tables, files, f"{name}.json")
    _gathered(found, tables, ("baselines.parquet", "baselines.json"), "baselines.json")
    if any((tables / name).is_file() for name in COSTS):
        for name in COSTS:
            found.parquet(tables / name, "what lies beside it")
    page, origins = folder / "provenance.html", folder / "provenance.json"
    written = page.is_file() or origins.is_file()
    known = found.record(origins, page.name) if written else None
    shown = section(known, "exhibits")
    for name in sorted(set(shown) | _drawn(folder)):
        _exhibit(found, folder, name, shown.get(name))
    if known and "files" in known:
        found.sums(origins, known, [page.name])
    elif written and found.there(page, origins.name) and not page.read_bytes().endswith(b"</html>\n"):
        found.bad(page, "cut short")
    return written or not _drawn(folder)


def _gathered(found: Files, tables: Path, files: tuple[str, ...], record_name: str) -> None:
    if not any((tables / name).is_file() for name in files):
        return
    record = found.record(tables / record_name)
    parquets = [name for name in files if name != record_name]
    if record and "files" in record:
        found.sums(tables / record_name, record, parquets)
        return
    for name in parquets:
        found.parquet(tables / name, "what lies beside it")


def _drawn(folder: Path) -> set[str]:
    """Every table and figure of which anything is there."""
    return {
        path.stem
        for path in [*folder.glob("tables/table*.*"), *folder.glob("figures/figure*.*")]
        if path.suffix[1:] in (*TABLE_KINDS, *FIGURE_KINDS)
    }


def _exhibit(found: Files, folder: Path, name: str, shown: object) -> None:
    path = exhibit_record(folder, name)
    record = found.record(path)
    kinds = TABLE_KINDS if name.startswith("table") else FIGURE_KINDS
    files = [f"{name}.{kind}" for kind in kinds if kind != "json"]
    if record is None:
        for file in files:
            found.there(path.with_name(file), "the report")
        return
    found.sums(path, record, files)
    for table, sha256 in section(record, "tables").items():
        source = folder / "tables" / table
        if found.there(source, path.name) and sha256_file(source) != sha256:
            found.bad(path, f"drawn from another {table} than is there; start snakemake again")
    if shown is not None and shown != record:
        found.bad(
            path, "not what provenance.json shows of it: one of them was changed or damaged; start snakemake again"
        )
