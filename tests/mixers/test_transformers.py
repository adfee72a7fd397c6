"""The model as transformers sees it: saved and loaded, padded, generating with its cache as without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GenerationConfig

from deconattn import DeconAttnForCausalLM
from tests.conftest import slow
from tests.mixers.cases import FLOAT64, assert_near, build, config_of, each_kind, each_pair, tokens, wrapped

MODES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampling": {"do_sample": True, "top_k": 0, "top_p": 0.95, "temperature": 1.3},
    "beams": {"num_beams": 3, "num_return_sequences": 2},
    "sampled beams": {"num_beams": 3, "do_sample": True, "top_k": 0},
}


def padded(ids: Tensor, lengths: list[int], side: str) -> tuple[Tensor, Tensor]:
    """The first tokens of each row with padding on one side, and the mask."""
    width = max(lengths)
    rows, mask = torch.zeros(len(lengths), width, dtype=torch.long), torch.zeros(len(lengths), width, dtype=torch.long)
    for row, n in enumerate(lengths):
        span = slice(width - n, width) if side == "left" else slice(0, n)
        rows[row, span], mask[row, span] = ids[row, :n], 1
    return rows, mask


def log_likelihoods(logits: Tensor, ids: Tensor) -> Tensor:
    """log p(token i+1 | tokens ≤ i) (B, L − 1)."""
    return logits[:, :-1].log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]


@each_kind
def test_saved_and_found_by_auto_model_it_is_the_same(variant: str, layout: str, heads: str, tmp_path: Path) -> None:
    config = config_of(variant, layout, heads)
    model = wrapped(config, torch.float32)
    model.save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.glob("*.bin")] == []
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert isinstance(loaded, DeconAttnForCausalLM)
    plain, _ = build(config, dtype=torch.float32)
    ours, theirs = plain.state_dict(), loaded.state_dict()
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(theirs[name], tensor), name
    with torch.no_grad():
        assert torch.equal(loaded(tokens(3, 40)).logits, plain.eval()(tokens(3, 40)))


@pytest.mark.parametrize("lengths", [[30, 17, 2], *slow([130, 65, 33])], ids=["short", "long"])
@each_kind
@torch.no_grad()
def test_the_same_log_likelihoods_alone_batched_and_padded(
    variant: str, layout: str, heads: str, lengths: list[int]
) -> None:
    model = wrapped(config_of(variant, layout, heads))
    ids, shortest = tokens(3, max(lengths)), min(lengths)
    alone = [
        log_likelihoods(model(row[None, :n]).logits, row[None, :n])[0] for row, n in zip(ids, lengths, strict=True)
    ]
    batched = log_likelihoods(model(ids[:, :shortest]).logits, ids[:, :shortest])
    for row, wanted in zip(batched, alone, strict=True):
        assert_near(row, wanted[: shortest - 1], FLOAT64, "batched:")
    for side in ("left", "right"):
        rows, mask = padded(ids, lengths, side)
        found = log_likelihoods(model(rows, attention_mask=mask).logits, rows)
        for row, wanted in zip(found, alone, strict=True):
            start = len(row) - len(wanted) if side == "left" else 0
            assert_near(row[start : start + len(wanted)], wanted, FLOAT64, f"padded on the {side}:")


@pytest.mark.parametrize("mode", MODES)
@each_pair
def test_generation_with_a_cache_is_generation_without(variant: str, layout: str, heads: str, mode: str) -> None:
    """Rows of unequal length, padded on the left; the longer one comes to 18 positions on the way, where sums may begin."""
    model = wrapped(config_of(variant, layout, heads))
    rows, mask = padded(tokens(2, 13), (13, 6), "left")
    found = {}
    for cached in (True, False):
        settings = GenerationConfig(max_new_tokens=9, pad_token_id=0, use_cache=cached, **MODES[mode])
        torch.manual_seed(7)
        found[cached] = model.generate(
            rows, attention_mask=mask, generation_config=settings, return_dict_in_generate=True, output_logits=True
        )
    assert found[True].past_key_values is not None and found[False].past_key_values is None
    assert torch.equal(found[True].sequences, found[False].sequences)
    assert_near(torch.stack(found[True].logits), torch.stack(found[False].logits), FLOAT64)


@each_pair
@torch.no_grad()
def test_generation_continues_each_row_as_it_would_alone(variant: str, layout: str, heads: str) -> None:
    """Where all rows are padded too, to as many columns as the model has positions: what they take follows the text."""
    model = wrapped(config_of(variant, layout, heads, max_position_embeddings=21))
    lengths = (13, 6, 1)
    rows, mask = (nn.functional.pad(x, (8, 0)) for x in padded(tokens(3, 13), lengths, "left"))
    settings = GenerationConfig(max_new_tokens=8, pad_token_id=0, do_sample=False)
    together = model.generate(rows, attention_mask=mask, generation_config=settings)
    for row, n in enumerate(lengths):
        text = tokens(3, 13)[row : row + 1, :n]
        for _ in range(8):
            text = torch.cat([text, model(text).logits[:, -1:].argmax(-1)], dim=1)
        assert together[row, 21 - n :].tolist() == text[0].tolist()
