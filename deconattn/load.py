"""A trained model from its folder, without transformers."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from deconattn.config import ModelConfig
from deconattn.decoder import LanguageModel
from deconattn.device import find_device
from deconattn.errors import UserError
from deconattn.files import read_json


def load_language_model(folder: Path, device: str = "auto") -> LanguageModel:
    """The model of `folder` (config.json, model.safetensors) in float32, in evaluation mode.

    device: "auto" (a GPU if there is one), "cpu", "cuda".

    Raises:
        UserError: a file is missing or broken, or does not hold the weights of this model.
    """
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: no model there (config.json is missing)")
    config, path = ModelConfig.from_dict(read_json(folder / "config.json")), folder / "model.safetensors"
    model = LanguageModel(config)  # not on "meta": there torch imports its compiler first, a second for a small model
    try:
        tensors = load_file(path)
        if config.tie_word_embeddings and "model.embed_tokens.weight" in tensors:
            tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]  # stored once
        model.load_state_dict(tensors, assign=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except SafetensorError as error:
        raise UserError(f"{path}: not a whole safetensors file ({error})") from None
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: not the weights of {folder / 'config.json'} ({reason})") from None
    return model.float().eval().to(find_device(device))
