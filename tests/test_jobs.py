"""Jobs that belong to no run: their launch tells them its code, and they compute with no other."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path

import pytest

from deconattn import cli
from deconattn.experiment import code
from deconattn.experiment.identity import Identity
from deconattn.experiment.measured import measure_code
from deconattn.experiment.settings import load_settings
from deconattn.experiment.states import States
from deconattn.files import write_json
from tests.project import ROOT

OTHER = "0123456789abcdef"
DATA = {"context_length": 32, "heldout_fraction": 0.1, "budget": None, "parts": 1}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the small config and its data, in which nothing has run."""
    (tmp_path / "config").mkdir()
    (tmp_path / "tests").mkdir()
    shutil.copy(ROOT / "config/test.yaml", tmp_path / "config/test.yaml")
    (tmp_path / "tests/data").symlink_to(ROOT / "tests/data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


JOBS = {
    "baselines": (json.dumps({"files": {}, "limits": {}, "code": OTHER}), "tokenizer", "baselines.parquet"),
    "train-tokenizer": (json.dumps({"vocab_size": 300, "heldout_fraction": 0.1}), "bpe", "part", "--code", OTHER),
    "tokenize": (json.dumps({**DATA, "code": OTHER}), "0", "corpus", "bpe", "tokens"),
    "finish-tokens": (json.dumps({**DATA, "code": OTHER}), "bpe", "tokens"),
    "measure": (
        json.dumps({"model": {"name": "tiny", **dict.fromkeys(cli.SHAPE, 32)}, "variants": ["mlp"],
                    "batch_sizes": [], "lengths": [], "repeats": 1, "code": OTHER}),
        "costs",
    ),
}  # fmt: skip


@pytest.mark.parametrize("command", JOBS)
def test_code_that_was_edited_while_a_job_waited_is_refused(
    command: str, project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    monkeypatch.setattr(importlib, "import_module", loaded.append)  # what a job loads takes seconds
    assert cli.main([command, *JOBS[command]]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1 and f"written for code {OTHER}, but the code here is " in said
    assert [path.name for path in project.iterdir()] == ["config", "tests"], "nothing was written"
    # what is edited after it was loaded cannot be run: it is loaded before it is compared
    assert bool(loaded) == (command in ("baselines", "train-tokenizer", "measure"))


def test_a_launch_writes_the_code_of_such_jobs_down() -> None:
    settings = load_settings(["config/test.yaml"], {"exhibits": {"figure_costs": {"model": "tiny"}}})
    with code.as_known({"digests": {}, "constants": {}}):
        ident = Identity(settings)
        assert list(
            ident.specs
        )  # all that a launch asks for before it writes down what it knows, beside the stages of runs
        known = code.memo()["digests"]
        wanted = {ident.baselines_spec["code"], ident.tokenizer_code, measure_code(settings, "tiny")}
        assert wanted <= set(known.values()) and len(code.memo()["digests"]) == len(known)


def test_baselines_of_edited_code_are_stale() -> None:
    ident = Identity(load_settings(["config/test.yaml"]))
    record = ident.report / "tables/baselines.json"
    write_json(record, {"spec": ident.baselines_spec, "code": ident.baselines_spec["code"]})
    record.with_suffix(".parquet").touch()
    assert States(ident).baselines().fresh
    write_json(record, {"spec": ident.baselines_spec, "code": OTHER})
    found = States(ident).baselines()
    assert found.status == "stale" and OTHER in found.why
