"""What tests of evaluations share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tokenizer(shared_data: Path) -> Path:
    """The tokenizer of the paper."""
    return shared_data / "tokenizer"
