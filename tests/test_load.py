"""A trained model from its folder: the one that transformers loads, or one line that names the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from deconattn.errors import UserError
from deconattn.huggingface import DeconAttnForCausalLM
from deconattn.load import load_language_model
from tests.evaluation import VOCABULARY, tiny


@pytest.mark.parametrize("fields", [{}, {"tie_word_embeddings": True}, {"variant": "rndembqk", "layout": "even"}])
def test_the_plain_model_of_a_folder_is_the_one_that_transformers_loads(fields: dict[str, Any], tmp_path: Path) -> None:
    tiny(**fields).save_pretrained(tmp_path)
    ids = torch.randint(0, VOCABULARY, (2, 40), generator=torch.Generator().manual_seed(0))
    plain, theirs = load_language_model(tmp_path, "cpu"), DeconAttnForCausalLM.from_pretrained(tmp_path).eval()
    assert not plain.training
    with torch.inference_mode():
        for mode in (None, "skip", "skip_mixer"):
            plain.skip = theirs.skip = mode
            assert torch.equal(plain(ids), theirs(ids).logits)


def test_weights_that_cannot_be_loaded_are_one_line_with_their_file(tmp_path: Path) -> None:
    tiny(hidden_size=8).save_pretrained(tmp_path)
    path, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    whole = path.read_bytes()

    def refused(told: str) -> None:
        with pytest.raises(UserError, match=rf"^{path}: {told}.*\Z"):
            load_language_model(tmp_path, "cpu")

    config.write_text(json.dumps({**json.loads(config.read_text()), "intermediate_size": 48}))
    refused(f"not the weights of {config}")
    path.write_bytes(whole[: len(whole) // 2])
    refused("not a whole safetensors file")
    path.unlink()
    refused("no such file")
