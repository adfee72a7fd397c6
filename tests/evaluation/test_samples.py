"""What samples.parquet says of each item: losses, lengths, windows, which choices were right."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from deconattn.evaluation.run import evaluate_model
from deconattn.evaluation.schema import SAMPLES
from tests.evaluation import files, tiny

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
        assert sample["nll"] == -sample["loglikelihoods"][0]
        assert (sample["words"], sample["bytes"]) == (1, len(last.encode()))
    _, others = evaluate_model(tiny("mlp"), tokenizer, tasks, limits=dict.fromkeys(tasks, 4))
    documents = [sample["document"] for sample in samples]
    assert [sample["document"] for sample in others] == [*documents[:4], *documents[12:16], *documents[24:28]]
    assert len(set(documents)) == 36, "a document is the same in every run"
