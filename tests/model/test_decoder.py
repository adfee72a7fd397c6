"""The model's shape: parameter counts of the paper's sizes, initialisation, what is refused as no model or no variant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from deconattn import mixers
from deconattn.config import ModelConfig
from deconattn.decoder import LanguageModel, initialise, parameter_count
from deconattn.errors import UserError
from deconattn.experiment import grid
from deconattn.experiment.grid import Run
from deconattn.experiment.load import load_settings
from tests.conftest import ROOT

VARIANTS = ("standard", "mlp", "approximate", "nonapproximate", "rndembqk", "fixedseqqk", "staticembqk")
VOCABULARY = 50_304
SMALL = {"vocab_size": 8, "hidden_size": 32, "intermediate_size": 8, "num_hidden_layers": 4, "num_attention_heads": 4}


@pytest.fixture(scope="module")
def counts() -> dict[tuple[str, str], int]:
    """Parameters of each variant at sizes of the paper's config."""
    settings = load_settings([ROOT / "config/paper.yaml"])
    found = {}
    for size in ("70m", "160m", "500m"):
        for variant in VARIANTS:
            fields = grid.model_fields(settings, Run(size, variant, "uniform", 0))
            found[size, variant] = parameter_count(ModelConfig.from_dict({**fields, "vocab_size": VOCABULARY}))
    return found


def test_the_papers_sizes_have_the_parameters_of_their_names_in_all_variants(
    counts: dict[tuple[str, str], int],
) -> None:
    """Equal for all, but for mlp, whose inner width is a whole number."""
    assert round(counts["70m", "standard"] / 1e6, 1) == 76.7
    assert round(counts["500m", "standard"] / 1e6) == 481
    for (size, variant), count in counts.items():
        standard = counts[size, "standard"]
        assert abs(count - standard) <= (1e-3 * standard if variant == "mlp" else 0)


def test_the_readmes_parameter_table_is_true(counts: dict[tuple[str, str], int]) -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    for variant in VARIANTS:
        row = next(line for line in lines if line.startswith(f"| `{variant}` | ") and "," in line and line.count("|") == 5
                   and any(character.isdigit() for character in line.split("|")[2][:4]))  # fmt: skip
        stated = [int(cell.split()[0].replace(",", "")) for cell in row.split("|")[2:5]]
        assert stated == [counts[size, variant] for size in ("70m", "160m", "500m")]


def test_tensors_of_one_name_start_equal_in_all_variants_and_seeds_differ() -> None:
    def draw(variant: str, seed: int) -> dict[str, torch.Tensor]:
        shape = SMALL | {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 96, "max_position_embeddings": 16}
        model = LanguageModel(ModelConfig(**shape, variant=variant, layout="even"))
        initialise(model, seed)
        return model.state_dict()

    standard = draw("standard", 0)
    for variant in VARIANTS[1:]:
        for name, tensor in draw(variant, 0).items():
            if name in standard:
                assert torch.equal(tensor, standard[name]), name
    other = draw("rndembqk", 1)
    same = draw("rndembqk", 0)
    assert all(torch.equal(same[name], tensor) == (tensor.dim() == 1) for name, tensor in other.items())
    weights = torch.cat([tensor.flatten() for tensor in same.values() if tensor.dim() == 2])
    assert weights.std().item() == pytest.approx(0.02, rel=0.02) and abs(weights.mean().item()) < 3e-4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_attention_heads": 3}, "hidden_size 32 is not a multiple of num_attention_heads 3"),
        ({"num_key_value_heads": 3}, "num_attention_heads 4 is not a multiple of num_key_value_heads 3"),
        ({"hidden_size": 36, "num_attention_heads": 12}, "the head size 3"),
        *(({name: 0}, f"^{name} is 0; it is at least 1$") for name in SMALL),
        ({"num_key_value_heads": -2}, "^num_key_value_heads is -2; it is at least 1$"),
        ({"max_position_embeddings": 0}, "^max_position_embeddings is 0; it is at least 1$"),
        ({"layout": "evn"}, "did you mean 'even'"),
        ({"variant": "softmaxx"}, "softmaxx"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        LanguageModel(ModelConfig(**SMALL | changes))


def test_a_skip_that_does_not_exist_is_refused() -> None:
    model = LanguageModel(ModelConfig(**SMALL))
    for mode in ("skip", "skip_mixer", None):
        model.skip = mode
        assert model.skip == mode
    with pytest.raises(UserError, match="'skp' is not a skip; did you mean 'skip'"):
        model.skip = "skp"
    assert model.skip is None


def test_files_that_hold_what_variants_share_are_no_variants() -> None:
    assert set(VARIANTS) <= set(mixers.names())
    for name in ("base", "cache", "blocks", "formulas", "__init__"):
        with pytest.raises(UserError, match="is not one of"):
            mixers.find(name)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("from deconattn.mixers.mlp import MLP\n", "defines 0 mixers, a variant's file defines exactly one"),
        ("class Two(MLP): ...\nclass Three(MLP): ...\n", "defines 2 mixers"),
        ("class Half(ScoreMixer): ...\n", "Half does not define weights"),
        (
            "class Bare(QKVMixer): ...\n",
            "Bare does not define attention_map_of, mix, mix_step",
        ),
        ("class Free(MLP): ...\n", "does not define flops, state_bytes, what the variant costs"),
        ("class Odd(MLP):\n    qk_source = 'side'\n    side_stream = 'random'\n", "is for a QKVMixer, Odd is none"),
    ],
)
def test_a_file_that_is_no_variant_is_refused_by_its_name(
    code: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"file_{abs(hash(code))}"
    known = "from deconattn.mixers.base import QKVMixer, ScoreMixer\n"
    (tmp_path / f"{name}.py").write_text(known + "from deconattn.mixers.mlp import MLP\n" + code)
    monkeypatch.setattr(mixers, "__path__", [*mixers.__path__, str(tmp_path)])
    monkeypatch.setattr(mixers, "names", lambda: [name])
    with pytest.raises(UserError, match=f"{name}.py: .*{message}"):
        mixers.find(name)


@pytest.mark.parametrize("variant", mixers.names())
def test_a_batch_of_no_rows_has_logits_of_no_rows(variant: str) -> None:
    model = LanguageModel(ModelConfig(**SMALL, variant=variant))
    initialise(model, 0)
    assert model(torch.zeros(0, 7, dtype=torch.long)).shape == (0, 7, 8)
