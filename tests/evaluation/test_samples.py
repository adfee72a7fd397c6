"""What samples.parquet says of each item: losses, lengths, windows, which choices were right."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer

from deconattn.evaluation.run import evaluate_model
from deconattn.evaluation.schema import SAMPLES
from tests.evaluation import files, heldout, tiny

RUN_AND_PLACE = {"run", "mode", "task", "context_length"}


def test_of_choices(shared_data: Path, tokenizer: Path) -> None:
    tasks = files(shared_data, "arc_easy", "hellaswag", "lambada_openai")
    rows, samples = evaluate_model(tiny(), tokenizer, tasks, limits=dict.fromkeys(tasks, 12))
    assert set(samples[0]) | RUN_AND_PLACE | {"window_nlls"} == set(SAMPLES.names)
    for task in ("arc_easy", "hellaswag"):
        own = [sample for sample in samples if sample["task"] == task]
        values = {row["metric"]: row["value"] for row in rows if row["task"] == task}
        for column, metric in (("correct", "acc"), ("correct_norm", "acc_norm")):
            assert values[metric] == pytest.approx(sum(sample[column] for sample in own) / 12)
        assert any(sample["correct"] != sample["correct_norm"] for sample in own), "the two are different things"
    items = pq.read_table(tasks["arc_easy"]).slice(0, 12).to_pylist()
    for item, sample in zip(items, samples, strict=False):
        right = item["choices"]["label"].index(item["answerKey"])
        text = " " + item["choices"]["text"][right]
        assert sample["nll"] == -sample["loglikelihoods"][right]
        assert (sample["words"], sample["bytes"]) == (len(text.split()), len(text.encode()))
    words = pq.read_table(tasks["lambada_openai"])["text"].to_pylist()[:12]
    for text, sample in zip(words, samples[24:], strict=True):
        last = " " + text.split(" ")[-1]
        assert (sample["nll"], sample["words"], sample["bytes"]) == (
            -sample["loglikelihoods"][0],
            1,
            len(last.encode()),
        )


def test_of_texts(tmp_path: Path, tokenizer: Path) -> None:
    texts = ["One morning, ünïcödé.", "So it went on. " * 20]
    path, model = heldout(texts, tmp_path), tiny()
    rows, samples = evaluate_model(model, tokenizer, path, context_lengths={"heldout": [16]})
    encode = Tokenizer.from_file(str(tokenizer / "tokenizer.json")).encode
    for text, sample in zip(texts, samples, strict=True):
        assert len(sample["window_nlls"]) == -(-len(encode(text).ids) // 16)
        assert sum(sample["window_nlls"]) == pytest.approx(sample["nll"]) == -sample["loglikelihoods"][0]
        assert sample["bytes"] == len(text.encode())
    bits = sum(sample["nll"] for sample in samples) / sum(sample["bytes"] for sample in samples)
    assert [row["value"] for row in rows if row["metric"] == "bits_per_byte"] == [
        pytest.approx(bits / 0.6931471805599453)
    ]


def test_a_document_is_the_same_in_every_run(shared_data: Path, tokenizer: Path) -> None:
    found = [
        [sample["document"] for sample in evaluate_model(
            model, tokenizer, files(shared_data, "copa"), limits={"copa": limit})[1]]
        for model, limit in ((tiny(), 6), (tiny("mlp"), 4))
    ]  # fmt: skip
    assert found[0][:4] == found[1] and len(set(found[0])) == 6
