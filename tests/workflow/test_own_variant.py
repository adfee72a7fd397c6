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

# Everything else about it is the suite's affair.
FORGETS = """
import torch
from deconattn.model import LanguageModel, ModelConfig

shape = dict(vocab_size=50, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
a = LanguageModel(ModelConfig(**shape, variant="window")).attention_maps(torch.randint(0, 50, (2, 40)))[0]
assert (a[..., 30, :15] == 0).all() and (a[..., 30, 15:31] > 0).all()
"""


def printed() -> str:
    """The README's file."""
    code = re.search(
        r"Write `deconattn/mixers/window.py`:\n\n```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL
    )
    assert code, "the README no longer shows deconattn/mixers/window.py"
    return code.group(1)


def suite(folder: Path, tests: str) -> subprocess.CompletedProcess[str]:
    """`pytest <tests> -k window` on the package in `folder`."""
    for name in ("pyproject.toml", "tests/__init__.py", "tests/conftest.py", "tests/project.py", "tests/training.py"):
        shutil.copy2(ROOT / name, folder / name)
    for name in ("tests/mixers", "tests/reference"):
        shutil.copytree(ROOT / name, folder / name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pytest", tests, "-k", "window", "-p", "no:cacheprovider", "--tb=line"]
    return subprocess.run(
        command, cwd=folder, env=Project(folder).environment(), capture_output=True, text=True, timeout=600
    )


@pytest.mark.xdist_group("workflow")
def test_the_readmes_variant_goes_the_whole_way(finished_copy: Project) -> None:
    (finished_copy.folder / "deconattn/mixers/window.py").write_text(printed())
    assert finished_copy.planned() == {}, "a new variant must leave what is there alone"
    subprocess.run([sys.executable, "-c", FORGETS], cwd=finished_copy.folder, check=True)
    finished_copy.edit("config/test.yaml", "variants: [rndembqk]", "variants: [rndembqk, window]")
    assert finished_copy.planned()["pretrain"] == 1
    done = finished_copy.snakemake("--quiet", "rules")
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = finished_copy.runs("tiny-window-*")
    assert len(pd.read_parquet(run / "train.parquet")) >= 10
    cells = pd.read_parquet(finished_copy.folder / "results/reports/test/tables/table1.parquet")
    mine = cells[(cells["variant"] == "window") & (cells["source"] == "ours")]
    assert {"full", "skip"} <= set(mine["mode"]) and mine["value"].notna().any()


def test_the_suite_takes_a_new_file_and_finds_what_is_wrong_with_it(tmp_path: Path) -> None:
    """The README's as it is printed, and one whose window is a position longer when it decodes."""
    folder = Project.copy(tmp_path).folder
    file = folder / "deconattn/mixers/window.py"
    file.write_text(printed())
    right = suite(folder, "tests/mixers")
    passed = re.search(r"(\d+) passed, (\d+) deselected", right.stdout)
    assert right.returncode == 0 and passed and int(passed.group(1)) > 250, right.stdout + right.stderr
    late = printed().replace("reach - WIDTH", "reach - WIDTH - int(s.shape[2] < s.shape[3])")
    assert late != printed()
    file.write_text(late)
    wrong = suite(folder, "tests/mixers/test_decoding.py")
    assert wrong.returncode == 1 and "decode: relative RMS" in wrong.stdout, wrong.stdout + wrong.stderr
