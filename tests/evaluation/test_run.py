"""The evaluate stage: what a run leaves, models that are not finite, bad input, baselines."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from tokenizers import Tokenizer

from deconattn.errors import UserError
from deconattn.evaluation.baselines import baseline_rows
from deconattn.evaluation.names import MULTIPLE_CHOICE
from deconattn.evaluation.run import evaluate_model, evaluate_run
from deconattn.evaluation.schema import EVALUATION, SAMPLES
from deconattn.evaluation.tasks import build_task
from deconattn.pieces import Pieces
from tests.evaluation import files, heldout, tiny
from tests.project import ROOT

Scored = tuple[list[dict[str, Any]], list[dict[str, Any]]]


def scored(model: torch.nn.Module, shared_data: Path, folder: Path, **options: Any) -> Scored:
    """Rows and samples of a task of each kind."""
    tasks = files(shared_data, "copa", "lambada_openai") | heldout(["So it went on. " * 20, "The end."], folder)
    limits = {"copa": 5, "lambada_openai": 5}
    return evaluate_model(
        model, shared_data / "tokenizer", tasks, limits=limits, context_lengths=dict.fromkeys(tasks, [64]), **options
    )


def test_a_model_of_nan_is_recorded_as_not_measured_and_a_perplexity_beyond_floating_point_as_infinite(
    shared_data: Path, tmp_path: Path
) -> None:
    model = tiny()
    with torch.no_grad():
        model.lm_head.weight *= 1e4
    rows, samples = scored(model, shared_data, tmp_path)
    values = {(row["task"], row["metric"]): row for row in rows}
    for key in (("lambada_openai", "perplexity"), ("heldout", "word_perplexity"), ("heldout", "byte_perplexity")):
        assert (values[key]["value"], values[key]["stderr"]) == (math.inf, None)
    assert 1000 < values["heldout", "bits_per_byte"]["value"] < math.inf
    assert (values["lambada_openai", "acc"]["value"], values["lambada_openai", "acc"]["items"]) == (0.0, 5)
    assert samples[-1]["value"] == math.inf
    with torch.no_grad():
        model.model.norm.weight[3] = math.nan
    rows, samples = scored(model, shared_data, tmp_path)
    assert len(rows) == 6
    assert {(row["value"], row["stderr"], row["items"]) for row in rows} == {(None, None, 0)}
    for sample in samples:
        assert {sample["value"], sample["correct"], sample["prediction"], *sample["loglikelihoods"]} == {None}


def test_a_stopped_evaluation_goes_on_after_the_tasks_that_are_scored(shared_data: Path, tmp_path: Path) -> None:
    model, pieces = tiny(), Pieces(tmp_path / "pieces")
    rows, samples = scored(model, shared_data, tmp_path)

    def stopped_at_the_third(name: str, make: Callable[[], Any]) -> Any:
        if name.startswith("full-heldout"):
            raise KeyboardInterrupt
        return pieces(name, make)

    with pytest.raises(KeyboardInterrupt):
        scored(model, shared_data, tmp_path, keep=stopped_at_the_third)
    with torch.no_grad():
        model.lm_head.weight.zero_()  # what is scored from here on has other values
    rows_after, samples_after = scored(model, shared_data, tmp_path, keep=pieces)
    for found, expected in ((rows_after, rows), (samples_after, samples)):
        for one, other in zip(found, expected, strict=True):
            assert (one == other) == (one["task"] != "heldout")


def test_one_item_that_is_nan_takes_the_accuracy_away_but_not_the_others(shared_data: Path, tokenizer: Path) -> None:
    model = tiny()
    encode = Tokenizer.from_file(str(tokenizer / "tokenizer.json")).encode
    copa = files(shared_data, "copa")
    items = pq.read_table(copa["copa"], columns=["premise", "choice1", "choice2"]).to_pylist()[:4]
    others = {token for at in (0, 1, 3) for text in items[at].values() for token in encode(text).ids}
    rare = max(set(encode(items[2]["premise"].strip()[:-1]).ids) - others)
    with torch.no_grad():
        model.model.embed_tokens.weight[rare] = math.nan
    rows, samples = evaluate_model(model, tokenizer, copa, limits={"copa": 4})
    assert [sample["correct"] is None for sample in samples] == [False, False, True, False]
    assert (rows[0]["value"], rows[0]["stderr"], rows[0]["items"]) == (None, None, 3)


def test_a_run_writes_its_tables_without_a_home_or_a_network(
    shared_data: Path, tokenizer: Path, tmp_path: Path
) -> None:
    run, out, home = tmp_path / "tiny-nonapproximate-even-s3-0123abcd", tmp_path / "out", tmp_path / "home"
    model = tiny("nonapproximate", "even")
    model.save_pretrained(run / "model")
    spec = {"run": run.name, "seed": 3, "model": {"name": "tiny", **model.config.shape().to_dict()}}
    (run / "spec.json").write_text(json.dumps(spec))
    home.mkdir(0o555)
    evaluation = {"tasks": ["rte", "copa"], "modes": ["full", "skip", "skip_mixer"], "limits": {"copa": 4, "rte": 3},
                  "precision": "float32", "context_lengths": {"copa": [64], "rte": [64]}}  # fmt: skip
    paths = {task: str(path) for task, path in files(shared_data, "copa", "rte").items()}
    call = (
        "from pathlib import Path; from deconattn.evaluation.lm_eval_setup import set_up; set_up()\n"
        "from deconattn.evaluation.run import evaluate_run\n"
        f"evaluate_run(Path({str(run)!r}), {str(tokenizer)!r}, {evaluation}, {paths}, 4, 'cpu', Path({str(out)!r}))\n"
        "import sys; print({'transformers', 'torch._dynamo'} & set(sys.modules))"  # each takes seconds to import
    )
    keep = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "XDG_", "TRANSFORMERS_"))}
    environment = keep | {"HOME": str(home), "https_proxy": "http://127.0.0.1:9", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", call], env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    *lines, imported = done.stdout.splitlines()
    assert len(lines) == 6 and imported == "set()" and done.stderr == ""
    assert re.fullmatch(r"rte \(full, context 64\): acc .*3 items, 2 requests cut to the context", lines[0])
    assert list(home.iterdir()) == []
    table, samples = (pq.read_table(out / f"{name}.parquet") for name in ("evaluation", "samples"))
    assert table.schema.equals(EVALUATION) and samples.schema.equals(SAMPLES)
    rows, named = table.to_pylist(), ("run", "model", "variant", "layout", "seed")
    assert {tuple(row[name] for name in named) for row in rows} == {(run.name, "tiny", "nonapproximate", "even", 3)}
    assert [(row["mode"], row["task"], row["items"]) for row in rows] == [
        (mode, task, items) for mode in ("full", "skip", "skip_mixer") for task, items in (("rte", 3), ("copa", 4))
    ]
    for row in rows:
        own = [s for s in samples.to_pylist() if (s["mode"], s["task"]) == (row["mode"], row["task"])]
        assert row["value"] == pytest.approx(sum(s["correct"] for s in own) / row["items"])
        assert all(s["correct"] == (s["target"] == s["prediction"]) for s in own)
    assert sorted(path.name for path in out.iterdir()) == ["evaluation.parquet", "samples.parquet"]


def test_bad_input_is_one_clear_line(shared_data: Path, tokenizer: Path, tmp_path: Path) -> None:
    good = files(shared_data, "copa")
    (tmp_path / "broken.parquet").write_text("PAR1")
    for name, told in (("nowhere", "no such file"), ("broken", "not a readable Parquet file")):
        path = tmp_path / f"{name}.parquet"
        with pytest.raises(UserError, match=f"^{path}: {told}.*$"):
            evaluate_model(tiny(), tokenizer, {"copa": path})
    settings: dict[str, Any] = {"tasks": ["copa"], "modes": ["full"], "limits": {}, "context_lengths": {}}
    with pytest.raises(UserError, match="no model there"):
        evaluate_run(tmp_path, tokenizer, settings, good, 4, "cpu", tmp_path)


def test_baselines_of_multiple_choice(shared_data: Path) -> None:
    tasks, limits = files(shared_data, *MULTIPLE_CHOICE), dict.fromkeys(MULTIPLE_CHOICE, 300)
    values = {(row["task"], row["baseline"]): row for row in baseline_rows(tasks, limits=limits)}
    items = {name: pq.read_table(path).slice(0, 300).to_pylist() for name, path in tasks.items()}
    labelled = ("boolq", "copa", "piqa", "rte", "hellaswag")
    golds = {name: [int(item["label"]) for item in items[name]] for name in labelled}
    golds["arc_easy"] = [item["choices"]["label"].index(item["answerKey"]) for item in items["arc_easy"]]
    for name, gold in golds.items():
        assert values[name, "majority"]["value"] == pytest.approx(max(Counter(gold).values()) / len(gold)), name
        assert values[name, "majority"]["items"] == len(gold)
    chance = {name: 0.5 for name in ("boolq", "copa", "piqa", "rte")} | {"sciq": 0.25, "hellaswag": 0.25}
    chance["arc_easy"] = sum(1 / len(item["choices"]["text"]) for item in items["arc_easy"]) / 300
    assert {name: values[name, "random_guess"]["value"] for name in MULTIPLE_CHOICE} == pytest.approx(chance)
    # The right choice always stands last: places are no classes.
    assert values["sciq", "majority"]["value"] == pytest.approx(0.25)


def test_baselines_of_perplexities_have_the_closed_form(shared_data: Path, tokenizer: Path) -> None:
    tasks = files(shared_data, "wikitext", "lambada_openai")
    limits = {"wikitext": 3, "lambada_openai": 50}
    values = {(row["task"], row["metric"]): row["value"] for row in baseline_rows(tasks, tokenizer, limits)}
    encode = Tokenizer.from_file(str(tokenizer / "tokenizer.json")).encode
    size = 50_277
    targets = [" " + text.split(" ")[-1] for text in pq.read_table(tasks["lambada_openai"])["text"].to_pylist()[:50]]
    lengths = [len(encode(target).ids) for target in targets]
    assert values["lambada_openai", "perplexity"] == pytest.approx(size ** (sum(lengths) / 50))
    assert values["lambada_openai", "acc"] == pytest.approx(sum(size**-length for length in lengths) / 50)
    pages = pq.read_table(tasks["wikitext"])["page"].to_pylist()[:3]
    task = build_task("wikitext", tasks["wikitext"], 3)
    tokens = sum(len(encode(task.doc_to_target({"page": page})).ids) for page in pages)
    words = sum(len(page.split()) + page[0].isspace() + page[-1].isspace() for page in pages)
    size_in_bytes = sum(len(page.encode()) for page in pages)
    assert values["wikitext", "word_perplexity"] == pytest.approx(size ** (tokens / words))
    assert values["wikitext", "bits_per_byte"] == pytest.approx(tokens * math.log2(size) / size_in_bytes)
    assert baseline_rows(tasks) == []
