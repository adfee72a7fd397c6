"""The model's shape: parameter counts of the paper's sizes, initialisation, configs that do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
import torch

from deconattn import mixers
from deconattn.errors import UserError
from deconattn.experiment import grid
from deconattn.experiment.grid import Run
from deconattn.experiment.settings import load_settings
from deconattn.head import head_loss
from deconattn.mixers.mlp import inner_width
from deconattn.model import LanguageModel, ModelConfig, initialise, parameter_count
from tests.conftest import ROOT

VARIANTS = ("standard", "mlp", "approximate", "nonapproximate", "rndembqk", "fixedseqqk", "staticembqk")
VOCABULARY = 50_304


@pytest.fixture(scope="module")
def counts() -> dict[tuple[str, str], int]:
    """Parameters of each variant at each size of the paper's config, counted on meta tensors."""
    settings = load_settings([ROOT / "config/paper.yaml"])
    found = {}
    for size in settings.models:
        for variant in VARIANTS:
            fields = grid.model_fields(settings, Run(size, variant, "uniform", 0))
            config = ModelConfig.from_dict({**fields, "vocab_size": VOCABULARY})
            with torch.device("meta"):
                found[size, variant] = sum(parameter.numel() for parameter in LanguageModel(config).parameters())
            assert parameter_count(config) == found[size, variant]
    return found


def test_the_papers_sizes_have_the_parameters_of_their_names(counts: dict[tuple[str, str], int]) -> None:
    assert round(counts["70m", "standard"] / 1e6, 1) == 76.7
    assert round(counts["500m", "standard"] / 1e6) == 481


def test_all_variants_have_equal_parameters_and_mlp_nearly(counts: dict[tuple[str, str], int]) -> None:
    for (size, variant), count in counts.items():
        standard = counts[size, "standard"]
        if variant == "mlp":
            assert abs(count - standard) < 1e-3 * standard
        else:
            assert count == standard


@pytest.mark.parametrize("hidden", [32, 64, 96, 512, 896])
def test_the_mlps_width_is_the_nearest(hidden: int) -> None:
    config = ModelConfig(
        vocab_size=8, hidden_size=hidden, intermediate_size=8, num_hidden_layers=1, num_attention_heads=4
    )
    wanted = 4 * hidden**2 + 3 * hidden
    best = min(range(1, 4 * hidden), key=lambda width: abs(3 * hidden * width - wanted))
    assert abs(3 * hidden * inner_width(config) - wanted) == abs(3 * hidden * best - wanted)


