"""Associative recall: the sequences, the loss of answers alone, and what a config may say; against plain readings of each."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from deconattn.config import ModelConfig
from deconattn.data.recall import distances, pairs_of, write_recall
from deconattn.data.table import TokenTable, heldout_rows
from deconattn.decoder import LanguageModel, initialise
from deconattn.evaluation.recall import hits, share
from deconattn.experiment.identity import Identity
from deconattn.experiment.load import load_settings
from deconattn.files import sha256_file
from deconattn.training.parallel import Loss
from tests.configs import RECALL, RIGHT, problems, recall_beside_text, write
from tests.project import ROOT

SETTINGS = {"kind": "recall", "pairs": [2, 3], "keys": 5, "values": 4, "sequences": 3000, "seed": 7}
LENGTH, SCORED = 14, (7, 9, 11, 13)


def make(folder: Path, budget: int | None = None, **more: Any) -> Path:
    folder.mkdir()
    write_recall(folder, SETTINGS | more, LENGTH, 0.02, budget)
    return folder


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("recall") / "tokens")


def rows_of(folder: Path) -> list[list[int]]:
    return [row.tolist() for row in pd.read_parquet(folder / "part-0000.parquet")["tokens"]]


def read(row: list[int]) -> tuple[dict[int, int], list[tuple[int, int, int]]]:
    """The pairs of a sequence, and of each query its position, how many pairs back its key was last seen, and the answer."""
    known: dict[int, int] = {}
    last: dict[int, int] = {}
    queries = []
    for place in range(len(row) // 2):
        key, value = row[2 * place : 2 * place + 2]
        if key in known:
            queries.append((2 * place, place - last[key], known[key]))
        else:
            assert not queries, "a pair behind a query"
            known[key] = value
        last[key] = place
    return known, queries


def test_answers_are_right_and_keys_differ(table: Path) -> None:
    rows = rows_of(table)
    for row in rows:
        known, queries = read(row)
        assert len(known) in (2, 3) and set(known) <= set(range(1, 6)) and set(known.values()) <= set(range(6, 10))
        assert [row[place + 1] for place, _, _ in queries] == [answer for _, _, answer in queries]
    assert pairs_of(np.array(rows)).tolist() == [len(read(row)[0]) for row in rows]
    far = [[0] * (7 - len(queries)) + [far for _, far, _ in queries] for _, queries in map(read, rows)]
    assert distances(np.array(rows)).tolist() == far


def test_all_choices_are_uniform(table: Path) -> None:
    """Counts stay within five standard deviations of equal shares."""
    rows = rows_of(table)
    read_rows = [(list(known), queries) for known, queries in map(read, rows)]
    choices = {
        "number of pairs": (2, [len(keys) for keys, _ in read_rows]),
        "a key": (5, [keys[1] for keys, _ in read_rows]),
        "a value": (4, [row[3] for row in rows]),
        "two keys": (20, [tuple(keys[:2]) for keys, _ in read_rows]),
        "the pair of the last query": (3, [k.index(row[-2]) for row, (k, _) in zip(rows, read_rows, strict=True) if len(k) > 2]),
    }  # fmt: skip
    for what, (number, drawn) in choices.items():
        counts, share_of = Counter(drawn), 1 / number
        assert len(counts) == number, what
        deviation = (len(drawn) * share_of * (1 - share_of)) ** 0.5
        assert all(abs(count - len(drawn) * share_of) < 5 * deviation for count in counts.values()), (what, counts)


def test_a_table_is_a_function_of_its_settings(table: Path, tmp_path: Path) -> None:
    files = ("part-0000.parquet", "heldout.parquet", "baselines.parquet")
    same, other = make(tmp_path / "same"), make(tmp_path / "other", seed=8)
    assert all(sha256_file(same / name) == sha256_file(table / name) for name in files)
    assert rows_of(other) != rows_of(table)
    assert rows_of(make(tmp_path / "cut", budget=14 * 100 + 13)) == rows_of(table)[:100]
    held = {tuple(row) for row in heldout_rows(table, LENGTH).tolist()}
    with TokenTable(table) as found:
        assert (found.rows, len(held), found.vocab_size) == (2940, 60, 10)
        assert tuple(range(1, LENGTH)[found.scored]) == SCORED


def test_guesses_are_scored_as_by_hand(table: Path) -> None:
    found = pd.read_parquet(table / "baselines.parquet").set_index(["baseline", "task"])["value"]
    for pairs in (2, 3):
        right = [
            list(known.values()).count(answer) / pairs
            for known, queries in (read(row) for row in heldout_rows(table, LENGTH).tolist())
            for _, _, answer in queries[-len(SCORED) :]
            if len(known) == pairs
        ]
        assert found["random_pair", f"recall_{pairs}"] == pytest.approx(np.mean(right))
        assert found["random_guess", f"recall_{pairs}"] == 0.25


def test_the_loss_is_that_of_the_answers_alone(table: Path) -> None:
    """Sum and gradient, against log-probabilities of one position at a time."""
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LanguageModel(ModelConfig(vocab_size=10, **sizes)).double()
    initialise(model, 0)
    rows = torch.tensor(rows_of(table)[:6])
    with TokenTable(table) as found:
        loss = Loss(model, "float32", found.scored)(rows)
    logits = model(rows)
    parts = [-torch.log_softmax(logits[n, at - 1], 0)[rows[n, at]] for n in range(6) for at in SCORED]
    expected = torch.stack(parts).sum()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    weights = list(model.parameters())
    for mine, theirs in zip(torch.autograd.grad(loss, weights), torch.autograd.grad(expected, weights), strict=True):
        torch.testing.assert_close(mine, theirs)
    right = hits(model, rows.numpy(), slice(6, 13, 2), 4)
    assert right.tolist() == [[logits[n, at - 1].argmax() == rows[n, at] for at in SCORED] for n in range(6)]


def test_the_error_of_a_share_counts_sequences() -> None:
    """Where all answers of a sequence are alike, the error is that of as many sequences; where each stands alone, binomial."""
    right, error = np.repeat([[True], [False], [True], [True]], 5, axis=1), pytest.approx((0.75 * 0.25 / 4) ** 0.5)
    assert share(right, np.ones_like(right)) == {"value": 0.75, "stderr": error, "items": 20}
    assert share(right, np.eye(4, 5, dtype=bool)) == {"value": 0.75, "stderr": error, "items": 4}


OWN = "    hidden_size: 16"
WRONG = [
    ("context_length: 14", "context_length: 15", "3: tokens.context_length: 15 is not allowed; must be even"),
    ("context_length: 14", "context_length: 6", "3: tokens.context_length: 6 is not allowed; must be even, and more"),
    ("pairs: [2, 3], keys: 5", "pairs: [2, 30]", "2: corpus: 16 keys are too few for 30 pairs"),
    ("keys: 5", "keys: 2", "2: corpus.keys: 2 keys are too few for 3 pairs"),
    ("grid:", "tokenizer: {kind: train, vocab_size: 300}\ngrid:", "12: tokenizer: a corpus of kind recall has no text"),
    ("grid:", "evaluation: {tasks: [copa]}\ngrid:", "12: evaluation: a corpus of kind recall has no text"),
    ("exhibits: {", "exhibits: {table1: {model: tiny}, ",
     "14: exhibits.table1.model: shows evaluations of tasks, and the corpus of model 'tiny' is of kind recall"),
    (OWN, f"    tokens: {{context_length: 14}}\n{OWN}",
     "6: models.tiny.tokens: is for a corpus of the model's own; must be left out"),
    (OWN, f"    corpus: {{kind: recall, pairs: [2]}}\n    tokens: {{context_length: 13}}\n{OWN}",
     "7: models.tiny.tokens.context_length: 13 is not allowed; must be even, and more than the 4 tokens"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "said"), WRONG)
def test_what_a_config_of_recall_may_not_say(old: str, new: str, said: str, tmp_path: Path) -> None:
    assert RECALL.count(old) == 1
    (line,) = problems(write(tmp_path, RECALL.replace(old, new)))
    assert line.startswith(f"{tmp_path / 'x.yaml'}:{said}")


def test_a_text_needs_what_recall_does_not(tmp_path: Path) -> None:
    text = RECALL.replace(RECALL.splitlines()[1], "corpus: {kind: folder, path: tests/data/mirror, names: [tales]}")
    said = [line.split(": ")[1:3] for line in problems(write(tmp_path, text))]
    assert said == [["tasks", "missing"], ["tokenizer", "missing"], ["evaluation", "missing"]]
    [line] = problems(write(tmp_path, RIGHT.replace("table1: {", "figure_recall: {")))
    assert "figure_recall.model: shows evaluations of recall, and the corpus of model 'tiny' is of kind folder" in line
    assert load_settings([write(tmp_path, RECALL)]).evaluation.tasks == []


def test_recall_beside_text_is_the_same_recall_and_the_same_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its runs and evaluations are those of a config of recall alone, and those of the text are of a config without it."""
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    monkeypatch.chdir(tmp_path)  # sums of the folder's files are written beneath the working directory
    both = Identity(load_settings([write(tmp_path, recall_beside_text())]))
    text = yaml.safe_load(recall_beside_text())
    del text["models"]["recall"], text["grid"][1], text["exhibits"]
    recall = yaml.safe_load(RECALL.replace("tiny", "recall"))
    recall["training"] = text["training"] | recall["training"]
    for config, model in ((text, "tiny"), (recall, "recall")):
        alone = Identity(load_settings([write(tmp_path, yaml.safe_dump(config))]))
        assert len(alone.runs) == {"tiny": 1, "recall": 2}[model]
        for stage in ("trainings", "evaluations"):
            of_model = {run: one.folder for run, one in getattr(both, stage).items() if run.model == model}
            assert of_model == {run: one.folder for run, one in getattr(alone, stage).items()}
        assert {one.folder for one in alone.baselines} <= {one.folder for one in both.baselines}
