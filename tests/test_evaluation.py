"""Evaluation: the harness' own numbers through a leaner path, skips, limits, models that are not finite."""

from __future__ import annotations

import json
import logging
import math
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tokenizers
import torch
from lm_eval.api.task import ConfigurableTask
from lm_eval.evaluator import evaluate as harness_evaluate
from lm_eval.tasks._yaml_loader import load_yaml
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from deconattn.cli import main
from deconattn.data.tasks import definition_path
from deconattn.errors import UserError
from deconattn.evaluation.baselines import baseline_rows
from deconattn.evaluation.harness import evaluate, evaluate_model, load_model
from deconattn.evaluation.names import METRICS, MULTIPLE_CHOICE
from deconattn.evaluation.run import evaluate_run
from deconattn.evaluation.schema import EVALUATION, SAMPLES
from deconattn.evaluation.scoring import is_argmax
from deconattn.evaluation.tasks import build_task
from deconattn.huggingface import DeconAttnConfig, DeconAttnForCausalLM
from tests.conftest import skip_or_fail

VOCABULARY = 50_304
CONTEXT = 128
logging.getLogger("lm_eval").setLevel(logging.ERROR)
os.environ["DISABLE_MULTIPROC"] = "1"  # the harness' own switch: no pool of processes for a bootstrap


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tokenizer(shared_data: Path) -> Path:
    return shared_data / "tokenizer"


