"""What a model is evaluated as, beyond its training: re-weighted attention, and contexts longer than its positions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from deconattn import mixers
from deconattn.errors import UserError
from deconattn.evaluation.modes import in_mode
from deconattn.evaluation.run import evaluate_model
from tests.evaluation import files, heldout, tiny
from tests.mixers.cases import FLOAT64, SENSITIVE, assert_near, build, config_of, reference, tokens

UNLIMITED = [name for name in mixers.names() if mixers.find(name).side_stream is None]


@pytest.mark.parametrize("layout", ["uniform", "even"])
@torch.no_grad()
def test_reweighted_softplus_is_softplus_reweighted_with_the_same_weights(layout: str) -> None:
    """Of whole texts and token by token, against the other variant's model and the reference; then it is as it was."""
    config, ids = config_of("softplus", layout), tokens(2, 33)
    other = {**config, "variant": "softplus_reweighted"}
    (model, state), (twin, _) = build(config), build(other)
    twin.load_state_dict(model.state_dict())
    model.eval()
    plain = model(ids)
    with in_mode(model, "reweighted"):
        whole = model(ids)
        past = model.model.new_state()
        steps = [model.lm_head(model.model(part, state=past)) for part in (ids[:, :20], *ids[:, 20:].split(1, dim=1))]
    assert torch.equal(whole, twin.eval()(ids))
    assert_near(whole, reference(other, state, ids).logits, FLOAT64 * SENSITIVE["softplus_reweighted"])
    assert_near(torch.cat(steps, dim=1), whole, FLOAT64 * SENSITIVE["softplus_reweighted"])
    assert not torch.allclose(whole, plain, rtol=1e-2)
    assert torch.equal(model(ids), plain)


def test_reweighted_evaluations_are_those_of_the_other_variant(
    shared_data: Path, tokenizer: Path, tmp_path: Path
) -> None:
    """Choices, which continue decoding states, and whole texts; the order of modes changes nothing."""
    tasks, how = files(shared_data, "copa") | heldout(["So it went on. " * 20], tmp_path), {"limits": {"copa": 6}}
    model, other = tiny("softplus", "even"), tiny("softplus_reweighted", "even")
    other.load_state_dict(model.state_dict())
    _, samples = evaluate_model(model, tokenizer, tasks, modes=["reweighted", "full"], **how)
    found = {mode: [each["nll"] for each in samples if each["mode"] == mode] for mode in ("reweighted", "full")}
    for mode, alone in (("reweighted", other), ("full", model)):
        expected = [each["nll"] for each in evaluate_model(alone, tokenizer, tasks, **how)[1]]
        assert found[mode] == pytest.approx(expected, rel=1e-6)
    assert found["reweighted"] != pytest.approx(found["full"], rel=1e-3)


@pytest.mark.parametrize("variant", UNLIMITED)
def test_contexts_beyond_a_models_positions_are_read_as_by_a_model_that_has_them(
    variant: str, tokenizer: Path, tmp_path: Path
) -> None:
    tasks, how = heldout(["So it went on. " * 20], tmp_path), {"context_lengths": {"heldout": [16, 64]}}
    short, long = (tiny(variant, "even", max_position_embeddings=positions) for positions in (16, 64))
    long.load_state_dict(short.state_dict())
    (found, _), (expected, _) = (evaluate_model(model, tokenizer, tasks, **how) for model in (short, long))
    assert [row["value"] for row in found] == [row["value"] for row in expected]
    assert variant == "mlp" or found[0]["value"] != found[-3]["value"]


def test_a_side_stream_has_no_map_beyond_its_end(tokenizer: Path, tmp_path: Path) -> None:
    tasks = heldout(["So it went on. " * 20], tmp_path)
    with pytest.raises(UserError, match="longer than the side stream, which has 16 positions"):
        evaluate_model(
            tiny("rndembqk", max_position_embeddings=16), tokenizer, tasks, context_lengths={"heldout": [64]}
        )
