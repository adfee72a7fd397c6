"""Settings to runs: the paper's grid, counted by hand from its tables and figures, and what each run is made of."""

from __future__ import annotations

import pytest

from deconattn.errors import UserError
from deconattn.experiment import grid
from deconattn.experiment.grid import Run
from deconattn.experiment.identity import Identity
from deconattn.experiment.settings import load_settings
from tests.conftest import ROOT

SIX = {"mlp", "approximate", "nonapproximate", "rndembqk", "fixedseqqk", "staticembqk"}
NINE = {"even", "odd", "top", "middle", "bottom", "quarter", "first", "last", "bilateral"}


@pytest.fixture
def load(monkeypatch):
    monkeypatch.chdir(ROOT)
    return lambda name, **overrides: load_settings([f"config/{name}.yaml"], overrides)


def test_the_paper_is_65_runs(load):
    """3 × (standard + 6 × 2) = 39; Figure 3: 2 × 9 less the 2 even ones of these = 16; Tables 2, 3: 2 × 5 = 10."""
    runs = grid.runs(load("paper"))
    assert len(runs) == len(set(runs)) == 65
    expected = {Run(model, "standard", "uniform", 0) for model in ("70m", "160m", "500m", "500m-gqa", "1.7b")}
    for model in ("70m", "160m", "500m"):
        expected |= {Run(model, variant, layout, 0) for variant in SIX for layout in ("uniform", "even")}
    for variant in ("rndembqk", "nonapproximate"):
        expected |= {Run("500m", variant, layout, 0) for layout in NINE}
        expected |= {Run(model, variant, layout, 0) for model in ("500m-gqa", "1.7b") for layout in ("uniform", "even")}
    assert set(runs) == expected


def test_the_demo_is_13_runs(load):
    runs = grid.runs(load("demo"))
    assert runs[0] == Run("nano", "standard", "uniform", 0)
    assert {(run.variant, run.layout) for run in runs[1:]} == {(v, lay) for v in SIX for lay in ("uniform", "even")}
    assert len(runs) == 13


def test_the_test_config_is_tiny(load):
    assert [(r.variant, r.layout) for r in grid.runs(load("test"))] == [
        ("standard", "uniform"),
        ("mlp", "uniform"),
        ("rndembqk", "even"),
    ]


def test_runs_keep_the_order_of_the_grid_and_come_once(load):
    blocks = [
        {"models": ["tiny"], "variants": ["mlp", "standard"], "layouts": ["even", "uniform"], "seeds": [1, 0]},
        {"models": ["tiny"], "variants": ["standard", "mlp"], "layouts": ["odd", "even"]},
    ]
    settings = load("test", grid=blocks)
    assert grid.runs(settings) == [
        Run("tiny", "mlp", "even", 1),
        Run("tiny", "mlp", "even", 0),
        Run("tiny", "mlp", "uniform", 1),
        Run("tiny", "mlp", "uniform", 0),
        Run("tiny", "standard", "uniform", 1),
        Run("tiny", "standard", "uniform", 0),
        Run("tiny", "mlp", "odd", 0),
    ]


def test_models_are_the_papers(load):
    settings = load("paper")
    heads = {
        name: grid.model_fields(settings, Run(name, "standard", "uniform", 0))["num_key_value_heads"]
        for name in settings.models
    }
    assert heads == {"70m": 8, "160m": 12, "500m": 14, "500m-gqa": 2, "1.7b": 16}
    assert grid.model_fields(settings, Run("1.7b", "rndembqk", "even", 0)) == {
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "max_position_embeddings": 2048,
        "rope_theta": 1e6,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "initializer_range": 0.02,
        "qk_norm": True,
        "attention_bias": False,
        "pad_vocabulary_to": 128,
        "variant": "rndembqk",
        "layout": "even",
    }
    assert grid.model_fields(settings, Run("70m", "mlp", "even", 0))["attention_bias"] is True


def test_a_bias_is_where_there_is_no_norm(load):
    settings = load("test", models={"tiny": {"qk_norm": True}})
    assert grid.model_fields(settings, grid.runs(settings)[0])["attention_bias"] is False
    settings = load("test", models={"tiny": {"qk_norm": True, "attention_bias": True}})
    assert grid.model_fields(settings, grid.runs(settings)[0])["attention_bias"] is True


