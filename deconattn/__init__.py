"""DeconAttn: which parts of attention does a language model need? (after arXiv:2510.11602)

Every cluster job parses the Snakefile and so imports this package, and must not pay for torch and transformers there.
So the classes are handed out lazily, and transformers learns the model type when both packages are imported, whichever is first.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__version__ = "0.1.0"
__all__ = ["DeconAttnConfig", "DeconAttnForCausalLM", "__version__"]


def __getattr__(name: str) -> Any:
    if name in ("DeconAttnConfig", "DeconAttnForCausalLM"):
        return getattr(importlib.import_module("deconattn.huggingface"), name)
    raise AttributeError(f"module 'deconattn' has no attribute {name!r}")


class _Registration(MetaPathFinder):
    """Lets whatever imports transformers import `deconattn.huggingface` behind it, which registers the Auto classes."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if fullname != "transformers" or self not in sys.meta_path:
            return None
        place = sys.meta_path.index(self)
        sys.meta_path.remove(self)  # the others find it
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            sys.meta_path.insert(place, self)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def and_register(module: ModuleType) -> None:
            execute(module)
            importlib.import_module("deconattn.huggingface")

        spec.loader.exec_module = and_register  # type: ignore[method-assign]
        return spec


if "transformers" in sys.modules:
    importlib.import_module("deconattn.huggingface")
else:
    sys.meta_path.insert(0, _Registration())
