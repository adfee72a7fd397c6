"""What the tests share: where the real data lies, and that a missing piece is loud."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
IN_CI = os.environ.get("CI", "") == "true"


def skip_or_fail(reason: str) -> None:
    """Skip with a visible reason; in CI a missing piece is a failure, so that nothing is silently untested."""
    if IN_CI:
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real evaluation sets and text beside the checkout."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        skip_or_fail(f"real data not found: {folder} is absent")
    return folder
