"""A training step of `standard` beside transformers' Qwen2ForCausalLM: `python -m benchmarks.training_step [nano] [70m]`.

Forward, backward, clipping and AdamW with the same weights, batch, optimiser and precision; Qwen2 in each of its kinds of
attention, the best of which counts. With `--compiled` both are compiled, ours in the part that a training compiles. Peak memory
is what PyTorch allocates beyond weights and optimiser state.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from transformers import Qwen2Config, Qwen2ForCausalLM

from benchmarks.timing import machine, ratio, table, take_turns
from deconattn.model import LanguageModel, ModelConfig, initialise

SHAPES: dict[str, dict[str, int]] = {
    "nano": {
        "vocab_size": 1024,
        "hidden_size": 64,
        "intermediate_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
    },
    "70m": {
        "vocab_size": 50304,
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_hidden_layers": 6,
        "num_attention_heads": 8,
    },
}
BATCH = {"nano": (8, 128), "70m": (8, 256)}
ROUNDS = {"nano": (12, 8), "70m": (6, 1)}  # rounds, steps a round
ATTENTION = ("sdpa", "eager")


def ours(shape: dict[str, int]) -> LanguageModel:
    """The model of this project."""
    model = LanguageModel(ModelConfig(**shape, max_position_embeddings=2048))
    initialise(model, 0)
    return model


def qwen(shape: dict[str, int], attention: str, weights: dict[str, Tensor]) -> nn.Module:
    """transformers' model of the same shape and weights."""
    config = Qwen2Config(
        **shape,
        num_key_value_heads=shape["num_attention_heads"],
        max_position_embeddings=2048,
        rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        tie_word_embeddings=False,
        use_cache=False,
        attn_implementation=attention,
    )
    model = Qwen2ForCausalLM(config)
    model.load_state_dict(weights)
    return model


def qwen_loss(model: nn.Module, ids: Tensor) -> Tensor:
    """The loss as transformers gives it."""
    return model(input_ids=ids, labels=ids).loss


def training_step(model: nn.Module, loss: Callable[[], Tensor], precision: str) -> Callable[[], float]:
    """One update; returns its loss."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def run() -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            value = loss()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return value.item()

    return run


def peak_bytes(run: Callable[[], object]) -> int:
    """The most that is allocated at a time above what was there before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        run()
    assert recorded.profiler is not None and recorded.profiler.kineto_results is not None
    events = [e for e in recorded.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def compare(name: str, precision: str, compiled: bool) -> list[str]:
    """One row of the table."""
    torch.compiler.reset()
    torch.manual_seed(0)
    shape = SHAPES[name]
    ids = torch.randint(0, shape["vocab_size"], BATCH[name])
    mine = ours(shape)
    if compiled:
        mine.model.compile()
    weights = {key: value.clone() for key, value in mine.state_dict().items()}
    steps = {"ours": training_step(mine, lambda: mine.loss(ids), precision)}
    for attention in ATTENTION:
        theirs = qwen(shape, attention, weights)
        if compiled:
            theirs.compile()
        steps[attention] = training_step(theirs, partial(qwen_loss, theirs, ids), precision)
    losses = {key: step() for key, step in steps.items()}
    memory = {key: peak_bytes(step) for key, step in steps.items()}
    seconds = take_turns(steps, *ROUNDS[name])
    best = min(ATTENTION, key=lambda key: min(seconds[key]))
    shortest, median = ratio(seconds, best, "ours")
    return [
        f"{name}, {BATCH[name][0]} × {BATCH[name][1]}, {precision}{', compiled' if compiled else ''}",
        best,
        f"{shortest:.2f}",
        f"{median:.2f}",
        f"{memory['ours'] / memory[best]:.2f}",
        f"{abs(losses['ours'] - losses[best]):.1e}",
    ]


def main() -> None:
    torch.set_num_threads(1)
    print(f"Measured on: {machine()}.\n")
    compiled = "--compiled" in sys.argv
    names = [name for name in sys.argv[1:] if name != "--compiled"] or list(SHAPES)
    rows = [compare(name, precision, compiled) for name in names for precision in ("float32", "bf16")]
    head = [
        "step",
        "Qwen2's best attention",
        "its time over ours, shortest",
        "median of rounds",
        "our peak memory over its",
        "losses apart",
    ]
    print(table(head, rows))


if __name__ == "__main__":
    main()
