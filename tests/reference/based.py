"""Second-order Taylor attention by others: the pure-torch reference of fla-core (Based; Arora et al., 2024)."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

from torch import Tensor

from tests.conftest import skip_or_fail


def load() -> ModuleType:
    """`fla/ops/based/naive.py` by its path, as importing the package needs Triton; skips loudly, fails in CI, without it."""
    found = importlib.util.find_spec("fla")
    if found is None or not found.submodule_search_locations:
        skip_or_fail("fla-core is not installed: second-order Taylor attention is not held to its reference")
    path = Path(next(iter(found.submodule_search_locations))) / "ops" / "based" / "naive.py"
    spec = importlib.util.spec_from_file_location("fla_based_naive", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Its causal attention of q, k, v (B, heads, L, dh), numerator and denominator taken apart: together it adds 1e-6."""
    parallel = load().naive_parallel_based
    return parallel(query, key, value, use_norm=False) / parallel(
        query, key, value.new_ones(value.shape), use_norm=False
    )
