"""Adoption: a result and what was made from it keep their files and get the names that follow."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from deconattn.errors import UserError
from deconattn.experiment import adopt as adopting
from deconattn.experiment.adopt import Move, adopt, plan_moves
from deconattn.experiment.artefact import Artefact
from deconattn.experiment.identity import Identity
from deconattn.experiment.load import load_settings
from deconattn.experiment.record import is_done, mark, read_record, read_spec, spec_hash, write_record, write_spec
from deconattn.experiment.verify import verify
from tests.project import ROOT

OLD = "0" * 16


def plan(old: Path, new: Path) -> list[Move]:
    return plan_moves(old, new, lambda folder: None)


@pytest.fixture
def ident(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Identity:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/data").symlink_to(ROOT / "tests/data")
    shutil.copy(ROOT / "config/test.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return Identity(load_settings(["test.yaml"]))


def finish(folder: Path, spec: dict) -> Path:
    write_spec(folder, spec)
    (folder / "result.txt").write_text(folder.name)
    write_record(folder, spec, ["result.txt"])
    mark(folder)
    return folder


def of_old_code(one: Artefact, **changes: object) -> tuple[Path, dict]:
    """The folder and spec that it had under other code."""
    spec = {**one.spec, "code": OLD, **changes}
    folder = one.folder.with_name(f"{one.folder.name.rpartition('-')[0]}-{spec_hash(spec)}")
    return folder, {**spec, "run": folder.name, "hash": spec_hash(spec)} if one.stage == "pretrain" else spec


def test_a_run_takes_its_evaluation_along_and_an_interruption_leaves_nothing_that_passes_for_finished(
    ident: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, one = next(iter(ident.trainings.items()))
    old, evaluation = finish(*of_old_code(one)), ident.evaluations[run]
    spec = {**evaluation.spec, "made_from": {**evaluation.spec["made_from"], "run": str(old)}}
    finish(old / f"evaluation-{spec_hash(spec)}", spec)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(adopting.os, "rename", interrupted)
        with pytest.raises(KeyboardInterrupt):
            adopt(plan(old, one.folder), "a refactoring")
    assert not is_done(old) and not is_done(one.folder)
    assert any("which is not that of the folder's name" in line for line in verify().problems)
    moves = plan(old, one.folder)
    adopt(moves, "a refactoring")
    assert [move.new for move in moves] == [one.folder, evaluation.folder]
    assert is_done(one.folder) and is_done(evaluation.folder) and not old.exists()
    assert (one.folder / "result.txt").read_text() == old.name, "files are as they were"
    record = read_record(one.folder)
    assert record and record["adopted"][-1]["from"] == str(old) and record["adopted"][-1]["reason"] == "a refactoring"
    assert read_spec(one.folder)["run"] == one.folder.name
    assert not verify().problems


def test_a_token_table_takes_along_what_is_made_from_it_with_the_code_that_each_has(ident: Identity) -> None:
    tokens = finish(*of_old_code(ident.token_tables["tiny"]))
    run = next(iter(ident.trainings.values()))
    made_from = {**run.spec["made_from"], "tokens": str(tokens)}
    changed = {**run.spec, "tokens": {"id": tokens.name}, "made_from": made_from}
    trained = finish(run.folder.with_name(f"{run.folder.name.rpartition('-')[0]}-{spec_hash(changed)}"), changed)
    adopt(plan(tokens, ident.token_tables["tiny"].folder), "")
    assert is_done(run.folder) and not trained.exists()
    assert read_spec(run.folder)["tokens"]["id"] == ident.token_tables["tiny"].folder.name


def test_a_begun_run_goes_on_under_the_key_of_its_checkpoints(ident: Identity) -> None:
    one = next(iter(ident.trainings.values()))
    folder, spec = of_old_code(one)
    write_spec(folder, spec)
    (folder / "checkpoints/step-00000006").mkdir(parents=True)
    write_spec(one.folder, one.spec)  # a launch that the guard stopped, or that was killed, has prepared the new one
    adopt(plan(folder, one.folder), "")
    assert (one.folder / "checkpoints/step-00000006").is_dir() and not is_done(one.folder)
    assert json.loads((one.folder / "spec.json").read_text())["trained_as"] == spec["hash"]
    write_spec(one.folder, one.spec)
    assert read_spec(one.folder)["trained_as"] == spec["hash"], "the next launch leaves it"


def test_only_code_can_be_adopted(ident: Identity) -> None:
    one = next(iter(ident.trainings.values()))
    old = finish(*of_old_code(one))
    other = finish(*of_old_code(one, seed=1))
    for new, said in ((one.folder.with_name("tiny-01234567"), "which would be"), (other, "not "), (old, "would be")):
        with pytest.raises(UserError, match=said):
            plan(old, new)
    with pytest.raises(UserError, match="being worked on by somebody"):
        plan_moves(old, one.folder, lambda folder: "somebody")
    finish(one.folder, one.spec)
    with pytest.raises(UserError, match="is there already, with a record"):
        plan(old, one.folder)
    assert is_done(old)
