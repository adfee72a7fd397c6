"""Colour and marker of every variant.

One hue a family; variants of a family differ in lightness and in marker, so that either alone tells them apart
in grey print. Seen with a colour-vision deficiency (Machado et al., 2009) any two variants stay at least 15 apart
in CIELAB, and every colour has a contrast of 3 : 1 or more against white.
"""

from __future__ import annotations

from deconattn.report.names import family_of

COLOURS: dict[str, str] = {
    "standard": "#1a1a1a",
    "mlp": "#c4460a",
    "approximate": "#143f9e",
    "nonapproximate": "#5f8ff0",
    "rndembqk": "#1a6637",
    "fixedseqqk": "#44a052",
    "staticembqk": "#b8509a",
}
MARKERS: dict[str, str] = {
    "standard": "s",
    "mlp": "X",
    "approximate": "o",
    "nonapproximate": "D",
    "rndembqk": "^",
    "fixedseqqk": "v",
    "staticembqk": "P",
}
OWN_COLOUR = "#707070"
OWN_MARKERS = ("h", "p", "*", "<", ">")
FAMILY_COLOURS: dict[str, str] = {
    "standard": COLOURS["standard"],
    "mixing": COLOURS["mlp"],
    "form": COLOURS["approximate"],
    "sequence": COLOURS["rndembqk"],
    "current": COLOURS["staticembqk"],
    "own": OWN_COLOUR,
}


def colour(variant: str) -> str:
    """The colour of a variant; all of a user's own share one grey."""
    return COLOURS.get(variant, OWN_COLOUR)


def marker(variant: str) -> str:
    """The marker of a variant; a user's own take one by their name, the same in every figure."""
    if family_of(variant).key != "own":
        return MARKERS[variant]
    return OWN_MARKERS[sum(variant.encode()) % len(OWN_MARKERS)]
