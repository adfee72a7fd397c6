"""What a figure's module hands back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass
class Drawing:
    """A figure ready to be saved, the ids of the runs that are in it, and what is missing from it."""

    figure: Figure
    runs: Sequence[str]
    gaps: Sequence[str] = field(default_factory=list)
