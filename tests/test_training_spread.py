"""One training on several processes: replicated, sharded, in micro-batches, and going on with another number of them."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import psutil
import pytest
import torch

from deconattn.errors import UserError
from deconattn.model import LanguageModel, ModelConfig, initialise
from deconattn.training.microbatch import bytes_kept, sequences_that_fit
from tests.training import CONTEXT, curve, disturb, make_run, train

pytestmark = pytest.mark.xdist_group("training")


def assert_same_curve(ours: Path, theirs: Path, updates: int = 20) -> None:
    """Losses and gradients of the first 20 updates agree to 1e-6, the rest up to what float32 rounding grows to."""
    for mine, other in zip(curve(ours), curve(theirs), strict=True):
        budget = 1e-6 if mine["step"] <= updates else 1e-4
        assert mine["loss"] == pytest.approx(other["loss"], abs=budget)
        assert mine["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-5 if mine["step"] <= updates else 1e-3)
        if other["heldout_loss"] is not None:
            assert mine["heldout_loss"] == pytest.approx(other["heldout_loss"], abs=1e-4)


@pytest.mark.parametrize(
    ("options", "processes"),
    [
        pytest.param((), 2, id="two processes"),
        pytest.param(("--micro-batch-size", "1"), 1, id="micro-batches"),
        pytest.param(("--micro-batch-size", "1"), 2, id="two processes, micro-batches"),
        pytest.param(("--sharding", "full"), 2, id="sharded"),
        pytest.param(("--sharding", "full", "--micro-batch-size", "1"), 2, id="sharded, micro-batches"),
    ],
)
def test_however_it_is_spread_it_is_the_same_training(
    options: tuple[str, ...], processes: int, undisturbed: Path, token_table: Path, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "undisturbed")
    done = train(run, token_table, *options, processes=processes)
    assert done.returncode == 0 and "Warning" not in done.stderr, done.stderr
    assert_same_curve(run, undisturbed)


@pytest.mark.parametrize(
    ("first", "then"),
    [((1, "none"), (2, "none")), ((2, "full"), (1, "none")), ((2, "none"), (2, "full"))],
    ids=["1 → 2", "2 sharded → 1", "2 → 2 sharded"],
)
def test_it_goes_on_with_other_processes(
    first: tuple[int, str], then: tuple[int, str], undisturbed: Path, token_table: Path, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "undisturbed")
    code, said = disturb(
        run, token_table, signal.SIGTERM, lambda: list(run.glob("checkpoints/step-*")),
        "--checkpoint-minutes", "0", "--sharding", first[1], processes=first[0],
    )  # fmt: skip
    assert code == 75, said
    done = train(run, token_table, "--sharding", then[1], processes=then[0])
    assert done.returncode == 0 and "resumed after step" in done.stderr, done.stderr
    assert_same_curve(run, undisturbed)


def test_a_sharded_training_that_diverges_names_the_layer(token_table: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "diverges", peak_learning_rate=1e30)
    done = train(run, token_table, "--sharding", "full", processes=2)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "not finite at step 2; the largest score before the softmax, in layer 1 of 4" in done.stderr


def model(layers: int = 4) -> LanguageModel:
    sizes = {"vocab_size": 512, "hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4}
    found = LanguageModel(
        ModelConfig(**sizes, num_hidden_layers=layers, max_position_embeddings=256, variant="rndembqk")
    )
    initialise(found, 0)
    return found


def test_the_micro_batch_grows_with_memory_and_divides_the_share() -> None:
    small = model()
    state = 16 * sum(parameter.numel() for parameter in small.parameters())
    each = bytes_kept(small, 3, 128, False) - bytes_kept(small, 2, 128, False)
    # Linear in the batch, but for some padding: what one and two keep tells what more keep.
    assert each == pytest.approx(bytes_kept(small, 2, 128, False) - bytes_kept(small, 1, 128, False), rel=1e-3)
    found = [
        sequences_that_fit(small, 12, 128, int((state + count * each) / 0.85), 1, False) for count in (3, 5, 8, 14, 99)
    ]
    assert found == sorted(found) and set(found) <= {1, 2, 3, 4, 6, 12} and found[0] < found[-1] == 12
    with pytest.raises(UserError, match="no micro-batch fits: weights and optimiser take 0.0 GB"):
        sequences_that_fit(small, 12, 128, state, 1, False)
    # Sharded over four, the state takes a quarter.
    assert sequences_that_fit(small, 12, 128, int((state / 4 + 8 * each) / 0.85), 4, False) >= 6


def test_what_a_forward_keeps_is_what_memory_grows_by() -> None:
    """The count against the process' own memory, for a forward that is held on to."""
    big, length = model(layers=8), 256
    bytes_kept(big, 1, length, False)  # what a first call allocates once
    process = psutil.Process()
    before = process.memory_info().rss
    loss = big.loss(torch.zeros(24, length, dtype=torch.long), reduction="sum")
    grown = process.memory_info().rss - before
    assert grown == pytest.approx(bytes_kept(big, 24, length, False), rel=0.35)
    del loss


def test_a_micro_batch_from_memory_is_said_and_trains_the_same(
    undisturbed: Path, token_table: Path, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "undisturbed")
    spec = json.loads((run / "spec.json").read_text())
    small = LanguageModel(ModelConfig.from_dict({**spec["model"], "vocab_size": 320}))
    state = 16 * sum(parameter.numel() for parameter in small.parameters())
    room_for_three = (state + bytes_kept(small, 3, CONTEXT, False)) / 0.85
    done = train(run, token_table, "--device-memory-gb", str(room_for_three / 1e9))
    assert done.returncode == 0, done.stderr
    said = next(line for line in done.stderr.splitlines() if "micro-batches of" in line)
    assert "micro-batches of 2 of 4 sequences" in said  # three do not divide four
    assert_same_curve(run, undisturbed)
