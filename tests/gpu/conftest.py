"""The device that these tests run on."""

from __future__ import annotations

import os

import pytest
import torch


@pytest.fixture(scope="session")
def device() -> torch.device:
    """A GPU, or what DECONATTN_TEST_DEVICE names."""
    found = torch.device(os.environ.get("DECONATTN_TEST_DEVICE", "cuda"))
    if found.type == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU here; on a machine with one run: pytest tests/gpu (DECONATTN_TEST_DEVICE=cpu: on a CPU)")
    return found
