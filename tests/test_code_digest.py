"""The code digest: what changes results changes it, what does not leaves it alone. Edits are made to a copy of the package."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deconattn.errors import UserError
from deconattn.experiment import code
from tests.conftest import ROOT

DIGEST = """
import sys; sys.path.insert(0, {root!r})
from deconattn.experiment.code import code_digest
print(code_digest(*{modules!r}))
"""


def digest(root: Path, *modules: str) -> str:
    script = DIGEST.format(root=str(root), modules=modules)
    return subprocess.run(
        [sys.executable, "-I", "-c", script], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "deconattn", tmp_path / "deconattn", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


TRAIN_APPROXIMATE = ("deconattn.training.run", "deconattn.mixers.approximate")


@pytest.mark.parametrize("content", [b"x = 1\ny = (\n", b"x = 1\ny = '\x00'\n", b"x = 1\ny = '\xff'\n"])
@pytest.mark.parametrize("asked", ["class_constant", "parts_of", "code_digest"])
def test_a_file_that_is_no_python_is_named(
    content: bytes, asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "deconattn/mixers/mine.py"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    monkeypatch.setattr(code, "PACKAGE", tmp_path / "deconattn")
    arguments = ("side_stream",) if asked == "class_constant" else ()
    with code.as_known({"digests": {}, "constants": {}}), pytest.raises(UserError) as refused:
        getattr(code, asked)("deconattn.mixers.mine", *arguments)
    assert str(refused.value).startswith(f"{path}:2: not valid Python (")
    assert len(str(refused.value).splitlines()) == 1


def edit(root: Path, file: str, old: str, new: str) -> None:
    path = root / "deconattn" / file
    text = path.read_text()
    assert old in text, f"{file} no longer contains {old!r}"
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("mixers/_taylor.py", "return 1 + s * (1 + 0.5 * s)", "return 1 + s * (1 + 0.5 * s)  # Horner\n\n"),
        ("mixers/_taylor.py", '"""w = 1 + s + s²/2."""', '"""Another docstring."""'),
        ("mixers/_taylor.py", "return 1 + s * (1 + 0.5 * s)", "return (\n        1 + s * (1 + 0.5 * s)\n    )"),
        ("mixers/mlp.py", "return 3 * config", "return 1 + 3 * config"),
        ("report/published.py", "import", "import os\nimport"),
        ("huggingface.py", "use_cache", "use_the_cache"),
        ("__init__.py", '"0.1.0"', '"0.1.1"'),
        ("training/progress.py", "tokens/s", "tokens a second"),
    ],
)
def test_an_edit_that_cannot_change_the_run_leaves_its_digest(copy: Path, file: str, old: str, new: str) -> None:
    before = digest(copy, *TRAIN_APPROXIMATE)
    edit(copy, file, old, new)
    assert digest(copy, *TRAIN_APPROXIMATE) == before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("mixers/_taylor.py", "0.5 * s", "0.25 * s"),
        ("mixers/_contract.py", "** 0.5", "** 0.25"),
        ("model.py", "self.norm(x", "(x"),
        ("training/schedule.py", "(step + 1)", "step"),
        ("training/loop.py", "self.optimizer.step()", "pass"),
        ("data/order.py", "def batch", "def other(): ...\n\n\ndef batch"),
    ],
)
def test_an_edit_that_can_change_the_run_changes_its_digest(copy: Path, file: str, old: str, new: str) -> None:
    before = digest(copy, *TRAIN_APPROXIMATE)
    edit(copy, file, old, new)
    assert digest(copy, *TRAIN_APPROXIMATE) != before


def test_a_new_variant_leaves_the_others(copy: Path) -> None:
    before = digest(copy, *TRAIN_APPROXIMATE)
    (copy / "deconattn/mixers/mine.py").write_text("import deconattn.mixers.standard\n")
    assert digest(copy, *TRAIN_APPROXIMATE) == before
    assert digest(copy, "deconattn.training.run", "deconattn.mixers.mine") != before


def test_every_variant_has_its_own_digest() -> None:
    from deconattn import mixers

    digests = {name: digest(ROOT, "deconattn.training.run", f"deconattn.mixers.{name}") for name in mixers.names()}
    assert len(set(digests.values())) == len(digests)


CONSTANT = """
import sys; sys.path.insert(0, {root!r})
from deconattn.experiment.code import class_constant
print(class_constant("deconattn.mixers.mine", "side_stream"))
"""
INHERITED = {
    "from deconattn.mixers.fixedseqqk import FixedSeqQK\n\n\nclass Mine(FixedSeqQK):\n    pass\n": "text",
    "from deconattn.mixers import fixedseqqk as f\n\n\nclass Mine(f.FixedSeqQK):\n    unused = 1\n": "text",
    "import deconattn.mixers.rndembqk\n\n\nclass Mine(deconattn.mixers.rndembqk.RndEmbQK):\n    pass\n": "random",
    "from deconattn.mixers.fixedseqqk import FixedSeqQK as F\n\n\nclass A(F): ...\n\n\nclass Mine(A): ...\n": "text",
    "from deconattn.mixers.fixedseqqk import FixedSeqQK\n\n\nclass Mine(FixedSeqQK):\n    side_stream = 'random'\n": "random",
    "from deconattn.mixers.standard import Standard\n\n\nclass Mine(Standard):\n    pass\n": "None",
    "class Mine(Mine):\n    pass\n": "None",
}


@pytest.mark.parametrize("text", INHERITED)
def test_a_side_stream_that_is_inherited_is_found(copy: Path, text: str) -> None:
    (copy / "deconattn/mixers/mine.py").write_text(text)
    code = CONSTANT.format(root=str(copy))
    done = subprocess.run([sys.executable, "-I", "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == INHERITED[text]
