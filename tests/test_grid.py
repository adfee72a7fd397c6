"""Settings to runs: the paper's grid, counted by hand from its tables and figures, and what each run is made of."""

from __future__ import annotations

import pytest

from deconattn.exhibits import EXHIBITS
from deconattn.experiment import grid
from deconattn.experiment.code import reach, roots_of
from deconattn.experiment.grid import Run
from deconattn.experiment.identity import Identity
from deconattn.experiment.load import load_settings
from deconattn.layouts import standard_layers
from tests.conftest import ROOT

SIX = {"mlp", "approximate", "nonapproximate", "rndembqk", "fixedseqqk", "staticembqk"}
NINE = {"even", "odd", "top", "middle", "bottom", "quarter", "first", "last", "bilateral"}


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Loads a committed config with overrides; what identities leave behind lies outside of the checkout."""
    for name in ("config", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return lambda name, **overrides: load_settings([f"config/{name}.yaml"], overrides)


def names(settings) -> list[str]:
    return [run.name for run in grid.runs(settings)]


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


def test_runs_keep_the_order_of_the_grid_and_come_once(load):
    blocks = [
        {"models": ["tiny"], "variants": ["mlp", "standard"], "layouts": ["even", "uniform"], "seeds": [1, 0]},
        {"models": ["tiny"], "variants": ["standard", "mlp"], "layouts": ["odd", "even"]},
    ]
    assert names(load("test", grid=blocks)) == [
        "tiny-mlp-even-s1", "tiny-mlp-even-s0", "tiny-mlp-uniform-s1", "tiny-mlp-uniform-s0",
        "tiny-standard-uniform-s1", "tiny-standard-uniform-s0", "tiny-mlp-odd-s0",
    ]  # fmt: skip


def test_models_are_the_papers(load):
    settings = load("paper")
    for name, heads in {"70m": 8, "160m": 12, "500m": 14, "500m-gqa": 2, "1.7b": 16}.items():
        assert grid.model_fields(settings, Run(name, "standard", "uniform", 0))["num_key_value_heads"] == heads
    assert grid.model_fields(settings, Run("1.7b", "rndembqk", "even", 0)) == {
        "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16,
        "num_key_value_heads": 16, "max_position_embeddings": 2048, "rope_theta": 1e6, "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False, "initializer_range": 0.02, "qk_norm": True, "attention_bias": False,
        "pad_vocabulary_to": 128, "variant": "rndembqk", "layout": "even",
    }  # fmt: skip
    assert grid.model_fields(settings, Run("70m", "mlp", "even", 0))["attention_bias"] is True


def test_a_bias_is_where_there_is_no_norm_or_where_it_is_asked_for(load):
    for fields, bias in (({}, False), ({"attention_bias": True}, True)):
        settings = load("test", models={"tiny": {"qk_norm": True, **fields}})
        assert grid.model_fields(settings, grid.runs(settings)[0])["attention_bias"] is bias


def test_training_is_the_papers(load):
    settings = load("paper")
    small, large = settings.trainings["500m"], settings.trainings["1.7b"]
    assert small.model_dump() == {
        "steps": 28_610, "tokens": None, "sequences_per_step": 256, "peak_learning_rate": 4e-4, "warmup_steps": 2000,
        "betas": [0.9, 0.9999], "eps": 1e-8, "weight_decay": 0.1, "gradient_clip": 1.0, "precision": "bf16",
        "heldout_every": 1000, "heldout_documents": 500, "on_divergence": "record",
    }  # fmt: skip
    assert (large.steps, large.peak_learning_rate) == (85_831, 3e-4)
    assert large.model_copy(update={"steps": 28_610, "peak_learning_rate": 4e-4}) == small
    trained_on = settings.tokens.budget * (1 - settings.tokens.heldout_fraction)
    assert trained_on > large.steps * 256 * 2048, "the corpus is long enough for the longest training"


def test_resources_of_a_model_are_its_own_over_the_general_ones(load):
    settings = load("paper", resources={"1.7b": {"micro_batch_size": 4}})
    small, large = grid.resources_of(settings, "70m"), grid.resources_of(settings, "1.7b")
    assert (small.processes, small.micro_batch_size) == (4, None)
    assert (large.processes, large.micro_batch_size, large.compile) == (8, 4, True)


def test_a_run_is_evaluated_in_the_modes_and_at_the_lengths_that_it_has(load):
    """Without a skip where nothing is skipped, re-weighted where that means something, and not beyond a side stream."""
    blocks = [{"models": ["tiny"], "variants": ["standard", "softplus", "rndembqk"], "layouts": ["uniform", "even"]}]
    lengths = {"context_lengths": {"heldout": [16, 32, 64]}, "modes": ["full", "skip", "skip_mixer", "reweighted"]}
    evaluations = Identity(load("test", grid=blocks, evaluation=lengths)).evaluations
    modes = {(run.variant, run.layout): one.spec["modes"] for run, one in evaluations.items()}
    skips = ["skip", "skip_mixer"]
    assert modes == {
        ("standard", "uniform"): ["full"], ("rndembqk", "uniform"): ["full"], ("rndembqk", "even"): ["full", *skips],
        ("softplus", "uniform"): ["full", "reweighted"], ("softplus", "even"): ["full", *skips, "reweighted"],
    }  # fmt: skip
    for run, one in evaluations.items():
        heldout = [16, 32] if run.variant == "rndembqk" else [16, 32, 64]
        assert one.spec["context_lengths"] == {"copa": [32], "rte": [32], "heldout": heldout}
        reached = reach(*roots_of(one.spec))["definitions"]
        assert ("deconattn.mixers.softplus_reweighted.SoftplusReweighted" in reached) == (run.variant == "softplus")


SIZES = {"70m", "160m", "500m"}
SHOWN = {
    "table_findings": (SIZES | {"1.7b", "500m-gqa"}, 49),
    "table1": ({"500m"}, 13), "table2": ({"1.7b"}, 5), "table3": ({"500m-gqa"}, 5), "table4": ({"500m"}, 13),
    "figure1": ({"500m"}, 11), "figure2": ({"500m"}, 2), "figure3": ({"500m"}, 19), "figure4": (SIZES, 39),
    "figure5": (SIZES, 39), "figure_lengths": ({"500m"}, 13), "figure_pareto": (SIZES, 39),
    "figure6": ({"500m"}, 2), "figure7": ({"500m"}, 5), "figure8": ({"500m"}, 7),
}  # fmt: skip
"""Models and number of runs of each exhibit of the paper that shows runs."""


def test_the_exhibits_of_the_paper_need_their_runs_and_all_runs(load):
    settings = load("paper")
    runs, needed = grid.runs(settings), set()
    for exhibit, (models, count) in SHOWN.items():
        shown = grid.runs_of_exhibit(settings, exhibit)
        assert (len(shown), {run.model for run in shown}) == (count, models), exhibit
        assert [run for run in runs if run in shown] == shown
        needed.update(shown)
    assert needed == set(runs)


def test_a_figure_of_one_variant_asks_for_no_analysis_of_another(load):
    drawn = {name: None for name in EXHIBITS} | {"figure2": {"model": "500m"}}
    analysed = Identity(load("paper", exhibits=drawn)).analyses
    assert {(run.model, run.variant, run.layout) for run in analysed} == {
        ("500m", "rndembqk", "uniform"),
        ("500m", "rndembqk", "even"),
    }


# ---- sweeps, overrides, layouts of one's own
def block(**more: object) -> list[dict[str, object]]:
    return [{"models": ["tiny"], "variants": ["standard", "mlp"], "layouts": ["even", "uniform"], **more}]


def test_a_list_is_an_axis_and_a_value_the_model_has_is_the_plain_run(load):
    settings = load(
        "test", grid=block(training={"peak_learning_rate": [1e-3, 4e-3]}, seeds=[0, 1], layouts=["uniform"])
    )
    assert names(settings) == [
        "tiny-standard-uniform-s0-lr0.001", "tiny-standard-uniform-s1-lr0.001", "tiny-standard-uniform-s0",
        "tiny-standard-uniform-s1", "tiny-mlp-uniform-s0-lr0.001", "tiny-mlp-uniform-s1-lr0.001", "tiny-mlp-uniform-s0",
        "tiny-mlp-uniform-s1",
    ]  # fmt: skip
    plain = load("test", grid=block(seeds=[0, 1], layouts=["uniform"]))
    assert Identity(plain).trainings.items() <= Identity(settings).trainings.items()
    assert grid.training_of(settings, grid.runs(settings)[0]).peak_learning_rate == 1e-3


def test_lists_give_every_combination_and_an_override_takes_the_blocks_place_for_one_variant(load):
    general = {"peak_learning_rate": [1e-3, 2e-3], "eps": 1e-6, "betas": [[0.9, 0.95], [0.8, 0.9]]}
    own = {"mlp": {"training": {"peak_learning_rate": 5e-4, "tokens": 3_000}}}
    settings = load("test", grid=block(training=general, overrides=own, layouts=["uniform"]))
    assert names(settings) == [
        "tiny-standard-uniform-s0-lr0.001-betas0.9_0.95-eps1e-06",
        "tiny-standard-uniform-s0-lr0.001-betas0.8_0.9-eps1e-06",
        "tiny-standard-uniform-s0-lr0.002-betas0.9_0.95-eps1e-06",
        "tiny-standard-uniform-s0-lr0.002-betas0.8_0.9-eps1e-06",
        "tiny-mlp-uniform-s0-steps23-lr0.0005-betas0.9_0.95-eps1e-06",  # 3000 / (4 × 32) = 23.4
        "tiny-mlp-uniform-s0-steps23-lr0.0005-betas0.8_0.9-eps1e-06",
    ]
    mlp = grid.training_of(settings, grid.runs(settings)[-1])
    assert (mlp.steps, mlp.tokens, mlp.eps, mlp.warmup_steps) == (23, None, 1e-6, 2)
    assert grid.training_of(settings, grid.runs(settings)[0]).betas == [0.9, 0.95]


def test_a_swept_training_is_the_one_that_a_config_with_this_value_has(load):
    """What is hashed is the resolved training: the same values, said in another place, are the same result."""
    swept = Identity(load("test", grid=block(training={"peak_learning_rate": 1e-3}))).trainings.values()
    plain = Identity(load("test", grid=block(), training={"peak_learning_rate": 1e-3})).trainings.values()
    for one, other in zip(swept, plain, strict=True):
        assert one.folder.name[-8:] == other.folder.name[-8:] and one.folder != other.folder


def test_a_layout_of_ones_own_is_its_layers(load):
    settings = load("test", layouts={"mine": [4, 1]}, grid=block(layouts=["mine"], variants=["mlp"]))
    [run] = grid.runs(settings)
    assert run.name == "tiny-mlp-mine-s0"
    layout = grid.model_fields(settings, run)["layout"]
    assert layout == "mine:1,4" and standard_layers(layout, 4) == (1, 4)
    other = load("test", layouts={"mine": [1, 3]}, grid=block(layouts=["mine"], variants=["mlp"]))
    assert Identity(settings).trainings[run].folder != Identity(other).trainings[run].folder
