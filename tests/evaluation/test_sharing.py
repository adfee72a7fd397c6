"""A context that several continuations share is read once: the numbers are those of each read whole, and HFLM's."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from deconattn.evaluation.scoring import BRANCHES, PADDING, HarnessModel, Request, batches
from tests.evaluation import VOCABULARY, hflm, tiny

LENGTH = 64
FORMS = [
    ("standard", "uniform", None),
    ("nonapproximate", "even", None),
    ("rndembqk", "even", None),
    ("approximate", "uniform", None),
    ("nonapproximate", "even", "skip"),
    ("nonapproximate", "even", "skip_mixer"),
]


def requests() -> list[Request]:
    """Contexts of many lengths with one continuation or several, of one token or more, some too long, some twice."""
    draw = random.Random(0)

    def tokens(count: int) -> list[int]:
        return [draw.randrange(VOCABULARY) for _ in range(count)]

    found: list[Request] = []
    for number, length in enumerate([1, 2, 3, 9, 17, 30, 31, 32, 33, 50, 60, 63, 70]):
        context, first = tokens(length), tokens(1)
        choices = [tokens(1 + draw.randrange(9)) for _ in range((1, 2, 4)[number % 3])]
        choices += [first + [0], first + [1], first] if number % 2 else []  # read alike but for the last token
        found += [(number, context, choice) for choice in choices]
    found += [("many", [7], tokens(1 + n % 4)) for n in range(BRANCHES + 3)]
    draw.shuffle(found)
    return found + found[:2]


@torch.no_grad()
def by_definition(model: Any, requests: list[Request]) -> list[tuple[float, bool]]:
    """Each request alone, through the whole model."""
    found = []
    for _, context, continuation in requests:
        read = (context + continuation)[-(LENGTH + 1) : -1]
        logprobs = model(torch.tensor([read])).logits[0, -len(continuation) :].double().log_softmax(-1)
        own = logprobs.gather(1, torch.tensor(continuation)[:, None]).sum().item()
        found.append((own, logprobs.argmax(1).tolist() == continuation))
    return found


@pytest.mark.parametrize(("variant", "layout", "skip"), FORMS)
def test_equal_to_the_plain_form_and_to_hflm(variant: str, layout: str, skip: str | None, tokenizer: Path) -> None:
    model, wanted = tiny(variant, layout, max_position_embeddings=80), requests()
    model.skip = skip
    lm = HarnessModel(model, tokenizer, LENGTH, batch_size=4)
    reads = []
    count = model.model.register_forward_hook(lambda _, given, __: reads.append(given[0].numel()))
    shared, in_shared = lm._loglikelihood_tokens(wanted), sum(reads)
    lm._decoder = None
    plain, in_plain = lm._loglikelihood_tokens(wanted), sum(reads) - in_shared
    count.remove()
    assert in_shared < 0.7 * in_plain, "contexts are read once"
    references = [plain, by_definition(model, wanted)]
    if variant == "standard":  # the definition is the same for all
        references.append(hflm(model, tokenizer, LENGTH)._loglikelihood_tokens(wanted, disable_tqdm=True))
    for reference in references:
        assert [value for value, _ in shared] == pytest.approx([value for value, _ in reference], rel=1e-5, abs=1e-4)
        assert [greedy for _, greedy in shared] == [greedy for _, greedy in reference]
    assert lm.shortened == 3


def test_bf16_is_near_float32(tokenizer: Path) -> None:
    model, wanted = tiny("rndembqk", "even", initializer_range=0.05), requests()
    scores = {}
    for precision in ("float32", "bf16"):
        lm = HarnessModel(model, tokenizer, LENGTH, batch_size=4, precision=precision)
        scores[precision] = [value for value, _ in lm._loglikelihood_tokens(wanted)]
        lm._decoder = None
        plain = [value for value, _ in lm._loglikelihood_tokens(wanted)]
        assert scores[precision] == pytest.approx(plain, rel=1e-5 if precision == "float32" else 5e-3)
    assert scores["bf16"] == pytest.approx(scores["float32"], rel=5e-3)
    assert scores["bf16"] != pytest.approx(scores["float32"], rel=1e-6)


def test_a_side_stream_is_never_asked_for_more_than_it_has(tokenizer: Path) -> None:
    """Rows of one batch count as long as its longest context and its longest continuation together."""
    model = tiny("rndembqk", max_position_embeddings=LENGTH)
    contexts = [[5] * length for length in (63, 60, 56, 52)]
    wanted: list[Request] = [
        (number, context, [n] * (LENGTH + 1 - len(context))) for number, context in enumerate(contexts) for n in (1, 2)
    ]
    found = HarnessModel(model, tokenizer, LENGTH, batch_size=8)._loglikelihood_tokens(wanted)
    expected = by_definition(model, wanted)
    assert [value for value, _ in found] == pytest.approx([value for value, _ in expected], rel=1e-5)


def test_batches_hold_little_padding() -> None:
    draw = random.Random(1)
    items = [draw.randrange(1, 100) for _ in range(500)]
    found = list(batches(items, lambda item: item, 30, lambda item: item, 1000))
    assert sorted(sum(found, [])) == sorted(items)
    for batch in found:
        tokens = max(batch) * len(batch)
        assert sum(batch) <= 1000 and tokens - sum(batch) <= max(30, PADDING * tokens)
    assert max(map(len, found)) > 20
    assert list(batches([5000], lambda item: item, 30, lambda item: item, 1000)) == [[5000]]
