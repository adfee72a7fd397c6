"""What is kept between launches: for one state alone, and a file that is broken or cannot be written costs time, no more."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from deconattn.errors import UserError
from deconattn.experiment import code
from deconattn.experiment.memo import Memo
from deconattn.job import load_and_check


def test_values_are_kept_for_one_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert Memo("sums", "first").of("a", lambda: 1) == 1
    assert Memo("sums", "first").of("a", lambda: 2) == 1
    assert Memo("sums", "second").of("a", lambda: 3) == 3
    assert Memo("others", "first").of("a", lambda: 4) == 4
    assert Memo("sums", "first").of("a", lambda: 5) == 5


@pytest.mark.parametrize("content", ["", "[]", "{", '{"state": "first"}', '{"state": "first", "values": [1]}'])
def test_a_broken_file_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "deconattn").mkdir()
    (tmp_path / "deconattn/sums.json").write_text(content)
    assert Memo("sums", "first").of("a", lambda: 1) == 1
    assert Memo("sums", "first").of("a", lambda: 2) == 1


def test_where_nothing_can_be_written_values_are_worked_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert Memo("sums").of("a", lambda: 1) == 1


def test_what_is_kept_of_the_code_is_that_of_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    roots = code.roots("pretrain", "mlp")
    for _ in range(2):
        code.read_again()  # as in a new process
        found = code.kept(*roots)
        assert found["digest"] == code.code_digest(*roots) and found["modules"] == code.modules(*roots)
        assert found["definitions"] == code.definitions(*roots)
    assert (tmp_path / "deconattn/code.json").is_file()
    code.read_again()


def test_what_is_edited_while_a_job_imports_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = shutil.copytree(code.PACKAGE, tmp_path / code.NAME, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(code, "PACKAGE", package)
    code.read_again()
    spec = {"stage": "side_text"}
    spec["code"] = code.code_of(spec)
    code.read_again()
    load_and_check(spec, tmp_path)

    def import_and_edit(module: str) -> None:
        (package / "data/tokens.py").write_text((package / "data/tokens.py").read_text() + "\nprint()\n")

    monkeypatch.setattr("deconattn.job.importlib.import_module", import_and_edit)
    code.read_again()
    with pytest.raises(UserError, match="it was edited since"):
        load_and_check(spec, tmp_path)
    monkeypatch.undo()
    code.read_again()
