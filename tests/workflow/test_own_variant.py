"""The README's variant in one file: written as a user would, held to the suite, trained, evaluated, drawn."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import ROOT
from tests.project import Project

pytestmark = pytest.mark.slow

FORGETS = """
import torch
from deconattn.config import ModelConfig
from deconattn.decoder import LanguageModel

shape = dict(vocab_size=50, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
a = LanguageModel(ModelConfig(**shape, variant="window")).model.attention_maps(torch.randint(0, 50, (2, 40)))[0]
assert (a[..., 30, :15] == 0).all() and (a[..., 30, 15:31] > 0).all()
"""


def printed() -> str:
    """The README's file."""
    code = re.search(
        r"Write `deconattn/mixers/window.py`:\n\n```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL
    )
    assert code, "the README no longer shows deconattn/mixers/window.py"
    return code.group(1)


def suite(folder: Path) -> subprocess.CompletedProcess[str]:
    """The suite of variants on the README's, in a project's folder."""
    for name in (
        "pyproject.toml",
        "tests/__init__.py",
        "tests/conftest.py",
        "tests/forks.py",
        "tests/warm.py",
        "tests/project.py",
    ):
        shutil.copy2(ROOT / name, folder / name)
    for name in ("tests/mixers", "tests/reference", "tests/training"):
        shutil.copytree(ROOT / name, folder / name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pytest", "tests/mixers", "--slow", "-k", "window", "--tb=line"]
    environment = Project(folder).environment()
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)


def test_the_readmes_variant_goes_the_whole_way(finished_copy: Project) -> None:
    (finished_copy.folder / "deconattn/mixers/window.py").write_text(printed())
    assert finished_copy.planned() == {}, "a new variant must leave what is there alone"
    subprocess.run([sys.executable, "-c", FORGETS], cwd=finished_copy.folder, check=True)
    held = suite(finished_copy.folder)
    passed = re.search(r"(\d+) passed, (\d+) deselected", held.stdout)
    assert held.returncode == 0 and passed and int(passed.group(1)) > 200, held.stdout + held.stderr
    finished_copy.edit("config/test.yaml", "variants: [rndembqk]", "variants: [rndembqk, window]")
    assert finished_copy.planned()["pretrain"] == 1
    done = finished_copy.snakemake("--quiet", "rules")
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = finished_copy.runs("tiny-window-*")
    assert len(pd.read_parquet(run / "train.parquet")) >= 10
    cells = pd.read_parquet(finished_copy.folder / "results/reports/test/tables/table1.parquet")
    mine = cells[(cells["variant"] == "window") & (cells["source"] == "ours")]
    assert {"full", "skip"} <= set(mine["mode"]) and mine["value"].notna().any()
