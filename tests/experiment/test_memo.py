"""What is kept between launches: for one state alone, and a file that is broken or cannot be written costs time, no more."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deconattn.experiment import code
from deconattn.experiment.code import Code
from deconattn.experiment.memo import Memo


def asked(name: str, state: str, value: int) -> int:
    """What one process after another is told, each of which would find another value."""
    memo: Memo[int] = Memo(name, state)
    found = memo.of("a", lambda: value)
    memo.keep()
    return found


def test_values_are_kept_for_one_state_where_they_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    asks = [("sums", "first"), ("sums", "first"), ("sums", "second"), ("others", "first"), ("sums", "first")]
    assert [asked(*each, number) for number, each in enumerate(asks)] == [0, 0, 2, 3, 4]
    for broken in ("", "[]", "{", '{"state": "first"}', '{"state": "first", "values": [1]}'):
        (tmp_path / "deconattn/sums.json").write_text(broken)
        assert [asked("sums", "first", number) for number in (1, 2)] == [1, 1]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "deconattn/sums.json"))  # no folder, so nothing can be kept
    assert [asked("sums", "first", number) for number in (1, 2)] == [1, 2]


def test_what_is_kept_of_the_code_is_that_of_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    roots, package = code.roots("pretrain", "mlp"), Code(code.PACKAGE)
    for _ in range(2):
        code.read_again()  # as in a new process
        found = code.reach(*roots)
        assert found["digest"] == package.digest(roots) and found["definitions"] == package.definitions(roots)
        code.keep()
    code.read_again()


START = """
from pathlib import Path
from deconattn.experiment import code
from deconattn.job import load_and_check
"""
WHILE_IMPORTING = """
spec = {"stage": "side_text"}
spec["code"] = code.code_of(spec)
code.keep()
load_and_check(spec, Path("folder"))
"""
WHILE_READING = """
code._memo()
with open("deconattn/layers.py", "a") as file:
    file.write("print()")
code.code_of({"stage": "side_text"})
code.keep()
"""


@pytest.mark.parametrize(
    ("program", "said"),
    [(WHILE_IMPORTING, "it was edited since; start snakemake again"), (WHILE_READING, "while the package was read")],
    ids=["importing", "reading"],
)
def test_an_edit_is_noticed_while_a_process_is(program: str, said: str, tmp_path: Path) -> None:
    package = shutil.copytree(code.PACKAGE, tmp_path / "deconattn", ignore=shutil.ignore_patterns("__pycache__"))
    with open(package / "data/tokens.py", "a") as file:  # a module that is edited as soon as it is imported
        file.write('\nwith open(__file__, "a") as itself:\n    itself.write("print()")\n')
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", START + program]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert said in done.stderr, done.stderr
    kept = tmp_path / "cache/deconattn/code.json"
    assert kept.exists() == (program == WHILE_IMPORTING), "nothing is kept of files that changed while they were read"