@pytest.fixture(scope="module")
def tiny_qwen() -> Qwen2ForCausalLM:
    """A model of transformers' own; weights wide enough that choices differ clearly."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        initializer_range=0.2,
    )
    return Qwen2ForCausalLM(config).eval()


def tiny(variant: str = "standard", layout: str = "uniform", **fields: Any) -> DeconAttnForCausalLM:
    torch.manual_seed(1)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 2} | fields
    config = DeconAttnConfig(
        vocab_size=VOCABULARY,
        max_position_embeddings=256,
        initializer_range=0.2,
        variant=variant,
        layout=layout,
        **shape,
    )
    return DeconAttnForCausalLM(config).eval()


def files(shared_data: Path, *tasks: str) -> dict[str, Path]:
    return {task: shared_data / "tasks" / f"{task}.parquet" for task in tasks}


def native_task(name: str, path: Path, cache: Path) -> ConfigurableTask:
    """The task as a user of the harness would point it at a local file, through the loading code of `datasets`."""
    config = load_yaml(definition_path(name))
    split = config.get("test_split") or config["validation_split"]
    for key in ("tag", "group", "task_list"):
        config.pop(key, None)
    config |= {"dataset_path": "parquet", "dataset_name": None}
    config["dataset_kwargs"] = {"data_files": {split: str(path)}, "cache_dir": str(cache)}
    for key in ("training_split", "validation_split", "test_split"):
        if config.get(key) != split:
            config[key] = None
    return ConfigurableTask(config=config)


def hflm(model: torch.nn.Module, tokenizer: Path, context_length: int) -> Any:
    try:
        from lm_eval.models.huggingface import HFLM
    except ImportError as error:
        skip_or_fail(f"the harness' HFLM cannot be imported: {error}")
    fast = PreTrainedTokenizerFast(tokenizer_file=str(tokenizer / "tokenizer.json"), eos_token="<|endoftext|>")
    return HFLM(pretrained=model, tokenizer=fast, max_length=context_length, batch_size=8)


def assert_equal_to_hflm(
    model: torch.nn.Module,
    tokenizer: Path,
    name: str,
    path: Path,
    limit: int,
    cache: Path,
    context_length: int = CONTEXT,
) -> None:
    native = harness_evaluate(
        hflm(model, tokenizer, context_length),
        {"tasks": {name: native_task(name, path, cache)}, "groups": {}},
        limit=limit,
        bootstrap_iters=100,
    )
    rows, samples = evaluate_model(
        model, tokenizer, {name: path}, limits={name: limit}, context_lengths={name: [context_length]}, batch_size=3
    )
    assert [row["metric"] for row in rows] == list(METRICS[name])
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


@pytest.mark.parametrize(
    ("name", "limit"),
    [("copa", 20), ("rte", 20), ("sciq", 20), ("hellaswag", 5), ("wikitext", 1), ("lambada_openai", 20)],
)
def test_numbers_are_those_of_hflm(
    name: str, limit: int, tiny_qwen: Qwen2ForCausalLM, shared_data: Path, tokenizer: Path, tmp_path: Path
) -> None:
    assert_equal_to_hflm(tiny_qwen, tokenizer, name, files(shared_data, name)[name], limit, tmp_path)


@pytest.mark.parametrize(("variant", "layout"), [("rndembqk", "even"), ("mlp", "uniform")])
def test_our_models_have_the_numbers_of_hflm(
    variant: str, layout: str, shared_data: Path, tokenizer: Path, tmp_path: Path
) -> None:
    assert_equal_to_hflm(tiny(variant, layout), tokenizer, "copa", files(shared_data, "copa")["copa"], 20, tmp_path)


def test_prompts_longer_than_the_context_lose_their_beginning_as_in_hflm(
    tiny_qwen: Qwen2ForCausalLM, shared_data: Path, tokenizer: Path, tmp_path: Path
) -> None:
    boolq = files(shared_data, "boolq")["boolq"]
    assert_equal_to_hflm(tiny_qwen, tokenizer, "boolq", boolq, 6, tmp_path, context_length=32)


def test_every_item_asks_what_the_harness_asks(shared_data: Path, tmp_path: Path) -> None:
    for name, path in files(shared_data, *MULTIPLE_CHOICE, "lambada_openai", "wikitext").items():
        ours, theirs = build_task(name, path, 30), native_task(name, path, tmp_path)
        for task in (ours, theirs):
            task.set_config("num_fewshot", 0)
            task.build_all_requests(limit=30)
        assert [request.args for request in ours.instances] == [request.args for request in theirs.instances], name
        assert [ours.doc_to_target(item) for item in ours.eval_docs] == [
            theirs.doc_to_target(item) for item in theirs.eval_docs.select(range(len(ours.eval_docs)))
        ], name


def test_a_continuation_longer_than_the_context_is_scored_whole(
    tiny_qwen: Qwen2ForCausalLM, shared_data: Path, tokenizer: Path
) -> None:
    length = 5
    path = files(shared_data, "piqa")["piqa"]
    _, samples = evaluate_model(
        tiny_qwen, tokenizer, {"piqa": path}, limits={"piqa": 4}, context_lengths={"piqa": [length]}, batch_size=2
    )
    encode = tokenizers.Tokenizer.from_file(str(tokenizer / "tokenizer.json")).encode
    items = pq.read_table(path).slice(0, 4).to_pylist()
    for item, sample in zip(items, samples, strict=True):
        for choice, found in zip((item["sol1"], item["sol2"]), sample["loglikelihoods"], strict=True):
            context = encode(f"Question: {item['goal']}\nAnswer:").ids
            tokens = context + encode(f"Question: {item['goal']}\nAnswer: {choice}").ids[len(context) :]
            expected, start = 0.0, len(context)
            while start < len(tokens):
                end = min(start + length, len(tokens))
                # The last window reaches back as far as it can; the others see the one token before them.
                first = max(0, end - 1 - length) if end == len(tokens) else start - 1
                if end == len(tokens) and len(tokens) - len(context) > length:
                    first = max(first, len(context) - 1)
                with torch.no_grad():
                    logprobs = tiny_qwen(torch.tensor([tokens[first : end - 1]])).logits[0].double().log_softmax(-1)
                expected += sum(logprobs[at - 1 - first, tokens[at]].item() for at in range(start, end))
                start = end
            assert found == pytest.approx(expected, rel=1e-5)


def test_limits_modes_and_context_lengths(shared_data: Path, tokenizer: Path) -> None:
    tasks = files(shared_data, "copa", "wikitext")
    rows, samples = evaluate_model(
        tiny("mlp", "even"), tokenizer, tasks, modes=["skip", "full"], limits={"copa": 7, "wikitext": 1},
        context_lengths={"wikitext": [64, 256], "copa": [32]},
    )  # fmt: skip
    counts = Counter((row["mode"], row["task"], row["context_length"], row["items"], row["limit"]) for row in rows)
    assert counts == {
        (mode, *rest): number
        for mode in ("full", "skip")
        for *rest, number in (("copa", 32, 7, 7, 1), ("wikitext", 64, 1, 1, 3), ("wikitext", 256, 1, 1, 3))
    }
    assert [sample["item"] for sample in samples if sample["task"] == "copa"] == [*range(7)] * 2
    perplexity = {(r["mode"], r["context_length"]): r["value"] for r in rows if r["metric"] == "word_perplexity"}
    assert len(set(perplexity.values())) == 4
    rows, _ = evaluate_model(tiny(), tokenizer, files(shared_data, "copa"), limits={"copa": 1000})
    assert (rows[0]["items"], rows[0]["limit"], rows[0]["context_length"]) == (100, 1000, 256)
    assert len(build_task("boolq", files(shared_data, "boolq")["boolq"], 1500).eval_docs) == 1500


def test_skip_is_the_model_of_the_standard_layers_alone(shared_data: Path, tokenizer: Path) -> None:
    hybrid, short = tiny("rndembqk", "even"), tiny("standard", num_hidden_layers=2)
    weights = {
        name: tensor for name, tensor in hybrid.state_dict().items() if ".layers." not in name and "side" not in name
    }
    for new, old in enumerate((1, 3)):  # layers 2 and 4 of the paper are standard
        prefix = f"model.layers.{old}."
        weights |= {
            f"model.layers.{new}.{name.removeprefix(prefix)}": tensor
            for name, tensor in hybrid.state_dict().items()
            if name.startswith(prefix)
        }
    short.load_state_dict(weights)
    assert_same_likelihoods(shared_data, tokenizer, hybrid, "skip", short)


def test_skip_mixer_is_the_model_whose_simple_mixers_say_nothing(shared_data: Path, tokenizer: Path) -> None:
    hybrid, silent = tiny("mlp", "even"), tiny("mlp", "even")
    silent.load_state_dict(hybrid.state_dict())
    with torch.no_grad():
        for layer in (0, 2):
            silent.model.layers[layer].self_attn.down_proj.weight.zero_()
    assert_same_likelihoods(shared_data, tokenizer, hybrid, "skip_mixer", silent)


def assert_same_likelihoods(
    shared_data: Path, tokenizer: Path, hybrid: DeconAttnForCausalLM, mode: str, reference: DeconAttnForCausalLM
) -> None:
    keywords: dict[str, Any] = {"limits": {"rte": 10}, "context_lengths": {"rte": [64]}}
    _, skipped = evaluate_model(hybrid, tokenizer, files(shared_data, "rte"), modes=["full", mode], **keywords)
    _, expected = evaluate_model(reference, tokenizer, files(shared_data, "rte"), **keywords)
    found = {m: [value for s in skipped if s["mode"] == m for value in s["loglikelihoods"]] for m in ("full", mode)}
    wanted = [value for sample in expected for value in sample["loglikelihoods"]]
    assert found[mode] == pytest.approx(wanted, rel=1e-5)
    assert found["full"] != pytest.approx(wanted, rel=1e-2)
    assert hybrid.skip is None


def test_a_model_of_nan_is_recorded_as_not_measured(shared_data: Path, tokenizer: Path) -> None:
    model = tiny()
    with torch.no_grad():
        model.model.norm.weight[3] = math.nan
    tasks = files(shared_data, "copa", "lambada_openai", "wikitext")
    rows, samples = evaluate_model(
        model,
        tokenizer,
        tasks,
        limits={"copa": 5, "lambada_openai": 5, "wikitext": 1},
        context_lengths=dict.fromkeys(tasks, [64]),
    )
    assert {row["metric"] for row in rows} == {
        "acc",
        "perplexity",
        "word_perplexity",
        "byte_perplexity",
        "bits_per_byte",
    }
    assert {(row["value"], row["stderr"], row["items"]) for row in rows} == {(None, None, 0)}
    assert {(sample["value"], sample["correct"], sample["prediction"]) for sample in samples} == {(None, None, None)}
    assert {value for sample in samples for value in sample["loglikelihoods"]} == {None}


def test_one_item_that_is_nan_takes_the_accuracy_away_but_not_the_others(shared_data: Path, tokenizer: Path) -> None:
    model = tiny()
    encode = tokenizers.Tokenizer.from_file(str(tokenizer / "tokenizer.json")).encode
    items = pq.read_table(files(shared_data, "copa")["copa"], columns=["premise", "choice1", "choice2"]).to_pylist()[:4]
    others = {token for at in (0, 1, 3) for text in items[at].values() for token in encode(text).ids}
    rare = max(set(encode(items[2]["premise"].strip()[:-1]).ids) - others)
    with torch.no_grad():
        model.model.embed_tokens.weight[rare] = math.nan
    rows, samples = evaluate_model(model, tokenizer, files(shared_data, "copa"), limits={"copa": 4})
    assert [sample["correct"] is None for sample in samples] == [False, False, True, False]
    assert (rows[0]["value"], rows[0]["items"]) == (None, 3)


def test_a_perplexity_beyond_floating_point_is_infinite(shared_data: Path, tokenizer: Path) -> None:
    model = tiny()
    with torch.no_grad():
        model.lm_head.weight *= 1e4
    tasks = files(shared_data, "lambada_openai", "wikitext")
    rows, samples = evaluate_model(
        model, tokenizer, tasks, limits={"lambada_openai": 5, "wikitext": 1}, context_lengths=dict.fromkeys(tasks, [64])
    )
    values = {(row["task"], row["metric"]): row for row in rows}
    for key in (("lambada_openai", "perplexity"), ("wikitext", "word_perplexity"), ("wikitext", "byte_perplexity")):
        assert (values[key]["value"], values[key]["stderr"]) == (math.inf, None)
    assert 1000 < values["wikitext", "bits_per_byte"]["value"] < math.inf
    assert values["lambada_openai", "acc"]["value"] == 0.0 and values["lambada_openai", "acc"]["items"] == 5
    assert samples[-1]["value"] == math.inf


def test_heldout_counts_words_and_bytes_of_the_text(tmp_path: Path, tokenizer: Path) -> None:
    texts = ["One morning — very early —\n\nthe sea was  grey.", "Ünïcödé too.", "So it went on. " * 40]
    path = tmp_path / "heldout.parquet"
    pq.write_table(pa.table({"text": texts, "tokens": pa.array([[1]] * 3, pa.list_(pa.uint16()))}), path)
    model = tiny()
    rows, samples = evaluate_model(model, tokenizer, {"heldout": path}, context_lengths={"heldout": [16]}, batch_size=2)
    encoded = [tokenizers.Tokenizer.from_file(str(tokenizer / "tokenizer.json")).encode(text).ids for text in texts]
    nats = []
    for ids in encoded:
        total = 0.0
        for start in range(0, len(ids), 16):
            end = min(start + 16, len(ids))
            first = max(0, end - 16) if end == len(ids) else start
            window = [0, *ids][first:end]  # 0 is the end-of-text token
            with torch.no_grad():
                logprobs = model(torch.tensor([window])).logits[0].double().log_softmax(-1)
            total += sum(logprobs[at - first, ids[at]].item() for at in range(start, end))
        nats.append(-total)
    assert [sample["loglikelihoods"][0] for sample in samples] == pytest.approx([-n for n in nats], rel=1e-5)
    words = (
        10 + 2 + 161
    )  # between runs of white space, as the harness splits: a trailing space ends in one more, empty word
    size = sum(len(text.encode()) for text in texts)
    expected = {"word_perplexity": math.exp(sum(nats) / words), "byte_perplexity": math.exp(sum(nats) / size),
                "bits_per_byte": sum(nats) / math.log(2) / size}  # fmt: skip
    assert {row["metric"]: row["value"] for row in rows} == pytest.approx(expected, rel=1e-5)
    assert [row["items"] for row in rows] == [3, 3, 3]


def test_argmax_of_ties_is_the_first() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randint(0, 3, (200, 7), generator=generator).float()
    target = torch.randint(0, 7, (200,), generator=generator)
    assert torch.equal(is_argmax(logits, target), logits.argmax(1) == target)
    assert not is_argmax(torch.full((1, 4), math.nan), torch.tensor([2])).item()


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiny-nonapproximate-even-s3-0123abcd"
    model = tiny("nonapproximate", "even")
    model.save_pretrained(folder / "model")
    spec = {
        "run": folder.name,
        "hash": "0123abcd",
        "seed": 3,
        "model": {"name": "tiny", **model.config.shape().to_dict()},
    }
    (folder / "spec.json").write_text(json.dumps(spec))
    return folder


def test_a_run_writes_its_tables_without_a_home_or_a_network(
    run_folder: Path, shared_data: Path, tokenizer: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o555)
    evaluation = {"tasks": ["rte", "copa"], "modes": ["full", "skip", "skip_mixer"], "limits": {"copa": 4, "rte": 3},
                  "context_lengths": {"copa": [64], "rte": [64]}}  # fmt: skip
    paths = {task: str(path) for task, path in files(shared_data, "copa", "rte", "boolq").items()}
    arguments = f"{str(run_folder)!r}, {str(tokenizer)!r}, {evaluation}, {paths}, 4, 'cpu'"
    call = f"from deconattn.evaluation.run import evaluate_run; evaluate_run({arguments})"
    keep = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "XDG_", "TRANSFORMERS_"))}
    environment = keep | {"HOME": str(home), "https_proxy": "http://127.0.0.1:9", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", call], env=environment, capture_output=True, text=True, timeout=120,
                          cwd=Path(__file__).parent.parent)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 6 and done.stderr == ""
    assert list(home.iterdir()) == []
    table = pq.read_table(run_folder / "evaluation.parquet")
    assert table.schema.equals(EVALUATION)
    rows = table.to_pylist()
    assert {(row["run"], row["model"], row["variant"], row["layout"], row["seed"]) for row in rows} == {
        (run_folder.name, "tiny", "nonapproximate", "even", 3)
    }
    assert [(row["mode"], row["task"], row["items"]) for row in rows] == [
        (mode, task, items) for mode in ("full", "skip", "skip_mixer") for task, items in (("rte", 3), ("copa", 4))
    ]
    samples = pq.read_table(run_folder / "samples.parquet")
    assert samples.schema.equals(SAMPLES)
    for row in rows:
        own = [s for s in samples.to_pylist() if (s["mode"], s["task"]) == (row["mode"], row["task"])]
        assert row["value"] == pytest.approx(sum(s["correct"] for s in own) / row["items"])
        assert all(s["correct"] == (s["target"] == s["prediction"]) for s in own)
    assert sorted(path.name for path in run_folder.iterdir()) == [
        "evaluation.parquet",
        "model",
        "samples.parquet",
        "spec.json",
    ]


def test_only_hybrids_are_skipped(run_folder: Path, shared_data: Path, tokenizer: Path, tmp_path: Path) -> None:
    spec = json.loads((run_folder / "spec.json").read_text())
    spec["model"]["layout"] = "uniform"
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    (tmp_path / "model").symlink_to(run_folder / "model")
    evaluation = {
        "tasks": ["copa"],
        "modes": ["full", "skip"],
        "limits": {"copa": 2},
        "context_lengths": {"copa": [64]},
    }
    evaluate_run(tmp_path, tokenizer, evaluation, files(shared_data, "copa"), 4, "cpu")
    assert pq.read_table(tmp_path / "evaluation.parquet")["mode"].to_pylist() == ["full"]


def test_bad_input_is_one_clear_line(run_folder: Path, shared_data: Path, tokenizer: Path, tmp_path: Path) -> None:
    good = files(shared_data, "copa")
    short = tmp_path / "short.parquet"
    pq.write_table(pa.table({"premise": ["It rained."]}), short)
    empty = tmp_path / "empty.parquet"
    pq.write_table(pq.read_table(good["copa"]).slice(0, 0), empty)
    broken = tmp_path / "broken.parquet"
    broken.write_text("PAR1")

    def attempt(match: str, tasks: dict[str, Path] = good, folder: Path = tokenizer, **keywords: Any) -> None:
        with pytest.raises(UserError, match=match) as caught:
            evaluate(run_folder / "model", folder, tasks, device="cpu", **keywords)
        assert "\n" not in str(caught.value)

    attempt("'copaa' is not a task; did you mean 'copa'", {"copaa": short})
    attempt("'skipp' is not an evaluation mode; did you mean 'skip'", modes=["skipp"])
    attempt("copa: context length 257 .* 1 to 256", context_lengths={"copa": [257]})
    attempt("copa: limit 0 ", limits={"copa": 0})
    attempt("nowhere.parquet: no such file", {"copa": tmp_path / "nowhere.parquet"})
    attempt("short.parquet: items of copa need the column choice1, choice2", {"copa": short})
    attempt("empty.parquet: no rows", {"copa": empty})
    attempt("broken.parquet: not a readable Parquet file", {"copa": broken})
    attempt("tokenizer.json: no such file", folder=tmp_path)
    with pytest.raises(UserError, match="no model there"):
        evaluate(tmp_path, tokenizer, good)
    with pytest.raises(UserError, match="no file of items is given for rte"):
        evaluate_run(run_folder, tokenizer, {"tasks": ["copa", "rte"]}, good)


def test_weights_that_cannot_be_read_are_one_line_with_their_file(tmp_path: Path) -> None:
    tiny().save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    whole = path.read_bytes()
    for content, said in (
        (whole[: len(whole) // 2], "not a whole safetensors file"),
        (b"", "not a whole"),
        (None, "no such"),
    ):
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(UserError, match=f"^{path}: {said}") as caught:
            load_model(tmp_path, "cpu")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", ["0", "-1", "many"])
def test_a_batch_size_that_cannot_be_is_refused(size: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "run", "tokenizer", '{"code": "", "files": {}}', "--batch-size", size]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"argument --batch-size: '{size}' is not a whole number of at least 1" in line


def test_baselines_of_multiple_choice(shared_data: Path) -> None:
    values = {(row["task"], row["baseline"]): row for row in baseline_rows(files(shared_data, *MULTIPLE_CHOICE))}
    items = {name: pq.read_table(path).to_pylist() for name, path in files(shared_data, *MULTIPLE_CHOICE).items()}
    golds = {
        name: [int(item["label"]) for item in items[name]] for name in ("boolq", "copa", "piqa", "rte", "hellaswag")
    }
    golds["arc_easy"] = [item["choices"]["label"].index(item["answerKey"]) for item in items["arc_easy"]]
    for name, gold in golds.items():
        assert values[name, "majority"]["value"] == pytest.approx(max(Counter(gold).values()) / len(gold)), name
        assert values[name, "majority"]["items"] == len(gold)
    chance = {name: 0.5 for name in ("boolq", "copa", "piqa", "rte")} | {"sciq": 0.25, "hellaswag": 0.25}
    chance["arc_easy"] = sum(1 / len(item["choices"]["text"]) for item in items["arc_easy"]) / 2376
    assert {name: values[name, "random_guess"]["value"] for name in MULTIPLE_CHOICE} == pytest.approx(chance)
    assert values["sciq", "majority"]["value"] == pytest.approx(
        0.25
    )  # the right choice always stands last: places are no classes


def test_baselines_of_perplexities_have_the_closed_form(shared_data: Path, tokenizer: Path) -> None:
    tasks = files(shared_data, "wikitext", "lambada_openai")
    limits = {"wikitext": 3, "lambada_openai": 50}
    values = {(row["task"], row["metric"]): row["value"] for row in baseline_rows(tasks, tokenizer, limits)}
    bpe = tokenizers.Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    size = 50_277
    targets = [" " + text.split(" ")[-1] for text in pq.read_table(tasks["lambada_openai"])["text"].to_pylist()[:50]]
    lengths = [len(bpe.encode(target).ids) for target in targets]
    assert values["lambada_openai", "perplexity"] == pytest.approx(size ** (sum(lengths) / 50))
    assert values["lambada_openai", "acc"] == pytest.approx(sum(size**-length for length in lengths) / 50)
    pages = pq.read_table(tasks["wikitext"])["page"].to_pylist()[:3]
    task = build_task("wikitext", tasks["wikitext"], 3)
    tokens = sum(len(bpe.encode(task.doc_to_target({"page": page})).ids) for page in pages)
    words = sum(len(page.split()) + page[0].isspace() + page[-1].isspace() for page in pages)
    assert values["wikitext", "word_perplexity"] == pytest.approx(size ** (tokens / words))
    assert values["wikitext", "bits_per_byte"] == pytest.approx(
        tokens * math.log2(size) / sum(len(p.encode()) for p in pages)
    )
    assert baseline_rows(tasks) == []
