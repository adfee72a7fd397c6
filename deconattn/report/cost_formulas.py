"""The formulas of Tables 5 to 8 as they are read: ours, and as the paper prints them.

Numbers come from the measurements; these are the words beside them, and the tests hold them to the code.
"""

from __future__ import annotations

SYMBOLS = (
    "B sequences of L tokens; d hidden size, h heads of size e = d/h, g key-value heads, k = g·e (d without grouped queries); "
    "m inner width of mlp; F = 1 + e + e(e + 1)/2 entries of φ; P: L rounded up to pages of 64; S: L rounded up to a power "
    "of two; N = F(e + 1)/e rounded down, the length up to which approximate keeps keys and values."
)


def _by_column(columns: tuple[str, ...], rows: dict[str, tuple[str, ...]]) -> dict[str, dict[str, str]]:
    return {variant: dict(zip(columns, row, strict=True)) for variant, row in rows.items()}


_PAIRS = ("4BLd(d + k) + 4BL²d", "4BLd(d + k) + 2BL(L + 1)d", "4Bd(d + k) + 4BLd", "4BPk")
_SIDE = (
    "2(B + 1)Ld(d + k) + 2(B + 1)L²d",
    "2(B + 1)Ld(d + k) + (B + 1)L(L + 1)d",
    "2Bd(d + k) + 4BLd",
    "2BPk + 2S(d + k)",
)
OURS = _by_column(
    ("prefill_flops_square", "prefill_flops_causal", "decode_flops", "state_bytes_bf16"),
    {
        "standard": _PAIRS,
        "mlp": ("6BLdm", "6BLdm", "6Bdm", "0"),
        "approximate": _PAIRS,
        "nonapproximate": ("4BLd(d + k)", "4BLd(d + k)", "4Bd(d + k)", "4B(d + 2h)"),
        "rndembqk": _SIDE,
        "fixedseqqk": _SIDE,
        "staticembqk": _PAIRS,
    },
)
BEYOND_SWITCH = {"decode_flops": "4Bd(d + k) + 2B(g + h)F(e + 1)", "state_bytes_bf16": "4BgF(e + 1)"}
"""What approximate costs beyond N tokens."""

_PRINTED_PAIRS = ("4BL²d + 6BLd²", "6Bd² + 4BLd", "4BLd")
_PRINTED_SIDE = ("2L²d + 2BL²d + 6BLd²", "2Ld + 2BLd + 6Bd²", "2(B + 1)Ld")
PRINTED = _by_column(
    ("printed_prefill_flops", "printed_decode_flops", "printed_cache_bytes"),
    {
        "standard": _PRINTED_PAIRS,
        "mlp": ("6BLd²", "6Bd²", "0"),
        "approximate": ("14BLd²", "10Bd²", "6Bd + 4Bd²/h"),
        "nonapproximate": ("6BLd²", "6Bd²", "2Bd + 4Bh"),
        "rndembqk": _PRINTED_SIDE,
        "fixedseqqk": _PRINTED_SIDE,
        "staticembqk": _PRINTED_PAIRS,
    },
)

GROWTH = ("prefill", "decode", "cache")
_PAIRS_GROWTH = ("BL²d + BLd²", "BLd + Bd²", "BLd")
OUR_GROWTH: dict[str, tuple[str, ...]] = {
    "standard": _PAIRS_GROWTH,
    "mlp": ("BLd²", "Bd²", "0"),
    "approximate": ("BL²d + BLd²", "B min(L, e²)d + Bd²", "B min(L, e²)d"),
    "nonapproximate": ("BLd²", "Bd²", "Bd"),
    "rndembqk": _PAIRS_GROWTH,
    "fixedseqqk": _PAIRS_GROWTH,
    "staticembqk": _PAIRS_GROWTH,
}
"""Orders of growth of our costs, as `GROWTH` names them."""

PRINTED_GROWTH: dict[str, tuple[str, ...]] = {
    **OUR_GROWTH,
    "approximate": ("BLd²", "Bd²", "Bd + Bd²/h"),
    "nonapproximate": ("BLd²", "Bd²", "Bd + Bh"),
}
"""The same of the printed formulas."""
