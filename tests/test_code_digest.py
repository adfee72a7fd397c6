"""The code digest: what can change a result changes it, what cannot leaves it alone.

The rules are tried on a small package; tests/test_code_edits.py edits this one. That nothing runs which is not in the digest
is tried in tests/test_code_digest_complete.py.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from deconattn.errors import UserError
from deconattn.experiment.code import Code

BASE = {
    "__init__": "",
    "errors": "class UserError(Exception): ...\n",
    "entry": """
from dataclasses import dataclass
from typing import TYPE_CHECKING
import math
from p import other, plugins, tools, twisted
from p.errors import UserError
from p.kinds import KINDS
from p.lazy import thing
from p.shared import RATE, Shape, helper as short
try:
    from p.far import helper as tweak
except ImportError:
    tweak = None

def run(n: int) -> float:
    \"""Do it.\"""
    from p.late import finish
    if n < 0:
        raise UserError(f'{n} is too small')
    if n > 9:
        raise ValueError('too large', n)
    rate: float = short(n) * RATE
    assert rate, 'no rate'
    tweak(KINDS['a']() + getattr(plugins, 'idle')() + thing)
    twisted.twist(1) - other.twist(1)
    return finish(tools.scale(math.sqrt(rate)), Shape(n))

def unused():
    return short(1)
""",
    "shared": """
from dataclasses import dataclass
from functools import cache
RATE = 2
OTHER = 3
@cache
def helper(n):
    return even(n)
def even(n):
    return n == 0 or odd(n - 1)
def odd(n):
    return n != 0 and even(n - 1)
class Base:
    limit = 3
@dataclass
class Shape(Base):
    width: int
    height: int = 1
    def area(self) -> int:
        return self.width * self.height
""",
    "tools": "def scale(x):\n    return [tweak(each) for each in [x]]\ndef tweak(x, by=1):\n    return x * by\ndef idle(): ...\n",
    "late": "def finish(xs, shape):\n    return sum(xs) + shape.area()\ndef later(): ...\nlater()\n",
    "far": "def helper(n):\n    return n\n",
    "kinds": "KINDS = {}\ndef kind(f):\n    KINDS[f.__name__] = f\n    return f\n@kind\ndef a():\n    return 1\n",
    "plugins": "def idle(): ...\n",
    "lazy": "def __getattr__(name):\n    from p import values\n    return getattr(values, name)\n",
    "values": "thing = 1\n",
    "twisted": "def twist(x):\n    return more(x)\ndef more(x):\n    return x + 1\n",
    "other": "def twist(x):\n    return more(x)\ndef more(x):\n    return x * 2\n",
}  # fmt: skip


Edits = tuple[tuple[str, str, str], ...]
"""(file, old, new); a file that is not there is written."""


def package(folder: Path, files: dict[str, str], *edits: tuple[str, str, str]) -> Code:
    for file, old, new in edits:
        assert old in files.get(file, ""), old
        files = {**files, file: files.get(file, "").replace(old, new, 1)}
    root = folder / "p"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for name, text in {"__init__": "", **files}.items():
        (root / f"{name}.py").write_text(text)
    return Code(root)


def digest(folder: Path, files: dict[str, str], *edits: tuple[str, str, str]) -> str:
    return package(folder, files, *edits).digest(["p.entry.run"])


HELPER = "def even(n):\n    return n == 0 or odd(n - 1)\ndef odd(n):\n    return n != 0 and even(n - 1)\n"
SAME: dict[str, Edits] = {
    "a docstring": (("entry", "Do it.", "Do it well."),),
    "a comment and white space": (("entry", "    assert", "\n    # why\n    assert"),),
    "an annotation of a signature": (("entry", "n: int) -> float", "n: 'Anything')"),),
    "the text of a UserError": (("entry", "f'{n} is too small'", "f'{n} < {OTHER}'"),),
    "the text of a builtin error": (("entry", "'too large'", "f'too {n} large' + 's'"),),
    "the text of an assertion": (("entry", ", 'no rate'", ", 'none'"),),
    "an unused function": (("entry", "return short(1)", "return 7"),),
    "an unused function of a module that is used": (("tools", "def idle(): ...", "def idle(x): ..."),),
    "another way to import": (
        ("entry", "plugins, tools, twisted\n", "plugins, twisted\nimport p.tools as t\n"),
        ("entry", "tools.scale", "t.scale"),
    ),
    "imported where it is used": (
        ("entry", "from p.late import finish\n", "import p.late\n"),
        ("entry", "finish(tools", "p.late.finish(tools"),
    ),
    "handed on by another module": (
        ("entry", "from p.shared import RATE,", "from p.hands import RATE\nfrom p.shared import"),
        ("hands", "", "from p.shared import RATE\n"),
    ),
    "definitions that were moved": (("shared", HELPER, "from p.elsewhere import even\n"), ("elsewhere", "", HELPER)),
    "what is only for type checkers": (("entry", "try:", "if TYPE_CHECKING:\n    from p.far import helper\ntry:"),),
    "a module's own start": (("tools", "def idle", "if __name__ == '__main__':\n    idle()\ndef idle"),),
}  # fmt: skip
"""What leaves the digest of `p.entry.run` alone."""

