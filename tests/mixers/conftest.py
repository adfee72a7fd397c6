"""One thread: tensors this small only wait for each other on two, for minutes where the machine is busy."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)
