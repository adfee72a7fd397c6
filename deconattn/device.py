"""Where to compute: the one place that asks whether there is a GPU."""

from __future__ import annotations

import os

import torch

from deconattn.errors import UserError

DEVICES = ("auto", "cpu", "cuda")


def find_device(name: str) -> torch.device:
    """The device of this process for "auto" (a GPU where there is one), "cpu" or "cuda"; under torchrun, its own GPU.

    Raises:
        UserError: an unknown name, or "cuda" where there is no GPU.
    """
    if name not in DEVICES:
        raise UserError(f"device {name!r} is not one of {', '.join(DEVICES)}")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device 'cuda': there is no GPU here (allowed: auto, cpu)")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def device_name(name: str) -> str:
    """What a record says of the device of "auto", "cpu" or "cuda": the GPU's name, or "cpu"."""
    return "cpu" if name == "cpu" or not torch.cuda.is_available() else torch.cuda.get_device_name()
