"""How fast the mixers are, beside softmax attention and beside their own plain forms: `python -m benchmarks.mixers`.

One layer's mixing of projected queries, keys and values, 8 heads of 64, float32, one thread; forward and backward in
training, one token in decoding. Every figure is a ratio within this run.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.timing import keep_memory, machine, ratio, table, take_turns
from deconattn import mixers
from deconattn.config import ModelConfig
from deconattn.mixers.approximate import taylor_weights
from deconattn.mixers.base import QKVMixer, future, scores
from deconattn.mixers.cache import CacheLengths

HEADS, SIZE = 8, 64
Mix = Callable[[Tensor, Tensor, Tensor], Tensor]


def mixer(variant: str) -> QKVMixer:
    """A mixer of the 70m shape."""
    shape = {"hidden_size": HEADS * SIZE, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": HEADS}
    found = mixers.find(variant)(ModelConfig(vocab_size=64, max_position_embeddings=16384, variant=variant, **shape))
    assert isinstance(found, QKVMixer)
    return found


def draw(batch: int, length: int, maps: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """q, k of `maps` rows (all, where None) and v of `batch` rows."""
    rows = batch if maps is None else maps
    q, k, v = (torch.randn(n, HEADS, length, SIZE) for n in (rows, rows, batch))
    return q, k, v


def both_ways(mix: Mix, *inputs: Tensor) -> Callable[[], object]:
    """Forward and backward, for a gradient that comes from elsewhere."""
    direction = torch.randn_like(inputs[2])

    def run() -> None:
        mix(*(x.detach().requires_grad_() for x in inputs)).backward(direction)

    return run


def softmax(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """PyTorch's attention over queries and keys expanded to the batch."""
    return F.scaled_dot_product_attention(q.expand_as(v), k.expand_as(v), v, is_causal=True)


def whole_taylor(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Taylor attention with its whole L × L map."""
    w = taylor_weights(scores(q, k)).masked_fill(future(q.shape[2], q.device), 0.0)
    return (w / w.sum(-1, keepdim=True)) @ v


def one_token(variant: str, batch: int, length: int) -> Callable[[], object]:
    """One step of decoding behind `length` tokens; the state does not grow, so that every step is the same."""
    mix = mixer(variant)
    with torch.inference_mode():
        state, none = mix.new_state(), CacheLengths.none(batch, torch.device("cpu"))
        mix.mix_step(*draw(batch, length - 1), state, none, None)
        past = none.after(length - 1)
        q, k, v = draw(batch, 1)

    def run() -> None:
        with torch.inference_mode():
            for _ in range(20):
                mix.mix_step(q, k, v, state, past, None)

    return run


def main() -> None:
    keep_memory()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"Measured on: {machine()}.\n")
    rows = [*running_mean(), *decoding(), *fixed(), *taylor()]
    print(table(["what", "bound", "shortest times", "median of rounds"], rows))


def line(what: str, bound: str, found: tuple[float, float]) -> list[str]:
    return [what, bound, f"{found[0]:.2f}", f"{found[1]:.2f}"]


def running_mean() -> list[list[str]]:
    mean, rows = mixer("nonapproximate").mix, []
    short, middle, long = (draw(1, length) for length in (512, 2048, 8192))
    once = both_ways(mean, *short)
    near = take_turns({"short": lambda: [once() for _ in range(16)], "long": both_ways(mean, *long)}, 9)
    rows.append(line("nonapproximate, time a token, L = 8192 over 512", "≤ 1.5", ratio(near, "long", "short")))
    far = take_turns({"softmax": both_ways(softmax, *middle), "mean": both_ways(mean, *middle)}, 9)
    rows.append(line("softmax over nonapproximate, L = 2048", "≥ 20", ratio(far, "softmax", "mean")))
    far = take_turns({"softmax": both_ways(softmax, *long), "mean": both_ways(mean, *long)}, 4)
    rows.append(line("softmax over nonapproximate, L = 8192", "≥ 50", ratio(far, "softmax", "mean")))
    return rows


def decoding() -> list[list[str]]:
    steps = take_turns({n: one_token("nonapproximate", 1, length) for n, length in (("near", 128), ("far", 4096))}, 30)
    rows = [line("nonapproximate, a step at L = 4096 over 128", "≤ 1.2", ratio(steps, "far", "near"))]
    steps = take_turns({n: one_token(n, 8, 4096) for n in ("standard", "nonapproximate")}, 9)
    rows.append(
        line(
            "keys and values over nonapproximate, a step, B = 8, L = 4096",
            "≥ 100",
            ratio(steps, "standard", "nonapproximate"),
        )
    )
    steps = take_turns({str(n): one_token("approximate", 1, n) for n in (2170, 2190)}, 15)
    rows.append(
        line("approximate, a step from sums over one from keys, at the switch", "", ratio(steps, "2190", "2170"))
    )
    return rows


def fixed() -> list[list[str]]:
    inputs = draw(8, 512, maps=1)
    turns = take_turns(
        {"one map": both_ways(mixer("rndembqk").mix, *inputs), "softmax": both_ways(softmax, *inputs)}, 9
    )
    return [line("one map for the batch over softmax, B = 8, L = 512", "≤ 0.6", ratio(turns, "one map", "softmax"))]


def taylor() -> list[list[str]]:
    inputs = draw(1, 2048)
    turns = take_turns(
        {"blocks": both_ways(mixer("approximate").mix, *inputs), "whole": both_ways(whole_taylor, *inputs)}, 6
    )
    return [line("approximate over its whole L × L form, L = 2048", "≤ 0.55", ratio(turns, "blocks", "whole"))]


if __name__ == "__main__":
    main()
