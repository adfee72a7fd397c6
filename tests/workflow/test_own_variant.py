"""The README's variant in one file: written as a user would, named in the config, trained, evaluated, drawn."""

from __future__ import annotations

import re
import subprocess
import sys

import pandas as pd
import pytest

from tests.conftest import ROOT
from tests.project import Project

pytestmark = pytest.mark.xdist_group("workflow")

CHECK = """
import torch
from transformers import AutoModelForCausalLM
import deconattn
from deconattn.model import LanguageModel, ModelConfig, initialise, parameter_count

shape = dict(vocab_size=50, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
config = ModelConfig(**shape, variant="window")
model = LanguageModel(config).double()
initialise(model, 0)
x = torch.randint(0, 50, (2, 40))
a = model.attention_maps(x)[0]
assert torch.allclose(a.sum(-1), torch.ones_like(a[..., 0])) and (a[..., 30, :15] == 0).all() and (a[..., 30, 31:] == 0).all()
assert parameter_count(config) == sum(p.numel() for p in model.parameters())
"""


def test_the_readmes_variant_works_as_it_is_printed(finished_copy: Project) -> None:
    readme = (ROOT / "README.md").read_text()
    code = re.search(r"Write `deconattn/mixers/window.py`:\n\n```python\n(.*?)```", readme, re.DOTALL)
    assert code, "the README no longer shows deconattn/mixers/window.py"
    (finished_copy.folder / "deconattn/mixers/window.py").write_text(code.group(1))
    assert finished_copy.planned() == {}, "a new variant must leave what is there alone"
    subprocess.run([sys.executable, "-c", CHECK], cwd=finished_copy.folder, check=True)
    finished_copy.edit("config/test.yaml", "variants: [rndembqk]", "variants: [rndembqk, window]")
    assert finished_copy.planned()["pretrain"] == 1
    done = finished_copy.snakemake("--quiet", "rules")
    assert done.returncode == 0, done.stdout + done.stderr
    cells = pd.read_parquet(finished_copy.folder / "results/reports/test/tables/table1.parquet")
    mine = cells[(cells["variant"] == "window") & (cells["source"] == "ours")]
    assert {"full", "skip"} <= set(mine["mode"]) and mine["value"].notna().any()
