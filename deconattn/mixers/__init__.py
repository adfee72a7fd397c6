"""The paper's section 3: one file a variant, found by its name.

Nothing here imports all the mixers. `find("mlp")` imports `deconattn/mixers/mlp.py` and nothing else: that is how a
variant is added (write a file, name it in the config), and why the code digest of a run covers its own variant and
no other. Files that begin with an underscore hold what several variants share.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from deconattn.errors import UserError

if TYPE_CHECKING:
    from deconattn.mixers._contract import Mixer


def names() -> list[str]:
    """Names of all variants: the files of this folder, none of them imported."""
    return sorted(p.stem for p in Path(__file__).parent.glob("*.py") if not p.stem.startswith("_"))


def find(name: str) -> type[Mixer]:
    """Import the variant `name` and return its class, the one subclass of `Mixer` that its file defines.

    Raises:
        UserError: no such file, one that does not define exactly one mixer, one whose mixer lacks methods of the contract, or
            one that reads a side stream without queries and keys to make of it.
    """
    if name not in names():
        raise UserError(f"variant {name!r} is not one of {', '.join(names())}")
    module = importlib.import_module(f"deconattn.mixers.{name}")
    from deconattn.mixers._contract import Mixer, QKVMixer

    classes = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Mixer) and value.__module__ == module.__name__
    ]
    if len(classes) != 1:
        raise UserError(f"{module.__file__}: defines {len(classes)} mixers, a variant's file defines exactly one")
    if classes[0].qk_source == "side" and not issubclass(classes[0], QKVMixer):
        raise UserError(f"{module.__file__}: qk_source 'side' is for a QKVMixer, {classes[0].__name__} is none")
    missing = sorted(classes[0].__abstractmethods__)
    if missing:  # said here, as parameters and costs are classmethods and would be priced without them
        raise UserError(f"{module.__file__}: {classes[0].__name__} does not define {', '.join(missing)}")
    return classes[0]
