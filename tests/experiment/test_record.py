"""Records: what stands is not made again, what is gone is, and nothing that is finished is overwritten."""

from __future__ import annotations

import json
import os
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from deconattn.errors import UserError
from deconattn.experiment import record
from deconattn.experiment.code import code_of
from deconattn.job import WEIGHTS, Work, job

SPEC = {"stage": "side_text", "length": 8, "made_from": {}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a spec of today's code."""
    spec = {**SPEC, "code": code_of(SPEC)}
    path = tmp_path / f"8-{record.spec_hash(spec)}"
    record.write_spec(path, spec)
    return path


def carry_out(folder: Path, calls: list[str], stage: str = "side_text", work: Work | None = None) -> None:
    def do(spec: dict[str, Any], options: Namespace) -> list[str]:
        calls.append(spec["stage"])
        (options.folder / "x.txt").write_text("made")
        return ["x.txt"]

    job(stage)(work or do)(Namespace(folder=folder))


def test_a_job_works_once_and_again_when_its_files_are_gone_or_cut(folder: Path) -> None:
    calls: list[str] = []
    for _ in range(3):
        carry_out(folder, calls)
        (folder / "done").unlink()
        os.utime(folder / "x.txt", (1, 1))
    assert calls == ["side_text"]
    found = record.read_record(folder)
    assert found and found == record.sealed(found)
    assert found["spec"]["length"] == 8 and found["files"]["x.txt"]["size"] == 4
    for lose in (lambda path: path.write_text("cut"), Path.unlink):
        lose(folder / "x.txt")
        carry_out(folder, calls)
    assert len(calls) == 3


def test_another_specs_record_is_an_error_and_no_hit(folder: Path) -> None:
    calls: list[str] = []
    carry_out(folder, calls)
    found = json.loads((folder / "record.json").read_text())
    found["spec"]["length"] = 9
    (folder / "record.json").write_text(json.dumps(found))
    with pytest.raises(UserError, match="made from another spec"):
        carry_out(folder, calls)
    assert len(calls) == 1 and json.loads((folder / "record.json").read_text()) == found


def test_an_edited_spec_other_code_another_stage_and_missing_sources_are_refused(folder: Path) -> None:
    calls: list[str] = []
    with pytest.raises(UserError, match="of stage 'side_text'; this command does analyse"):
        carry_out(folder, calls, "analyse")
    for change, said in (
        ({"code": "0123456789abcdef"}, "written for code 0123456789abcdef, but the code here is"),
        ({"made_from": {"text": "results/nope"}}, "results/nope/record.json: no such record"),
    ):
        spec = {**record.read_spec(folder), **change}
        other = folder.with_name(f"8-{record.spec_hash(spec)}")
        record.write_spec(other, spec)
        with pytest.raises(UserError, match=said):
            carry_out(other, calls)
        assert said in record.last_attempt(other)
    (folder / "spec.json").write_text((folder / "spec.json").read_text().replace(": 8", ": 9"))
    with pytest.raises(UserError, match="not that of the folder's name: edited or moved"):
        carry_out(folder, calls)
    assert calls == []


def test_what_reads_a_run_needs_its_weights_and_records_their_sum(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "model").mkdir(parents=True)
    spec = {"stage": "analyse", "model": {"variant": "mlp", "layout": "uniform"}, "made_from": {"run": str(run)}}
    folder, calls = tmp_path / f"analysis-{record.spec_hash(spec)}", []
    record.write_spec(folder, spec)
    (run / WEIGHTS).write_text("weights")
    made = record.write_record(run, {"stage": "pretrain"}, [WEIGHTS])
    (run / WEIGHTS).unlink()
    with pytest.raises(UserError, match=r"gone, and it is needed; to train again .*, delete .*/run/done"):
        carry_out(folder, calls, "analyse")
    (run / WEIGHTS).write_text("weights")
    carry_out(folder, calls, "analyse")
    found = record.read_record(folder)
    assert calls == ["analyse"] and found and found["weights"] == made["files"][WEIGHTS]["sha256"]


def test_a_failure_leaves_its_last_line_and_a_success_takes_it_away(folder: Path) -> None:
    def fail(spec: dict[str, Any], options: Namespace) -> list[str]:
        raise ValueError("first\nsecond")

    assert record.last_attempt(folder) == "not run yet"
    with pytest.raises(ValueError, match="first"):
        carry_out(folder, [], work=fail)
    assert record.last_attempt(folder) == "ValueError: second" and not (folder / "record.json").exists()
    carry_out(folder, [])
    assert not (folder / "error.txt").exists()


def test_what_changes_no_result_changes_no_hash() -> None:
    spec = {"stage": "pretrain", "training": {"steps": 3, "on_divergence": "stop"}, "seed": 0}
    training = {"steps": 3, "on_divergence": "record"}
    same = {**spec, "run": "x", "hash": "y", "resources": {"gpus": 8}, "training": training}
    assert record.spec_hash(spec) == record.spec_hash(same) != record.spec_hash({**spec, "seed": 1})
