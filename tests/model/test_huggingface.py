"""What transformers may ask of the model beside what `tests/mixers` asks of every variant: ties, labels, refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from deconattn import DeconAttnConfig, DeconAttnForCausalLM, mixers
from deconattn.errors import UserError
from deconattn.huggingface import DeconAttnCache
from tests.mixers.cases import config_of, tokens, wrapped


def model_of(variant: str, layout: str = "uniform", **fields: Any) -> DeconAttnForCausalLM:
    return wrapped(config_of(variant, layout, max_position_embeddings=64, **fields), torch.float32)


def test_tied_embeddings_are_saved_once_and_stay_tied(tmp_path: Path) -> None:
    model = model_of("mlp", "even", tie_word_embeddings=True)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert loaded.lm_head.weight.data_ptr() == loaded.model.embed_tokens.weight.data_ptr()
    with torch.no_grad():
        assert torch.equal(loaded(tokens(2, 9)).logits, model(tokens(2, 9)).logits)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("layout", ["uniform", "even"])
@pytest.mark.parametrize("variant", mixers.names())
@torch.no_grad()
def test_a_rows_last_token_moves_no_logit_before_it(variant: str, layout: str, side: str) -> None:
    """At padding positions either, where labels that ignore only the padding would let the first token be read off."""
    model, rows = model_of(variant, layout), tokens(2, 12)
    mask = torch.ones_like(rows)
    mask[0, slice(0, 5) if side == "left" else slice(7, 12)] = 0
    last = 11 if side == "left" else 6
    other = rows.clone()
    other[0, last] = (other[0, last] + 1) % 97
    before, after = (model(ids, attention_mask=mask).logits for ids in (rows, other))
    assert torch.equal(before[0, :last], after[0, :last]) and torch.equal(before[1], after[1])
    assert not torch.equal(before[0, last], after[0, last])


def test_labels_give_the_mean_loss_of_what_is_not_ignored_or_the_sum_over_a_given_number() -> None:
    """With a number of items, batches of unequal size that are taken one after the other weigh each token the same."""
    model, rows = model_of("standard"), tokens(2, 12)
    labels = rows.clone()
    labels[0, :7] = -100
    output = model(rows, labels=labels)
    expected = torch.nn.functional.cross_entropy(output.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    torch.testing.assert_close(output.loss, expected)
    for items in (40, torch.tensor(40)):
        torch.testing.assert_close(model(rows, labels=labels, num_items_in_batch=items).loss, expected * 16 / 40)


@pytest.mark.parametrize("variant", ["standard", "nonapproximate", "rndembqk"])
def test_a_label_that_padding_would_predict_is_ignored(variant: str) -> None:
    """Labels as transformers' collator makes them: the text's tokens, the first one too, and −100 at the padding."""
    model, rows = model_of(variant, "even"), tokens(2, 12)
    mask = torch.ones_like(rows)
    mask[0, :5] = 0
    output = model(rows, attention_mask=mask, labels=rows.masked_fill(mask == 0, -100))
    ignored = rows.masked_fill(mask == 0, -100)
    ignored[0, 5] = -100
    expected = torch.nn.functional.cross_entropy(output.logits[:, :-1].flatten(0, 1), ignored[:, 1:].flatten())
    torch.testing.assert_close(output.loss, expected)
    torch.testing.assert_close(model(rows, attention_mask=mask, labels=rows).loss, expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    "imports",
    [
        "from transformers import AutoConfig, AutoModelForCausalLM; import deconattn",
        "import deconattn; from transformers.models.auto import AutoConfig, AutoModelForCausalLM",
    ],
)
def test_importing_the_package_is_enough_for_the_auto_classes(imports: str, tmp_path: Path) -> None:
    model_of("rndembqk", "even").save_pretrained(tmp_path)
    program = (
        f"{imports}\nprint(type(AutoConfig.from_pretrained({str(tmp_path)!r})).__name__, "
        f"type(AutoModelForCausalLM.from_pretrained({str(tmp_path)!r})).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["DeconAttnConfig", "DeconAttnForCausalLM"]


def test_what_cannot_be_honoured_is_refused() -> None:
    model = model_of("mlp")
    holes = torch.tensor([[1, 0, 1, 1]])
    with pytest.raises(ValueError, match="holes"):
        model(tokens(1, 4), attention_mask=holes)
    with pytest.raises(ValueError, match="inputs_embeds"):
        model(tokens(1, 4), inputs_embeds=torch.zeros(1, 4, 16))
    with pytest.raises(Exception, match="64 positions"):
        model_of("rndembqk")(tokens(1, 65))
    with pytest.raises(ValueError, match=r"no text in rows \[1\]"):
        model(tokens(3, 5), attention_mask=torch.tensor([[1], [0], [1]]).expand(3, 5))


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"variant": "standrd"}, "variant 'standrd' is not one of"), ({"layout": "evn"}, "did you mean 'even'")],
    ids=["variant", "layout"],
)
def test_a_configuration_that_fits_no_model_is_refused_where_it_is_made(
    fields: dict[str, Any], message: str, tmp_path: Path
) -> None:
    shape = config_of("standard")
    with pytest.raises(UserError, match=message):
        DeconAttnConfig(**shape | fields)
    DeconAttnConfig(**shape).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))
    with pytest.raises(UserError, match=message):
        AutoConfig.from_pretrained(tmp_path)


def test_transformers_trains_the_model(tmp_path: Path) -> None:
    """A step of SGD over two batches of unequal text moves weights along the gradient of the mean over all of it."""
    pytest.importorskip("accelerate")
    from transformers import Trainer, TrainingArguments

    model, reference = (model_of("rndembqk", "even").train() for _ in range(2))
    rows = tokens(4, 9)
    labels = rows.clone()
    labels[:2, :6] = -100
    arguments = TrainingArguments(
        str(tmp_path), max_steps=1, per_device_train_batch_size=2, gradient_accumulation_steps=2, report_to=[],
        use_cpu=True, disable_tqdm=True, optim="sgd", learning_rate=0.1, max_grad_norm=0.0, lr_scheduler_type="constant",
        save_strategy="no",
    )  # fmt: skip
    data = [{"input_ids": row, "labels": label} for row, label in zip(rows, labels, strict=True)]
    Trainer(model=model, args=arguments, train_dataset=data).train()
    reference(rows, labels=labels).loss.backward()
    before = dict(reference.named_parameters())
    moved = torch.cat([(p - before[name]).detach().flatten() for name, p in model.named_parameters()])
    wanted = torch.cat([
        -0.1 * (torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in before.values()
    ])  # fmt: skip
    assert (moved - wanted).norm() <= 1e-3 * wanted.norm()


@torch.no_grad()
def test_logits_are_kept_by_number_and_by_index() -> None:
    model, rows = model_of("staticembqk", "even"), tokens(2, 9)
    every = model(rows).logits
    torch.testing.assert_close(model(rows, logits_to_keep=2).logits, every[:, -2:])
    torch.testing.assert_close(model(rows, logits_to_keep=torch.tensor([5, 0])).logits, every[:, [5, 0]])
    a_row = torch.tensor([[1, 2], [8, 3]])
    torch.testing.assert_close(
        model(rows, logits_to_keep=a_row).logits, torch.stack([every[0, [1, 2]], every[1, [8, 3]]])
    )


@torch.no_grad()
def test_positions_may_be_given_where_they_are_the_models_own() -> None:
    model, rows = model_of("standard"), tokens(2, 6)
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1]])
    own = (mask.cumsum(1) - 1).clamp(min=0)
    expected = model(rows, attention_mask=mask, use_cache=True)
    found = model(rows, attention_mask=mask, position_ids=own, use_cache=True)
    assert torch.equal(found.logits, expected.logits)
    ahead = torch.arange(6)
    for shape in (ahead, ahead[None], ahead.expand(2, 6)):
        assert torch.equal(model(rows, position_ids=shape).logits, model(rows).logits)
    for wrong, more in (
        (ahead[None], {"attention_mask": mask}),
        (ahead[None] + 1, {}),
        (ahead[None, :3], {}),
        (torch.tensor([[0, 1, 2, 0, 1, 2]]), {}),
    ):
        with pytest.raises(ValueError, match="position_ids differ"):
            model(rows, position_ids=wrong, **more)
    with pytest.raises(ValueError, match="position_ids differ"):
        model(rows[:, :1], past_key_values=found.past_key_values, position_ids=torch.tensor([[6], [6]]))
    model(rows[:, :1], past_key_values=found.past_key_values, position_ids=torch.tensor([[6], [4]]))


def prefilled(model: DeconAttnForCausalLM, rows: torch.Tensor, **more: Any) -> DeconAttnCache:
    with torch.no_grad():
        return model(rows, use_cache=True, **more).past_key_values


@pytest.mark.parametrize("variant", ["standard", "mlp", "nonapproximate", "rndembqk"])
@torch.no_grad()
def test_a_mask_or_a_batch_at_odds_with_the_cache_is_refused(variant: str) -> None:
    model, rows = model_of(variant), tokens(2, 8)
    first, last = rows[:, :7], rows[:, 7:]
    mask = torch.ones(2, 8, dtype=torch.long)
    mask[:, :3] = 0
    with pytest.raises(ValueError, match=r"shows \[4, 4\] tokens a row .* which are \[7, 7\]"):
        model(last, attention_mask=mask, past_key_values=prefilled(model, first))
    with pytest.raises(ValueError, match=r"shows \[7, 7\] tokens a row .* which are \[4, 4\]"):
        cache = prefilled(model, first, attention_mask=mask[:, :7])
        model(last, attention_mask=torch.ones(2, 8), past_key_values=cache)
    with pytest.raises(ValueError, match="input_ids has 3 rows, the decoding state 2"):
        model(tokens(3, 1), past_key_values=prefilled(model, first))
    with pytest.raises(ValueError, match=r"shape \(2, 3\); .* \(2, 1\) or \(2, 8\)"):
        model(last, attention_mask=torch.ones(2, 3), past_key_values=prefilled(model, first))
    with pytest.raises(ValueError, match=r"shape \(2, 3\); .* \(2, 7\)"):
        model(first, attention_mask=torch.ones(2, 3))
    # All rows padded: the cache counts columns as masks do, and the model reads what stands in them.
    cache = prefilled(model, first, attention_mask=mask[:, :7])
    assert cache.get_seq_length() == 7
    found = model(last, attention_mask=mask, past_key_values=cache).logits
    torch.testing.assert_close(found, model(rows[:, 3:]).logits[:, -1:])
    assert cache.get_seq_length() == 8
    # What a row may see of the past is known, so that its new columns are enough.
    model(last, attention_mask=torch.ones(2, 1), past_key_values=cache)


@torch.no_grad()
def test_no_more_is_taken_back_than_was_seen() -> None:
    model, rows = model_of("standard"), tokens(2, 7)
    mask = torch.ones(2, 7, dtype=torch.long)
    mask[1, :4] = 0
    for cache, seen in ((prefilled(model, rows), 7), (prefilled(model, rows, attention_mask=mask), 3)):
        with pytest.raises(ValueError, match=f"50 tokens cannot be taken back: the shortest row has seen {seen}"):
            cache.crop(-50)
        assert cache.get_seq_length() == 7
        cache.crop(-2)
        assert cache.get_seq_length() == 5


@pytest.mark.slow
def test_compiled_generation_is_generation() -> None:
    """Past eight positions, a power of two, from where more of the side stream is needed."""
    model, rows = model_of("rndembqk", "even"), tokens(2, 7)
    settings = GenerationConfig(max_new_tokens=3, do_sample=False, pad_token_id=0)
    expected = model.generate(rows, generation_config=settings)
    torch.compiler.reset()
    model.forward = torch.compile(model.forward, backend="eager")
    assert torch.equal(model.generate(rows, generation_config=settings), expected)
