"""One way to draw every exhibit: requests, files, records, the registry, colours for every eye and grey print."""

from __future__ import annotations

import itertools
import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deconattn import cli
from deconattn.errors import UserError
from deconattn.exhibits import EXHIBITS
from deconattn.files import sha256_file
from deconattn.report import style
from deconattn.report.draw import draw
from deconattn.report.names import COLOURS, FAMILIES, MARKERS, OWN_COLOUR
from deconattn.report.provenance import repository_state
from tests.conftest import ROOT
from tests.make_results import make_runs, report


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    return report(root, make_runs(root, missing=[("rndembqk", "uniform")]))


@pytest.fixture(scope="module")
def made(tables: Path) -> Path:
    """The files of a figure and of a table."""
    draw("figure5", tables, tables / "made", {"models": ["nano"]})
    draw("table1", tables, tables / "made", {"model": "nano"})
    return tables / "made"


def test_equal_tables_give_equal_bytes(made: Path, tables: Path, tmp_path: Path) -> None:
    """Of other exhibits, those that are drawn again in tests/workflow/test_situations.py show it."""
    draw("figure5", tables, tmp_path, {"models": ["nano"]})
    draw("table1", tables, tmp_path, {"model": "nano"})
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == sorted((*EXHIBITS["figure5"].files, *EXHIBITS["table1"].files))
    for name in names:
        assert (tmp_path / name).read_bytes() == (made / name).read_bytes(), name


def test_vector_files_hold_text_as_text_and_no_date(made: Path) -> None:
    svg = (made / "figure5.svg").read_text()
    assert "<text" in svg and all(f">{variant} " in svg for variant in COLOURS)
    assert "<dc:date>" not in svg
    pdf = (made / "figure5.pdf").read_bytes()
    assert b"/FontFile2" in pdf and b"/Type3" not in pdf and b"CreationDate" not in pdf


def test_provenance_names_runs_data_and_tables(made: Path, tables: Path) -> None:
    record = json.loads((made / "figure5.json").read_text())
    root = tables.parent.parent
    assert record["runs"] == sorted(folder.name for folder in (root / "runs").iterdir())
    assert record["data"] == {"invented-128": sha256_file(root / "tokens" / "invented-128" / "manifest.json")}
    assert record["tables"]["training.parquet"] == sha256_file(tables / "training.parquet")
    assert record["options"] == {"models": ["nano"], "x_scale": "log", "smoothing": 0.02, "start": 0.01}
    assert len(record["gaps"]) == 1
    assert {"deconattn", "matplotlib", "numpy", "pandas", "pyarrow", "python"} <= set(record["versions"])
    assert record["packages"] == ["torch 2.13.0"]  # of the runs: what made the numbers, not only what drew them


def test_the_commit_is_the_repositorys_or_null(tmp_path: Path) -> None:
    assert repository_state(tmp_path) == (None, None)

    def git(*words: str) -> str:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-q", "-m", "one")
    assert repository_state(tmp_path) == (git("rev-parse", "HEAD"), False)
    (tmp_path / "file").write_text("two")
    assert repository_state(tmp_path) == (git("rev-parse", "HEAD"), True)


def test_a_model_that_is_not_there_and_absent_tables_are_named_in_one_line(tables: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\A[^\n]*did you mean 'nano'[^\n]*\Z"):
        draw("figure5", tables, tmp_path, {"models": ["nana"]})
    with pytest.raises(UserError, match=r"\A[^\n]*runs\.parquet: no such file[^\n]*\Z"):
        draw("figure5", tmp_path, tmp_path, {"models": ["nano"]})


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_full_disk_is_one_line_that_names_the_file(
    kind: str, tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / f"table1.{kind}"
    file.with_name(f".{file.name}.{os.getpid()}.tmp").symlink_to("/dev/full")
    assert cli.main(["draw", "table1", '{"model": "nano"}', str(tables), str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"{file}: ") and "No space left on device" in said and said.count("\n") == 1
    assert not file.exists() and not (tmp_path / "table1.json").exists()


def test_the_registry_is_light_and_names_what_draws_every_exhibit() -> None:
    heavy = ("pandas", "matplotlib", "numpy", "torch")
    code = f"import sys; from deconattn.exhibits import EXHIBITS; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr
    for exhibit in EXHIBITS.values():
        assert callable(pkgutil.resolve_name(exhibit.draws)) and exhibit.options and exhibit.caption.startswith("**")
        assert exhibit.defaults.keys() < exhibit.options.keys()


def test_the_registry_says_which_runs_an_exhibit_shows() -> None:
    shown = {name: exhibit.shows for name, exhibit in EXHIBITS.items()}
    assert shown["table1"]("mlp", "even") and not shown["table1"]("mlp", "odd")
    assert shown["figure3"]("mlp", "odd") and not shown["figure3"]("mlp", "uniform")
    assert not shown["figure1"]("mlp", "uniform") and shown["figure1"]("mine", "uniform")
    assert [v for v in COLOURS if shown["figure7"](v, "even")] == ["standard", "approximate", "nonapproximate"]
    assert shown["figure7"]("rndembqk", "even", asked=["rndembqk"])
    assert not shown["table6"]("standard", "uniform") and EXHIBITS["table6"].costed


DEFICIENCIES = {
    "none": np.eye(3),
    "protan": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deutan": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritan": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


EVERY = {**COLOURS, "own": OWN_COLOUR}


def _linear(colour: str) -> np.ndarray:
    value = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def _lab(linear: np.ndarray) -> np.ndarray:
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    )
    xyz = to_xyz @ np.clip(linear, 0, 1) / np.array([0.95047, 1, 1.08883])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_any_two_variants_are_told_apart_by_every_eye(deficiency: str) -> None:
    seen = {name: _lab(DEFICIENCIES[deficiency] @ _linear(colour)) for name, colour in EVERY.items()}
    for first, second in itertools.combinations(seen, 2):
        assert np.linalg.norm(seen[first] - seen[second]) > 15, (first, second)


def test_colours_stand_out_from_white_and_within_a_family_in_grey() -> None:
    for colour in EVERY.values():
        assert 1.05 / (_linear(colour) @ [0.2126, 0.7152, 0.0722] + 0.05) > 3
    for family in FAMILIES:
        for first, second in itertools.combinations(family.variants, 2):
            assert abs(_lab(_linear(COLOURS[first]))[0] - _lab(_linear(COLOURS[second]))[0]) > 15
    assert len(set(MARKERS.values())) == len(MARKERS) == len(COLOURS)


@given(st.floats(1, 1e9), st.floats(1.01, 1e4))
def test_a_logarithmic_axis_has_a_few_round_ticks_within_it(low: float, ratio: float) -> None:
    ticks = style.log_ticks(low, low * ratio)
    assert 2 <= len(ticks) <= 5 and ticks == sorted(set(ticks))
    assert all(low <= tick <= low * ratio for tick in ticks)
