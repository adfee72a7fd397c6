"""Deliberate faults, each beside the test of the suite that catches it, and the words in which it does."""

from __future__ import annotations

from tests.mixers.faults import decoding, formulas, mixers, models
from tests.mixers.faults.fault import Fault

FAULTS: list[Fault] = [*mixers.FAULTS, *models.FAULTS, *decoding.FAULTS, *formulas.FAULTS]
