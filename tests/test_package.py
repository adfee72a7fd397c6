"""The wheel: what `pip install deconattn` brings is enough for the models, and the lock pins it all."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.project import ROOT

PACKAGES = ("deconattn", "snakemake_logger_plugin_deconattn")
MODEL = """
import sys, torch
from deconattn import DeconAttnConfig, DeconAttnForCausalLM
config = DeconAttnConfig(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
                         max_position_embeddings=16, variant=sys.argv[1], layout="even")
model = DeconAttnForCausalLM(config).eval()
ids = torch.arange(8)[None]
model.save_pretrained("saved")
again = DeconAttnForCausalLM.from_pretrained("saved").eval()
assert torch.equal(model(ids).logits, again(ids).logits)
assert again.generate(ids, max_new_tokens=4, do_sample=False).shape == (1, 12)
"""


def wheel(folder: Path) -> Path:
    """The wheel of this checkout, built from a copy: the build leaves files beside its sources."""
    source = folder / "source"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    done = subprocess.run([*command, folder, source], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_its_models_run_in_a_clean_environment(tmp_path: Path) -> None:
    built = wheel(tmp_path)
    listed = subprocess.run(["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=True)
    missing = set(listed.stdout.split()) - set(zipfile.ZipFile(built).namelist())
    assert not missing, f"not in the wheel: {sorted(missing)}"

    subprocess.run([sys.executable, "-m", "venv", tmp_path / "clean"], check=True)
    python = tmp_path / "clean/bin/python"
    # Versions are those of the lock; what is installed is what the wheel asks for.
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    installed = subprocess.run(
        [*pip, "--constraint", ROOT / "requirements.lock", built], capture_output=True, text=True
    )
    assert installed.returncode == 0, installed.stderr
    for variant in ("standard", "rndembqk"):
        run = subprocess.run([python, "-c", MODEL, variant], cwd=tmp_path, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
    asked = subprocess.run(
        [python, "-m", "deconattn", "draw", "table1", '{"model": "nano"}', ".", "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert asked.returncode == 2
    assert "pip install 'deconattn[workflow]'" in asked.stderr and asked.stderr.count("\n") == 1, asked.stderr


def test_the_lock_pins_what_the_package_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["workflow"]]
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in lock if "==" in line}
    assert not {name.lower().replace("_", "-") for name in asked} - pinned
