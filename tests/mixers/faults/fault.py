"""What a fault is, the cases that most are tried on, and breaks that more than one kind of test must see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from deconattn import decoding
from deconattn.mixers._contract import QKVMixer
from tests.mixers.breaking import Patch, exchange


@dataclass(frozen=True)
class Fault:
    """`what` is wrong, the `patch` that makes it so, the `test` that fails with `case`, and a pattern of what it then says.

    `error` is what the test ends with where the break is not one that it compares, but one that cannot run.
    """

    what: str
    patch: Patch
    test: Callable[..., None]
    case: dict[str, Any]
    says: str
    error: type[Exception] = AssertionError


def kind(variant: str, layout: str = "uniform", heads: str = "mha", **more: Any) -> dict[str, Any]:
    return {"variant": variant, "layout": layout, "heads": heads, **more}


def mixer(variant: str, heads: str = "mha", **more: Any) -> dict[str, Any]:
    return {"variant": variant, "heads": heads, **more}


BLIND = exchange(decoding, "_fingerprint", lambda _: lambda module: ("always",))
TILED = exchange(QKVMixer, "repeat", lambda _: lambda self, x: x.repeat(
    1, self.config.num_attention_heads // self.config.kv_heads, 1, 1))  # fmt: skip
