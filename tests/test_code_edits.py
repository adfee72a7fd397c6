"""The code digest of this package: which edits rename what, and that nothing is looked up in a way that it cannot follow."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import pytest

from deconattn import mixers
from deconattn.errors import UserError
from deconattn.experiment import code
from deconattn.experiment.code import Code
from tests.conftest import ROOT


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return shutil.copytree(ROOT / "deconattn", tmp_path / "deconattn", ignore=shutil.ignore_patterns("__pycache__"))


def test_a_formula_of_costs_changes_the_costs_alone(copied: Path) -> None:
    varied = ("costs", "pretrain", "evaluate", "analyse")
    roots = [code.roots(stage, "approximate") for stage in varied]
    roots += [code.roots(stage) for stage in ("tokenize", "tokenizer", "write-text")]
    before = [Code(copied).digest(each) for each in roots]
    costs = copied / "costs.py"
    formula = costs.read_text()
    assert "return 3 * " in formula
    costs.write_text(formula.replace("return 3 * ", "return 2 * ", 1))
    after = [Code(copied).digest(each) for each in roots]
    assert after[0] != before[0] and after[1:] == before[1:]
    # A variant's formulas stand in its file beside its class.
    found = []
    for value in (1, 2):
        (copied / "mixers/mine.py").write_text(f"class Mine: ...\n\n\ndef flops():\n    return {value}\n")
        found.append([Code(copied).digest([root]) for root in ("deconattn.mixers.mine.Mine", "deconattn.mixers.mine")])
    assert found[0][0] == found[1][0] and found[0][1] != found[1][1]


def test_every_variant_has_its_own_digest_and_a_new_one_leaves_the_others(copied: Path) -> None:
    found = {name: code.reach(*code.roots("pretrain", name))["digest"] for name in mixers.names()}
    assert len(set(found.values())) == len(found)
    (copied / "mixers/mine.py").write_text("import deconattn.mixers.standard\nclass Mine: ...\n")
    assert Code(copied).digest(code.roots("pretrain", "approximate")) == found["approximate"]
    assert len(code.roots("pretrain", "mlp", "standard")) == 3


ALLOWED = {
    ("deconattn.mixers", "find"): "takes a variant's class from its file: it is a root of its own",
    ("deconattn.mixers", "module_of"): "the one place that imports variants, which are roots of their own",
    ("deconattn", "__getattr__"): "hands out the classes for Transformers, which no stage asks for",
    ("deconattn", "_Registration"): "registers these classes behind Transformers",
    ("deconattn", ""): "registers them, or has it done",
    ("deconattn.report.draw", "make"): "an exhibit's function is a root of its own",
    ("deconattn.job", "load_and_check"): "imports what the digest names",
    ("deconattn.analysis.mixer_memory", "_tensors"): "attributes of an object, and no names of a module",
}
LOOK_UPS = (
    "resolve_name import_module __import__ vars globals locals __subclasses__ __init_subclass__ eval exec".split()
)


def test_nothing_else_looks_code_up_by_name() -> None:
    found = set()
    for path in (ROOT / "deconattn").rglob("*.py"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for top in ast.parse(path.read_text(encoding="utf-8")).body:
            for node in ast.walk(top):
                function = node if isinstance(node, ast.FunctionDef) else None
                called = node.func if isinstance(node, ast.Call) else function
                name = getattr(called, "id", None) or getattr(called, "name", None) or getattr(called, "attr", None)
                # `model.eval()` and a library's loader have the names alone
                is_method = isinstance(called, ast.Attribute) and name in ("eval", "exec")
                if name in LOOK_UPS and not is_method:
                    found.add((module, getattr(top, "name", "")))
    assert found == set(ALLOWED), f"{found - set(ALLOWED)}: the digest cannot follow it (or ALLOWED names what is gone)"


# ---- files that are no Python, and the constant that says what a variant reads
@pytest.mark.parametrize("content", [b"x = 1\ny = (\n", b"x = 1\ny = '\xff'\n"], ids=["open", "not UTF-8"])
def test_a_file_that_is_no_python_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "deconattn/mixers/mine.py"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    package = Code(tmp_path / "deconattn")
    for ask in (package.constant, lambda module, _: package.digest([module])):
        with pytest.raises(UserError) as refused:
            ask("deconattn.mixers.mine", "side_stream")
        [said] = str(refused.value).splitlines()
        assert said.startswith(f"{path}:2: not valid Python (")


INHERITED = {
    "from deconattn.mixers.fixedseqqk import FixedSeqQK\n\n\nclass Mine(FixedSeqQK):\n    pass\n": "text",
    "from deconattn.mixers.fixedseqqk import FixedSeqQK as F\n\n\nclass A(F): ...\n\n\nclass Mine(A): ...\n": "text",
    "from deconattn.mixers.fixedseqqk import FixedSeqQK\n\n\nclass Mine(FixedSeqQK):\n    side_stream = 'random'\n": "random",
    "from deconattn.mixers.standard import Standard\n\n\nclass Mine(Standard):\n    pass\n": None,
}


def test_a_side_stream_that_is_inherited_is_found(copied: Path) -> None:
    for text, stream in INHERITED.items():
        (copied / "mixers/mine.py").write_text(text)
        assert Code(copied).constant("deconattn.mixers.mine", "side_stream") == stream, text
