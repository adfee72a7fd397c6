"""A trained decoder from its folder, without transformers and without its head."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from deconattn.device import find_device
from deconattn.errors import UserError
from deconattn.files import read_json
from deconattn.model import Decoder, ModelConfig


class NotFinite(Exception):
    """Weights, maps or scores of a model that are not finite numbers: there is nothing to analyse."""


def load_decoder(folder: Path, device: str = "auto") -> Decoder:
    """The decoder of `folder` (config.json, model.safetensors) in float32, ready to be read.

    device: "auto" (a GPU if there is one), "cpu", "cuda".

    Raises:
        UserError: a file is missing or broken, or does not hold the weights of this model.
        NotFinite: a weight is not a finite number.
    """
    config = ModelConfig.from_dict(read_json(folder / "config.json"))
    path = folder / "model.safetensors"
    try:
        tensors = load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except SafetensorError as error:
        raise UserError(f"{path}: not a whole safetensors file ({error})") from None
    with torch.device("meta"):  # every weight is given: none need be drawn first
        decoder = Decoder(config)
    own = {name.removeprefix("model."): tensor for name, tensor in tensors.items() if name.startswith("model.")}
    try:
        decoder.load_state_dict(own, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: not the weights of {folder / 'config.json'} ({reason})") from None
    for name, tensor in tensors.items():  # the head too: a model that cannot speak is broken, whatever its maps are
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise NotFinite(f"weight {name} is not finite")
    return decoder.float().eval().to(find_device(device))
