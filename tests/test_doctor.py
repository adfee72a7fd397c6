"""`deconattn doctor`: a line a check, with what to do, and exit code 1 where one fails."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from deconattn import cli, doctor
from tests.project import ROOT

CONFIG = str(ROOT / "config/test.yaml")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout without results, a small file to time the disk."""
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(doctor, "WRITTEN", 2**24)
    return tmp_path


def test_a_machine_that_can(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", CONFIG]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["ok    python", "ok    disk", "ok    locks"]
    assert "/s" in lines[1] and not list((folder / "results").iterdir()), "nothing is left"


def test_what_is_missing_is_said_with_what_to_do(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    installed = {"python": "3.11.7", "torch": "2.1.0+cu118", "numpy": "2.4.6"}
    monkeypatch.setattr(doctor, "versions", lambda stage: installed)
    asked = ["resources={default: {gpus: 1, device: cuda}}", "corpus={max_bytes: 1e18}"]
    with pytest.raises(SystemExit, match="1"):
        cli.main(["doctor", CONFIG, "--config", *asked])
    said = capsys.readouterr()
    found = {line.split(":")[0].split()[-1]: line for line in said.out.splitlines()}
    assert "not as in requirements.lock: torch 2.1.0+cu118; pip install -r" in found["python"]
    assert "too little" in found["disk"] and "larger disk" in found["disk"]
    assert "No locks available" in found["locks"] and "a mount that has it" in found["locks"]
    if not torch.cuda.is_available():
        assert "FAIL  gpu: " in found["gpu"] and ("without CUDA" in found["gpu"] or "finds none" in found["gpu"])
    assert said.err == f"{3 + (not torch.cuda.is_available())} of these must be mended\n"


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU another compiler is called")
def test_a_compiler_that_does_not_work(tmp_path: Path) -> None:
    arguments = ["doctor", CONFIG, "--without", "disk", "--config", "resources={default: {compile: true}}"]
    command = [sys.executable, "-m", "deconattn", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    works = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert works.returncode == 0 and "ok    compiler: torch.compile works on cpu" in works.stdout, works.stderr
    environment |= {"CXX": "/bin/false", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "other")}
    broken = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert broken.returncode == 1 and "it needs gcc and g++ (or CC and CXX)" in broken.stdout, broken.stdout
    assert "Traceback" not in broken.stderr