def test_training_is_the_papers(load):
    settings = load("paper")
    small, large = grid.training_of(settings, "500m"), grid.training_of(settings, "1.7b")
    assert small.model_dump() == {
        "steps": 28_610,
        "tokens": None,
        "sequences_per_step": 256,
        "peak_learning_rate": 4e-4,
        "warmup_steps": 2000,
        "betas": [0.9, 0.9999],
        "eps": 1e-8,
        "weight_decay": 0.1,
        "gradient_clip": 1.0,
        "precision": "bf16",
        "heldout_every": 1000,
        "heldout_documents": 500,
        "on_divergence": "record",
    }
    assert (large.steps, large.peak_learning_rate) == (85_831, 3e-4)
    assert large.model_copy(update={"steps": 28_610, "peak_learning_rate": 4e-4}) == small


def test_the_corpus_is_long_enough_for_the_longest_training(load):
    settings = load("paper")
    longest = max(grid.training_of(settings, model).steps or 0 for model in settings.models) * 256 * 2048
    assert settings.tokens.budget is not None
    assert settings.tokens.budget * (1 - settings.tokens.heldout_fraction) > longest


def test_a_models_own_length_replaces_the_general_one_in_either_unit(load):
    own = {"tiny": {"training": {"tokens": 3_000, "betas": [0.8, 0.9]}}}
    training = grid.training_of(load("test", models=own), "tiny")
    assert (training.steps, training.betas, training.warmup_steps) == (23, [0.8, 0.9], 2)  # 3000 / (4 × 32) = 23.4
    own = {"tiny": {"training": {"steps": None, "eps": 1e-6}}}
    assert grid.training_of(load("test", models=own), "tiny").steps == 12


def test_resources_of_a_model_are_its_own_over_the_general_ones(load):
    settings = load("paper")
    assert grid.resources_of(settings, "70m").processes == 4
    large = grid.resources_of(settings, "1.7b")
    assert (large.processes, large.compile) == (8, True)
    settings = load("paper", resources={"1.7b": {"micro_batch_size": 4}})
    changed = grid.resources_of(settings, "1.7b")
    assert (changed.micro_batch_size, changed.processes) == (4, 8)
    assert grid.resources_of(settings, "70m").micro_batch_size is None


@pytest.mark.parametrize(
    ("exhibit", "models", "count"),
    [
        ("table1", {"500m"}, 13),
        ("table2", {"1.7b"}, 5),
        ("table3", {"500m-gqa"}, 5),
        ("table4", {"500m"}, 13),
        ("figure1", {"500m"}, 11),
        ("figure2", {"500m"}, 4),
        ("figure3", {"500m"}, 19),
        ("figure4", {"70m", "160m", "500m"}, 39),
        ("figure5", {"70m", "160m", "500m"}, 39),
        ("figure6", {"500m"}, 4),
        ("figure7", {"500m"}, 11),
        ("figure8", {"500m"}, 11),
    ],
)
def test_runs_of_each_exhibit_of_the_paper(load, exhibit, models, count):
    settings = load("paper")
    runs = grid.runs_of_exhibit(settings, exhibit)
    assert len(runs) == len(set(runs)) == count
    assert {run.model for run in runs} == models
    assert [run for run in grid.runs(settings) if run in runs] == runs


def test_the_exhibits_of_the_paper_need_every_run_and_no_other(load):
    settings = load("paper")
    needed = {run for exhibit in settings.exhibits for run in grid.runs_of_exhibit(settings, exhibit)}
    assert needed == set(grid.runs(settings))
    assert len(settings.exhibits) == 17


def test_exhibits_of_costs_need_no_run(load):
    assert set(grid.COSTED) <= set(load("paper").exhibits)
    assert not any(grid.runs_of_exhibit(load("paper"), exhibit) for exhibit in grid.COSTED)


def test_figure_3_shows_nine_layouts_of_its_variants_and_standard(load):
    runs = grid.runs_of_exhibit(load("paper", exhibits={"figure3": {"variants": ["rndembqk"]}}), "figure3")
    assert {(run.variant, run.layout) for run in runs} == {
        ("standard", "uniform"),
        *(("rndembqk", lay) for lay in NINE),
    }


def test_an_exhibit_that_is_not_asked_for_is_an_error(load):
    with pytest.raises(UserError, match=r"^'table2' is not an exhibit of these settings; did you mean 'table8'\?"):
        grid.runs_of_exhibit(load("demo"), "table2")


def test_values_that_change_places_are_other_runs(load):
    """A learning rate of 2 behind 4 steps of warm-up is not one of 4 behind 2, whatever keeps values without names."""
    found = [
        set(Identity(load("test", training={"peak_learning_rate": rate, "warmup_steps": steps})).specs)
        for rate, steps in ((2, 4), (4, 2), (2, 4))
    ]
    assert found[0] == found[2] and not found[0] & found[1]
