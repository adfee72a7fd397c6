"""DeconAttn: which parts of attention does a language model need? (after arXiv:2510.11602)

The heavy names are handed out lazily: every cluster job parses the Snakefile and so imports this package,
and must not pay for torch and transformers there.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["DeconAttnConfig", "DeconAttnForCausalLM", "__version__"]


def __getattr__(name: str) -> Any:
    if name in ("DeconAttnConfig", "DeconAttnForCausalLM"):
        from deconattn import huggingface

        return getattr(huggingface, name)
    raise AttributeError(f"module 'deconattn' has no attribute {name!r}")
