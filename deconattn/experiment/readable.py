"""Numbers as a person reads them."""

from __future__ import annotations


def plural(count: int, word: str) -> str:
    """1 run, 2 runs."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def number(value: float) -> str:
    """Three digits and a letter: 76.7M, 195B, 1.2T; beyond, 1.20e18."""
    scaled = value
    for unit in ("", "k", "M", "B", "T"):
        if scaled < 999.5:
            return f"{scaled:.3g}{unit}"
        scaled /= 1000
    return f"{value:.2e}".replace("e+", "e")


def hours(value: float) -> str:
    """Hours, two digits at least: 1,234, 0.012."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def duration(hours: float) -> str:
    """Hours as days, hours or minutes."""
    if hours >= 48:
        return f"{hours / 24:.1f} days"
    return f"{hours:.1f} hours" if hours >= 1 else f"{hours * 60:.1f} minutes"
