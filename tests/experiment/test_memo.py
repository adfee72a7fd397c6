"""What is kept between launches: for one state alone, and a file that is broken or cannot be written costs time, no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from deconattn.experiment import code
from deconattn.experiment.memo import Memo


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


def test_kept_digests_are_those_of_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    roots = code.roots("pretrain", "mlp")
    try:
        for _ in range(2):
            code._memo.cache_clear()  # as in a new process
            assert code.kept_digest(*roots) == code.code_digest(*roots)
            assert code.kept_modules(*roots) == code.modules(*roots)
        assert (tmp_path / "deconattn/code.json").is_file()
    finally:
        code._memo.cache_clear()
