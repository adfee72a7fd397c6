"""Evaluation: the harness' own numbers through a leaner path, windows, skips, limits."""

from __future__ import annotations

import logging
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from lm_eval.api.task import ConfigurableTask
from lm_eval.evaluator import evaluate as harness_evaluate
from lm_eval.tasks._yaml_loader import load_yaml
from tokenizers import Tokenizer
from transformers import Qwen2Config, Qwen2ForCausalLM

from deconattn.data.definitions import definition_path
from deconattn.evaluation.names import MULTIPLE_CHOICE
from deconattn.evaluation.run import evaluate_model
from deconattn.evaluation.tasks import build_task
from tests.conftest import slow
from tests.evaluation import VOCABULARY, files, heldout, hflm, tiny

logging.getLogger("lm_eval").setLevel(logging.ERROR)


@pytest.fixture(scope="module")
def qwen() -> Qwen2ForCausalLM:
    """A model of transformers' own, with the method that models of this project offer."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=2048, tie_word_embeddings=False, initializer_range=0.2,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config).eval()
    model.final_hidden = lambda ids: model.model(input_ids=ids).last_hidden_state
    return model


def native_task(name: str, path: Path, items: int, folder: Path) -> ConfigurableTask:
    """The task as a user of the harness would point it at a file of the first items."""
    first = folder / f"{name}.parquet"
    pq.write_table(pq.read_table(path).slice(0, items), first)
    config = load_yaml(definition_path(name))
    split = config.get("test_split") or config["validation_split"]
    for key in ("tag", "group", "task_list"):
        config.pop(key, None)
    config |= {"dataset_path": "parquet", "dataset_name": None}
    config["dataset_kwargs"] = {"data_files": {split: str(first)}, "cache_dir": str(folder / "cache")}
    for key in ("training_split", "validation_split", "test_split"):
        if config.get(key) != split:
            config[key] = None
    return ConfigurableTask(config=config)


@pytest.mark.parametrize(
    ("model", "name", "limit", "length"),
    [
        ("qwen", "copa", 10, 128),
        ("qwen", "boolq", 4, 32),  # prompts lose their beginning
        *slow(
            ("qwen", "sciq", 8, 128),
            ("qwen", "hellaswag", 4, 128),
            ("qwen", "wikitext", 1, 128),
            ("qwen", "lambada_openai", 10, 128),
            ("rndembqk even", "copa", 10, 128),
        ),
    ],
)
def test_numbers_are_those_of_hflm(
    model: str, name: str, limit: int, length: int, qwen: Any, shared_data: Path, tokenizer: Path, tmp_path: Path
) -> None:
    scored = qwen if model == "qwen" else tiny(*model.split())
    (path,) = files(shared_data, name).values()
    tasks = {"tasks": {name: native_task(name, path, limit, tmp_path)}, "groups": {}}
    native = harness_evaluate(hflm(scored, tokenizer, length), tasks, bootstrap_iters=100)
    rows, samples = evaluate_model(
        scored, tokenizer, {name: path}, limits={name: limit}, context_lengths={name: [length]}, batch_size=3
    )
    assert [row["metric"] for row in rows] == [*tasks["tasks"][name].aggregation()]
    for row in rows:
        assert row["value"] == pytest.approx(native["results"][name][f"{row['metric']},none"], rel=1e-5)
        error = native["results"][name][f"{row['metric']}_stderr,none"]
        assert row["stderr"] == (None if error == "N/A" else pytest.approx(error, rel=1e-5))
        assert row["items"] == limit
    theirs = sorted(native["samples"][name], key=lambda sample: sample["doc_id"])
    assert [sample["item"] for sample in samples] == [sample["doc_id"] for sample in theirs]
    for ours, sample in zip(samples, theirs, strict=True):
        expected = [r[0] if isinstance(r, tuple | list) else r for r in sample["filtered_resps"]]
        assert ours["loglikelihoods"] == pytest.approx(expected, rel=1e-5)
        if "acc" in sample:
            assert ours["correct"] == bool(sample["acc"])


def test_every_item_asks_what_the_harness_asks(shared_data: Path, tmp_path: Path) -> None:
    for name, path in files(shared_data, *MULTIPLE_CHOICE, "lambada_openai", "wikitext").items():
        ours, theirs = build_task(name, path, 30), native_task(name, path, 30, tmp_path)
        for task in (ours, theirs):
            task.set_config("num_fewshot", 0)
            task.build_all_requests()
        assert [request.args for request in ours.instances] == [request.args for request in theirs.instances], name
        targets = ([task.doc_to_target(item) for item in task.eval_docs] for task in (ours, theirs))
        assert next(targets) == next(targets), name


@torch.no_grad()
def nats(model: Any, tokens: list[int], start: int, length: int) -> float:
    """Log-likelihood of tokens[start:] in windows of `length`, each with one token before its own.

    The last window reaches back as far as it can, but not beyond `start` where there are several.
    """
    total = 0.0
    for begin in range(start, len(tokens), length):
        end = min(begin + length, len(tokens))
        first = begin - 1
        if end == len(tokens):
            first = max(0, end - 1 - length, start - 1 if end - start > length else 0)
        logprobs = model(torch.tensor([tokens[first : end - 1]])).logits[0].double().log_softmax(-1)
        total += sum(logprobs[at - 1 - first, tokens[at]].item() for at in range(begin, end))
    return total


def test_a_continuation_longer_than_the_context_is_scored_whole(qwen: Any, shared_data: Path, tokenizer: Path) -> None:
    tasks = files(shared_data, "piqa")
    _, samples = evaluate_model(qwen, tokenizer, tasks, limits={"piqa": 4}, context_lengths={"piqa": [5]}, batch_size=2)
    encode = Tokenizer.from_file(str(tokenizer / "tokenizer.json")).encode
    items = pq.read_table(tasks["piqa"]).slice(0, 4).to_pylist()
    for item, sample in zip(items, samples, strict=True):
        question = f"Question: {item['goal']}\nAnswer:"
        for choice, found in zip((item["sol1"], item["sol2"]), sample["loglikelihoods"], strict=True):
            expected = nats(qwen, encode(f"{question} {choice}").ids, len(encode(question).ids), 5)
            assert found == pytest.approx(expected, rel=1e-5)


def test_heldout_counts_words_and_bytes_of_the_text(tmp_path: Path, tokenizer: Path) -> None:
    texts = ["One morning — very early —\n\nthe sea was  grey.", "Ünïcödé too.", "So it went on. " * 20]
    path, model = heldout(texts, tmp_path), tiny()
    rows, samples = evaluate_model(model, tokenizer, path, context_lengths={"heldout": [16]}, batch_size=2)
    encode = Tokenizer.from_file(str(tokenizer / "tokenizer.json")).encode
    expected = [nats(model, [0, *encode(text).ids], 1, 16) for text in texts]  # 0 is the end-of-text token
    assert [sample["loglikelihoods"][0] for sample in samples] == pytest.approx(expected, rel=1e-5)
    for text, sample in zip(texts, samples, strict=True):
        assert len(sample["window_nlls"]) == -(-len(encode(text).ids) // 16)
        assert sum(sample["window_nlls"]) == pytest.approx(sample["nll"]) == -sample["loglikelihoods"][0]
        assert sample["bytes"] == len(text.encode())
    # Between runs of white space, as the harness splits: a trailing space ends in one more, empty word.
    words, size, lost = 10 + 2 + 81, sum(len(text.encode()) for text in texts), -sum(expected)
    assert {row["metric"]: row["value"] for row in rows} == pytest.approx(
        {"word_perplexity": math.exp(lost / words), "byte_perplexity": math.exp(lost / size),
         "bits_per_byte": lost / math.log(2) / size}, rel=1e-5,
    )  # fmt: skip
    assert [row["items"] for row in rows] == [3, 3, 3]


def test_limits_modes_and_context_lengths(shared_data: Path, tokenizer: Path, tmp_path: Path) -> None:
    tasks = files(shared_data, "copa") | heldout(["So it went on. " * 20, "The end."], tmp_path)
    model, modes = tiny("mlp", "even"), ("full", "skip", "skip_mixer")
    rows, samples = evaluate_model(
        model, tokenizer, tasks, modes=modes, limits={"copa": 7, "heldout": 1},
        context_lengths={"heldout": [16, 64], "copa": [32]},
    )  # fmt: skip
    counts = Counter((row["mode"], row["task"], row["context_length"], row["items"], row["limit"]) for row in rows)
    assert counts == {
        (mode, *rest): number
        for mode in modes
        for *rest, number in (("copa", 32, 7, 7, 1), ("heldout", 16, 1, 1, 3), ("heldout", 64, 1, 1, 3))
    }
    assert [sample["item"] for sample in samples if sample["task"] == "copa"] == [*range(7)] * 3
    assert model.skip is None and len({row["value"] for row in rows if row["metric"] == "word_perplexity"}) == 6
    ids = [0, *Tokenizer.from_file(str(tokenizer / "tokenizer.json")).encode("So it went on. " * 20).ids]
    for mode in modes:
        model.skip = None if mode == "full" else mode
        (found,) = [s["nll"] for s in samples if (s["mode"], s["task"], s["context_length"]) == (mode, "heldout", 16)]
        assert found == pytest.approx(-nats(model, ids, 1, 16), rel=1e-5)
    rows, _ = evaluate_model(tiny(), tokenizer, files(shared_data, "copa"), limits={"copa": 1000})
    assert (rows[0]["items"], rows[0]["limit"], rows[0]["context_length"]) == (100, 1000, 256)
