"""Sources in a folder of a hub's form: an edited file is another source, a touched one the same, and no job reads it to know."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deconattn.data.tokenizer import train_tokenizer
from deconattn.experiment import sources
from deconattn.experiment.sources import FileSums
from tests.project import CONFIG, ROOT, Project

TALES = ROOT / "tests/data/mirror/corpus/tales.parquet"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project that reads text and tokenizer from folders of a hub's form, mirrored and tokenized."""
    project = Project.copy(tmp_path / "project")
    folder = project.folder / "text"
    (folder / "data").mkdir(parents=True)
    tales = pq.read_table(TALES).select(["text"])
    half = tales.num_rows // 2
    pq.write_table(tales.slice(0, half), folder / "data" / "train-0.parquet")
    pq.write_table(tales.slice(half), folder / "data" / "train-1.parquet")
    (folder / ".git").mkdir()
    train_tokenizer([TALES], 384, project.folder / "words")
    project.edit(CONFIG, "corpus: {kind: folder, path: tests/data/mirror, names: [tales], parts: 2}",
                 "corpus: {kind: hub, dataset: ./text, parts: 2}")  # fmt: skip
    project.edit(CONFIG, "{kind: train, vocab_size: 384}", "{kind: hub, dataset: ./words}")
    done = project.snakemake("--quiet", "rules", *UNTIL)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "deconattn pin" not in done.stderr, "a folder has no commits"
    return project


UNTIL = ("--until", "tokenize")


def data(project: Project) -> dict[str, int]:
    return dict(Counter(rule for rule, _ in project.planned_jobs(*UNTIL)))


@pytest.mark.slow
@pytest.mark.xdist_group("workflow")
def test_an_edited_file_of_a_local_folder_is_noticed(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.folder)
    assert data(project) == {}
    for path in [*Path("text/data").iterdir(), Path("words/tokenizer.json")]:
        os.utime(path, (1, 1))
    Path("text/.git/index").write_text("a note of git")
    assert data(project) == {}

    text = Path("text/data/train-1.parquet")
    pq.write_table(pa.table({"text": ["A story that was not there before."] * 9}), text)
    changed = {"mirror_part": 2, "mirror_source": 1, "tokenize_part": 2, "tokenize": 1}
    assert data(project) == changed
    shutil.copy(text, "text/data/train-2.parquet")
    assert data(project) == changed
    explained = project.deconattn("explain", CONFIG)
    assert explained.returncode == 0, explained.stderr

    train_tokenizer([TALES], 300, Path("words"))
    assert data(project) == {**changed, "mirror_source": 2}
    done = project.snakemake("--quiet", "rules", *UNTIL)
    assert done.returncode == 0, done.stdout + done.stderr
    assert data(project) == {}


def test_a_folder_is_read_once_and_each_change_of_it_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    original = sources.sha256_file
    monkeypatch.setattr(sources, "sha256_file", lambda path: (read.append(Path(path).name), original(path))[1])
    folder, memo = tmp_path / "data", tmp_path / "memo.json"
    for name in ("train/x.parquet", "test/x.parquet", ".cache/note", "README.md"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)

    def sum_() -> str | None:
        read.clear()
        return FileSums(memo).folder(folder)

    first = sum_()
    assert sorted(read) == ["README.md", "x.parquet", "x.parquet"]
    assert sum_() == first and read == [], "read once"
    (folder / ".cache/note").write_text("other")
    assert sum_() == first and read == []
    (folder / "train/x.parquet").rename(folder / "train/y.parquet")
    renamed = sum_()
    assert renamed != first and read == ["y.parquet"]
    (tmp_path / "more").mkdir()
    (tmp_path / "more/z.parquet").write_text("z")
    (folder / "linked").symlink_to(tmp_path / "more")
    (folder / "round").symlink_to(folder)
    linked = sum_()
    assert linked != renamed and read == ["z.parquet"]
    (folder / "test/x.parquet").write_text("TEST/x.parquet")
    assert sum_() not in (first, renamed, linked) and read == ["x.parquet"]
    assert FileSums(memo).folder(tmp_path / "none") is None