DIFFERENT: dict[str, Edits] = {
    "an expression": (("shared", "return even(n)", "return odd(n)"),),
    "a constant": (("shared", "RATE = 2", "RATE = 2.0"),),
    "a constant that is changed below": (("shared", "RATE = 2\n", "RATE = 2\nRATE += 1\n"),),
    "the condition of an error": (("entry", "n < 0", "n <= 0"),),
    "what else an error carries": (("entry", "'too large', n", "'too large', n + 1"),),
    "what an assertion holds": (("entry", "assert rate,", "assert rate is not None,"),),
    "a default": (("tools", "by=1", "by=2"),),
    "a decorator": (("shared", "@cache\n", ""),),
    "a base": (("shared", "limit = 3", "limit = 4"),),
    "a field's annotation": (("shared", "width: int", "width: float"),),
    "the order of fields": (("shared", "    width: int\n    height: int = 1\n", "    height: int = 1\n    width: int\n"),),
    "a method": (("shared", "self.width * self.height", "self.width + self.height"),),
    "what is imported in a function": (("late", "sum(xs)", "max(xs)"),),
    "a helper in the place of another of its name": (("entry", "helper as short", "Base\nfrom p.far import helper as short"),),
    "what is imported if it can be": (("far", "return n", "return -n"),),
    "work at import of the package": (("__init__", "", "import os\nos.environ['X'] = '1'\n"),),
    "work at import that names a function": (("late", "def later(): ...", "def later(): return 1"),),
    "what is registered": (("kinds", "return 1", "return 2"),),
    "a function of a module that is used as a value": (("plugins", "def idle(): ...", "def idle(): return 1"),),
    "names that are handed out when they are asked for": (("values", "= 1", "= 2"),),
    "two helpers of one name that change places": (("entry", "twisted.twist(1) - other", "other.twist(1) - twisted"),),
}  # fmt: skip
"""What changes it."""


@pytest.mark.parametrize(
    ("edits", "is_same"),
    [pytest.param(edits, rows is SAME, id=name) for rows in (SAME, DIFFERENT) for name, edits in rows.items()],
)
def test_what_can_change_a_result_changes_the_digest_and_nothing_else(
    tmp_path: Path, edits: Edits, is_same: bool
) -> None:
    assert (digest(tmp_path, BASE, *edits) == digest(tmp_path, BASE)) == is_same


def test_a_local_name_counts_as_what_it_hides(tmp_path: Path) -> None:
    """Rather too much than too little: the reading of scopes is left to Python."""
    for body in ("[scale for scale in [1]]; return scale(1)", "global scale; scale = scale or 2; return scale(1)"):
        files = {"entry": f"def scale(x):\n    return x\ndef run():\n    {body}\n"}
        assert digest(tmp_path, files, ("entry", "return x\n", "return -x\n")) != digest(tmp_path, files)


def test_definitions_tell_where_code_differs(tmp_path: Path) -> None:
    before = package(tmp_path, BASE).definitions(["p.entry.run"])
    assert "p.entry.unused" not in before and "p.late.finish" in before
    for edit, names in (
        (("shared", "self.width * self.height", "self.width + self.height"), {"p.shared.Shape.area"}),
        (("shared", "height: int = 1", "height: int = 2"), {"p.shared.Shape"}),
        (("entry", "import math\n", "import cmath as math\n"), {"p.entry.run", "p.entry.(imports)"}),
    ):
        after = package(tmp_path, BASE, edit).definitions(["p.entry.run"])
        assert {name for name in before if before[name] != after[name]} == names and before.keys() == after.keys()


def test_what_cannot_be_followed_is_refused(tmp_path: Path) -> None:
    for text in ("from p.shared import *\n", "from . import shared\n"):
        with pytest.raises(UserError, match=r"entry.py:1: a relative or starred import"):
            digest(tmp_path, {**BASE, "entry": text + "def run(): ...\n"})
    with pytest.raises(ModuleNotFoundError, match=r"p\.entry\.walk"):
        package(tmp_path, BASE).digest(["p.entry.walk"])
