"""The variants of attention (docs/method.md): one file each, found by its name.

Nothing here imports all the mixers. `find("mlp")` imports `deconattn/mixers/mlp.py` and nothing else: that is how a
variant is added (write a file, name it in the config), and why the code digest of a run covers its own variant and
no other. The `SHARED` files hold what several variants have in common.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from deconattn.errors import UserError

if TYPE_CHECKING:
    from deconattn.mixers.base import Mixer

SHARED = ("base", "blocks", "cache", "formulas")
REWEIGHTED = {"softplus": "softplus_reweighted"}
"""Variant → the one whose mixers, on the same parameters, re-weight its attention when it is evaluated `reweighted`."""


def names() -> list[str]:
    """Names of all variants: the files of this folder, none of them imported."""
    return sorted(p.stem for p in Path(__file__).parent.glob("*.py") if p.stem not in ("__init__", *SHARED))


def find(name: str) -> type[Mixer]:
    """Import the variant `name` and return its class, the one subclass of `Mixer` that its file defines.

    Raises:
        UserError: no such file, one that does not define exactly one mixer, one that lacks methods or functions of the
            contract, or one that reads a side stream but is no `QKVMixer`.
    """
    module = module_of(name)
    from deconattn.mixers.base import Mixer, QKVMixer

    found = [x for x in vars(module).values() if isinstance(x, type) and issubclass(x, Mixer)]
    classes = [mixer for mixer in found if mixer.__module__ == module.__name__]
    if len(classes) != 1:
        raise UserError(f"{module.__file__}: defines {len(classes)} mixers, a variant's file defines exactly one")
    (mixer,) = classes
    if mixer.qk_source == "side" and not issubclass(mixer, QKVMixer):
        raise UserError(f"{module.__file__}: qk_source 'side' is for a QKVMixer, {mixer.__name__} is none")
    if missing := sorted(mixer.__abstractmethods__):
        raise UserError(f"{module.__file__}: {mixer.__name__} does not define {', '.join(missing)}")
    if missing := [function for function in ("flops", "state_bytes") if not hasattr(module, function)]:
        raise UserError(f"{module.__file__}: does not define {', '.join(missing)}, what the variant costs")
    return mixer


def module_of(name: str) -> ModuleType:
    """Import the variant's file, whose functions `flops` and `state_bytes` give its costs.

    Raises:
        UserError: no such file.
    """
    if name not in names():
        raise UserError(f"variant {name!r} is not one of {', '.join(names())}")
    return importlib.import_module(f"deconattn.mixers.{name}")
