"""The formulas of Tables 5 to 8 as they are read: ours, and as the paper prints them (SPEC §8).

Numbers come from the measurements; these are the words beside them, and the tests hold them to the code.
"""

from __future__ import annotations

SYMBOLS = (
    "B sequences of L tokens; d hidden size, h heads of size e = d/h, g key-value heads, k = g·e (d without grouped queries); "
    "m inner width of mlp; F = 1 + e + e(e + 1)/2 entries of φ; P: L rounded up to pages of 64; S: L rounded up to a power "
    "of two; N = F(e + 1)/e rounded down, the length up to which approximate keeps keys and values."
)
_PAIRS = {
    "prefill_flops_square": "4BLd(d + k) + 4BL²d",
    "prefill_flops_causal": "4BLd(d + k) + 2BL(L + 1)d",
    "decode_flops": "4Bd(d + k) + 4BLd",
    "state_bytes_bf16": "4BPk",
}
_SIDE = {
    "prefill_flops_square": "2(B + 1)Ld(d + k) + 2(B + 1)L²d",
    "prefill_flops_causal": "2(B + 1)Ld(d + k) + (B + 1)L(L + 1)d",
    "decode_flops": "2Bd(d + k) + 4BLd",
    "state_bytes_bf16": "2BPk + 2S(d + k)",
}
OURS: dict[str, dict[str, str]] = {
    "standard": _PAIRS,
    "mlp": {
        "prefill_flops_square": "6BLdm",
        "prefill_flops_causal": "6BLdm",
        "decode_flops": "6Bdm",
        "state_bytes_bf16": "0",
    },
    "approximate": _PAIRS,
    "nonapproximate": {
        "prefill_flops_square": "4BLd(d + k)",
        "prefill_flops_causal": "4BLd(d + k)",
        "decode_flops": "4Bd(d + k)",
        "state_bytes_bf16": "4B(d + 2h)",
    },
    "rndembqk": _SIDE,
    "fixedseqqk": _SIDE,
    "staticembqk": _PAIRS,
}
BEYOND_SWITCH: dict[str, str] = {
    "decode_flops": "4Bd(d + k) + 2B(g + h)F(e + 1)",
    "state_bytes_bf16": "4BgF(e + 1)",
}
"""What approximate costs beyond N tokens."""

_PRINTED_PAIRS = {
    "printed_prefill_flops": "4BL²d + 6BLd²",
    "printed_decode_flops": "6Bd² + 4BLd",
    "printed_cache_bytes": "4BLd",
}
_PRINTED_SIDE = {
    "printed_prefill_flops": "2L²d + 2BL²d + 6BLd²",
    "printed_decode_flops": "2Ld + 2BLd + 6Bd²",
    "printed_cache_bytes": "2(B + 1)Ld",
}
PRINTED: dict[str, dict[str, str]] = {
    "standard": _PRINTED_PAIRS,
    "mlp": {"printed_prefill_flops": "6BLd²", "printed_decode_flops": "6Bd²", "printed_cache_bytes": "0"},
    "approximate": {
        "printed_prefill_flops": "14BLd²",
        "printed_decode_flops": "10Bd²",
        "printed_cache_bytes": "6Bd + 4Bd²/h",
    },
    "nonapproximate": {
        "printed_prefill_flops": "6BLd²",
        "printed_decode_flops": "6Bd²",
        "printed_cache_bytes": "2Bd + 4Bh",
    },
    "rndembqk": _PRINTED_SIDE,
    "fixedseqqk": _PRINTED_SIDE,
    "staticembqk": _PRINTED_PAIRS,
}

GROWTH = ("prefill", "decode", "activations", "cache")
_PAIRS_GROWTH = ("BL²d + BLd²", "BLd + Bd²", "BLd", "BLd")
OUR_GROWTH: dict[str, tuple[str, ...]] = {
    "standard": _PAIRS_GROWTH,
    "mlp": ("BLd²", "Bd²", "BLd", "0"),
    "approximate": ("BL²d + BLd²", "B min(L, e²)d + Bd²", "BLd", "B min(L, e²)d"),
    "nonapproximate": ("BLd²", "Bd²", "BLd", "Bd"),
    "rndembqk": _PAIRS_GROWTH,
    "fixedseqqk": _PAIRS_GROWTH,
    "staticembqk": _PAIRS_GROWTH,
}
"""Orders of growth of our costs, as `GROWTH` names them."""

PRINTED_GROWTH: dict[str, tuple[str | None, ...]] = {
    "standard": ("BL²d + BLd²", "BLd + Bd²", None, "BLd"),
    "mlp": ("BLd²", "Bd²", None, "0"),
    "approximate": ("BLd²", "Bd²", None, "Bd + Bd²/h"),
    "nonapproximate": ("BLd²", "Bd²", None, "Bd + Bh"),
    "rndembqk": ("BL²d + BLd²", "BLd + Bd²", None, "BLd"),
    "fixedseqqk": ("BL²d + BLd²", "BLd + Bd²", None, "BLd"),
    "staticembqk": ("BL²d + BLd²", "BLd + Bd²", None, "BLd"),
}
"""The same of the printed formulas; of activation memory none is known here."""