def test_tensors_of_one_name_start_equal_in_all_variants_and_seeds_differ() -> None:
    def draw(variant: str, seed: int) -> dict[str, torch.Tensor]:
        model = LanguageModel(ModelConfig(
            vocab_size=64, hidden_size=64, intermediate_size=96, num_hidden_layers=4, num_attention_heads=2,
            max_position_embeddings=16, variant=variant, layout="even"))  # fmt: skip
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


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("chunk", [16, 1000])
def test_the_head_is_the_cross_entropy_of_all_logits(
    reduction: Literal["mean", "sum"], chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loss and both gradients, in chunks and at once, against the float64 logits that it never holds; scaled from outside too."""
    monkeypatch.setattr("deconattn.head.ROWS_AT_ONCE", chunk)
    draw = torch.Generator().manual_seed(0)
    leaves = [(0.7 * torch.randn(n, 16, generator=draw)).requires_grad_() for n in (61, 300)]
    targets = torch.randint(0, 300, (61,), generator=draw)

    wide = [x.detach().double().requires_grad_() for x in leaves]
    expected = torch.nn.functional.cross_entropy(wide[0] @ wide[1].T, targets, reduction=reduction)
    truth = [expected, *torch.autograd.grad(7.0 * expected, wide)]
    for precision, budget in ((torch.float32, 2e-6), (torch.bfloat16, 8e-3)):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            loss = head_loss(leaves[0], leaves[1], targets, reduction)
        for found, true in zip([loss, *torch.autograd.grad(7.0 * loss, leaves)], truth, strict=True):
            assert found.dtype == torch.float32
            assert (found.double() - true).norm() <= budget * true.norm()
    with torch.no_grad():
        assert torch.equal(head_loss(*leaves, targets, reduction), head_loss(*leaves, targets, reduction))


def test_the_heads_gradients_are_handed_on_once() -> None:
    hidden, weight = torch.randn(4, 8, requires_grad=True), torch.randn(9, 8, requires_grad=True)
    loss = head_loss(hidden, weight, torch.zeros(4, dtype=torch.long), "sum")
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="no second backward"):
        loss.backward()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_attention_heads": 3}, "hidden_size 32 is not a multiple of num_attention_heads 3"),
        ({"num_key_value_heads": 3}, "num_attention_heads 4 is not a multiple of num_key_value_heads 3"),
        ({"hidden_size": 36, "num_attention_heads": 12}, "the head size 3"),
        *(
            ({name: size}, f"^{name} is {size}; it is at least 1$")
            for name in (
                "vocab_size",
                "hidden_size",
                "intermediate_size",
                "num_hidden_layers",
                "num_attention_heads",
                "num_key_value_heads",
                "max_position_embeddings",
            )
            for size in (0, -32)
        ),
        ({"layout": "evn"}, "even"),
        ({"variant": "softmaxx"}, "softmaxx"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(changes: dict[str, object], message: str) -> None:
    fields = {
        "vocab_size": 8,
        "hidden_size": 32,
        "intermediate_size": 8,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
    }
    with pytest.raises(UserError, match=message):
        LanguageModel(ModelConfig(**{**fields, **changes}))


def test_a_skip_that_does_not_exist_is_refused() -> None:
    model = LanguageModel(ModelConfig(
        vocab_size=8, hidden_size=32, intermediate_size=8, num_hidden_layers=2, num_attention_heads=4))  # fmt: skip
    for mode in ("skip", "skip_mixer", None):
        model.skip = mode
        assert model.skip == mode
    with pytest.raises(UserError, match="'skp' is not a skip; did you mean 'skip'"):
        model.skip = "skp"
    assert model.skip is None


def test_a_file_that_defines_no_mixer_is_named(tmp_path: object) -> None:
    assert set(VARIANTS) <= set(mixers.names())
    with pytest.raises(UserError, match="is not one of"):
        mixers.find("_contract")


def test_the_readmes_parameter_table_is_true(counts: dict[tuple[str, str], int]) -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    for variant in VARIANTS:
        row = next(line for line in lines if line.startswith(f"| `{variant}` | ") and "," in line and line.count("|") == 5
                   and any(character.isdigit() for character in line.split("|")[2][:4]))  # fmt: skip
        stated = [int(cell.split()[0].replace(",", "")) for cell in row.split("|")[2:5]]
        assert stated == [counts[size, variant] for size in ("70m", "160m", "500m")]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("from deconattn.mixers.mlp import MLP\n", "defines 0 mixers, a variant's file defines exactly one"),
        ("class Two(MLP): ...\nclass Three(MLP): ...\n", "defines 2 mixers"),
        ("class Half(ScoreMixer): ...\n", "Half does not define weights"),
        (
            "class Bare(QKVMixer):\n    def new_state(self): ...\n",
            "Bare does not define attention_map_of, costs, fill, mix, mix_step",
        ),
        ("class Odd(MLP):\n    qk_source = 'side'\n    side_stream = 'random'\n", "is for a QKVMixer, Odd is none"),
    ],
)
def test_a_file_that_is_no_variant_is_refused_by_its_name(
    code: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"file_{abs(hash(code))}"
    known = "from deconattn.mixers._contract import QKVMixer\nfrom deconattn.mixers._scores import ScoreMixer\n"
    (tmp_path / f"{name}.py").write_text(known + "from deconattn.mixers.mlp import MLP\n" + code)
    monkeypatch.setattr(mixers, "__path__", [*mixers.__path__, str(tmp_path)])
    monkeypatch.setattr(mixers, "names", lambda: [name])
    with pytest.raises(UserError, match=f"{name}.py: .*{message}"):
        mixers.find(name)
