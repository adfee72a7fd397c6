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
from deconattn.files import sha256_file
from tests.project import CONFIG, ROOT, Project

TALES = ROOT / "tests/data/mirror/corpus/tales.parquet"


UNTIL = ("--until", "tokenize")


@pytest.mark.slow
@pytest.mark.xdist_group("workflow")
def test_an_edited_file_of_a_local_folder_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Text and tokenizer are read from folders of a hub's form, mirrored and tokenized."""
    project = Project.copy(tmp_path / "project")
    monkeypatch.chdir(project.folder)
    Path("text/data").mkdir(parents=True)
    tales = pq.read_table(TALES).select(["text"])
    half = tales.num_rows // 2
    pq.write_table(tales.slice(0, half), "text/data/train-0.parquet")
    pq.write_table(tales.slice(half), "text/data/train-1.parquet")
    train_tokenizer([TALES], 384, Path("words"))
    project.edit(CONFIG, "kind: folder, path: tests/data/mirror, names: [tales],", "kind: hub, dataset: ./text,")
    project.edit(CONFIG, "{kind: train, vocab_size: 384}", "{kind: hub, dataset: ./words}")

    def made() -> None:
        done = project.snakemake("--quiet", "rules", *UNTIL)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "deconattn pin" not in done.stderr, "a folder has no commits"

    def to_make() -> dict[str, int]:
        return Counter(rule for rule, _ in project.planned_jobs(*UNTIL))

    made()
    for path in [*Path("text/data").iterdir(), Path("words/tokenizer.json")]:
        os.utime(path, (1, 1))
    Path("text/.git").mkdir()
    Path("text/.git/index").write_text("a note of git")
    assert to_make() == {}
    text = Path("text/data/train-1.parquet")
    pq.write_table(pa.table({"text": ["A story that was not there before."] * 9}), text)
    changed = {"mirror_part": 2, "mirror_source": 1, "tokenize_part": 2, "tokenize": 1}
    assert to_make() == changed
    shutil.copy(text, "text/data/train-2.parquet")
    assert to_make() == changed
    train_tokenizer([TALES], 300, Path("words"))
    assert to_make() == {**changed, "mirror_source": 2}
    made()
    assert to_make() == {}


def test_a_folder_is_read_once_and_each_change_of_it_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    folder, memo = tmp_path / "data", tmp_path / "memo.json"

    def noted(path: Path) -> str:
        read.append(path.name)
        return sha256_file(path)

    monkeypatch.setattr(sources, "sha256_file", noted)
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
