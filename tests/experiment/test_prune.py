"""What `deconattn prune` keeps: whatever may be in use, or something that is kept was made from."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from deconattn import cli
from deconattn.experiment.identity import Identity
from deconattn.experiment.load import load_settings
from deconattn.experiment.record import mark, write_record, write_spec
from deconattn.training.lock import RunLock
from tests.project import ROOT

CONFIG = Path("config/test.yaml")
DAYS_AGO = time.time() - 10 * 24 * 3600


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The small config and its data, without results."""
    (tmp_path / "config").mkdir()
    (tmp_path / "tests").mkdir()
    shutil.copy(ROOT / CONFIG, tmp_path / CONFIG)
    (tmp_path / "tests/data").symlink_to(ROOT / "tests/data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def begin(*configs: Path, overrides: dict | None = None, finished: bool = True) -> Identity:
    """The folders that a launch of a config asks for, old, with their specs; its identity."""
    ident = Identity(load_settings(configs or [CONFIG], overrides))
    data = [ident.tokenizer, ident.token_tables["tiny"], *ident.side_texts.values()]
    for one in [*data, *ident.trainings.values(), ident.tables["results"], *ident.exhibits.values()]:
        write_spec(one.folder, one.spec)
        if finished:
            write_record(one.folder, one.spec, [])
            mark(one.folder)
    age(Path("results"))
    return ident


def folders(ident: Identity) -> list[Path]:
    return [one.folder for one in ident.trainings.values()]


def age(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (DAYS_AGO, DAYS_AGO), follow_symlinks=False)


def edit(old: str, new: str) -> None:
    text = CONFIG.read_text()
    assert old in text
    CONFIG.write_text(text.replace(old, new))


LEARNING_RATE = ("peak_learning_rate: 4e-3", "peak_learning_rate: 5e-3")
CONTEXT = ("context_length: 32", "context_length: 16")


@pytest.fixture
def prune(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """`deconattn prune` here: exit code, and all that it said."""

    def call(*arguments: object) -> tuple[int, str]:
        try:
            code = cli.main(["prune", *map(str, arguments)])
        except SystemExit as error:
            code = int(error.code or 0)
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return code, said.out + said.err

    return call


def runs() -> list[str]:
    return sorted(path.name for path in Path("results/runs").iterdir())


def test_what_nothing_uses_is_listed_and_only_deleted_when_told_to(prune: Callable) -> None:
    ident = begin()
    edit(*LEARNING_RATE)
    listed, said = prune(CONFIG)
    assert listed == 0 and len(runs()) == 3 and "nothing is deleted without --delete" in said
    for folder in (*folders(ident), ident.tables["results"].folder, ident.exhibits["figure5"].folder):
        assert str(folder) in said
    young = folders(ident)[0]
    os.utime(young / "spec.json")
    _, said = prune(CONFIG, "--delete")
    assert runs() == [young.name] and f"kept {young}: written to" in said and "(--older-than 1)" in said
    age(young)
    assert prune(CONFIG, "--delete")[0] == 0
    assert runs() == [] and ident.token_tables["tiny"].folder.is_dir(), "the config names it"
    edit(*CONTEXT)
    assert prune(CONFIG, "--delete")[0] == 0
    assert not ident.token_tables["tiny"].folder.exists() and ident.tokenizer.folder.is_dir()


def test_other_configs_of_the_folder_count_and_a_wrong_one_that_is_given_stops_it(prune: Callable) -> None:
    begin()
    other = CONFIG.with_name("other.yaml")
    shutil.copy(CONFIG, other)
    edit(*LEARNING_RATE)
    _, said = prune(CONFIG, "--delete")
    assert len(runs()) == 3 and f"{other}: not given, but names" in said
    other.write_text("setps: 12\n")
    assert prune(other, "--delete")[0] == 2 and len(runs()) == 3
    _, said = prune(CONFIG, "--delete")
    assert runs() == [] and f"{other}: has errors" in said and "protects nothing" in said


def test_what_a_kept_result_was_made_from_is_kept(prune: Callable) -> None:
    edit("variants: [rndembqk]", "variants: [fixedseqqk]")
    ident = begin()
    run = next(one.folder for one in ident.trainings.values() if "side_text" in one.spec["made_from"])
    os.utime(run / "spec.json")  # written to just now; what it was made from is old
    edit(*CONTEXT)
    edit("vocab_size: 384", "vocab_size: 300")
    found, said = prune(CONFIG, "--delete")
    assert found == 0 and runs() == [run.name]
    (side,) = ident.side_texts.values()
    for source, by in ((ident.token_tables["tiny"], run), (side, run), (ident.tokenizer, None)):
        assert source.folder.is_dir() and f"kept {source.folder}: {by or ''}" in said, said


def test_an_evaluation_that_no_config_names_goes_and_its_run_stays(prune: Callable) -> None:
    ident = begin()
    one, *others = ident.evaluations.values()
    for each in (one, *others):
        write_record(each.folder, each.spec, [])
    stale = one.folder.with_name("evaluation-01234567")
    one.folder.rename(stale)
    age(Path("results"))
    assert prune(CONFIG, "--delete")[0] == 0
    assert not stale.exists() and all(each.folder.is_dir() for each in others) and len(runs()) == 3


def test_a_live_training_is_kept_whatever_is_asked_for(prune: Callable) -> None:
    ident = begin()
    mine, other, dead, *_ = folders(ident)
    lock = RunLock(mine / "lock")
    lock.acquire()
    RunLock(other / "lock").acquire()
    owner = json.loads((other / "lock/000001.json").read_text())
    (other / "lock/000001.json").write_text(json.dumps({**owner, "machine": "another"}))
    left = "from deconattn.training.lock import RunLock; from pathlib import Path; RunLock(Path('lock')).acquire()"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", left], check=True, cwd=dead, env=environment)
    age(mine)
    edit(*LEARNING_RATE)
    found, said = prune(CONFIG, "--delete", "--older-than", 0, "--launched-within", 0)
    assert found == 0 and runs() == sorted([mine.name, other.name]), "the owner of the third is dead"
    assert f"kept {mine}: being worked on by process {os.getpid()} on " in said
    # silent for days, on a machine that cannot be asked: left behind
    age(other)
    lock.release()
    prune(CONFIG, "--delete", "--older-than", 0)
    assert runs() == []


def test_what_a_launch_asked_for_is_kept_as_its_job_may_wait(prune: Callable) -> None:
    begin(overrides={"training": {"warmup_steps": 3}}, finished=False)
    everything = runs()
    for path in Path("results").rglob("spec.json"):
        os.utime(path, (time.time() - 3600,) * 2)
    found, said = prune(CONFIG, "--delete", "--older-than", 0)
    assert found == 0 and runs() == everything and "a launch asked for it 1.0 hours ago: its job may still wait" in said
    # days later, or when told that none waits
    assert prune(CONFIG, "--delete", "--older-than", 0, "--launched-within", 0)[0] == 0
    assert runs() == []


def test_configs_that_are_merged(prune: Callable) -> None:
    overlay = Path("config/overlay.yaml")
    overlay.write_text("training: {steps: 13}\n")
    begin(CONFIG, overlay)
    listed = runs()
    alone, said = prune(CONFIG, overlay)
    assert alone == 2 and "--configfile BASE config/overlay.yaml" in said
    # its members need not stand alone, and the others of config/*.yaml may be given too
    for given in ([CONFIG], [CONFIG, overlay], []):
        found, said = prune(*given, "--configfile", CONFIG, overlay, "--delete", "--older-than", 0)
        assert found == 0 and runs() == listed and "no orphans" in said or "deleted 0" in said, said
    assert prune()[0] == 2


def test_links_are_left_and_their_target_is_not_counted(prune: Callable, tmp_path: Path) -> None:
    linked, other, *_ = folders(begin())
    scratch = tmp_path / "scratch"
    linked.rename(scratch)
    (scratch / "weights").write_bytes(bytes(10_000))
    linked.symlink_to(scratch)
    (other / "weights").symlink_to(scratch / "weights")
    (other / "copy").hardlink_to(scratch / "weights")
    (other / "gone").symlink_to("nowhere")
    age(Path("results"))
    age(scratch)
    edit(*LEARNING_RATE)
    _, said = prune(CONFIG, "--json")
    sizes = {each["path"]: each["bytes"] for each in json.loads(said[: said.rindex("]") + 1])}
    assert sizes[str(linked)] == 0 and sizes[str(other)] < 10_000, "deleting them would free no more"
    found, said = prune(CONFIG, "--delete", "--older-than", 0)
    assert found == 0 and f"kept {linked}: a link to {scratch}" in said
    assert runs() == [linked.name] and (scratch / "spec.json").is_file(), "the others went all the same"


def test_one_that_cannot_be_deleted_does_not_keep_the_others(prune: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    ident = begin()
    first, *_ = folders(ident)
    delete = shutil.rmtree

    def refuse(path: Path) -> None:
        if path == first:
            raise PermissionError(13, "Permission denied", str(path / "model"))
        delete(path)

    monkeypatch.setattr(shutil, "rmtree", refuse)
    edit(*LEARNING_RATE)
    found, said = prune(CONFIG, "--delete")
    assert found == 1 and runs() == [first.name]
    assert f"kept {first}: could not be deleted: {first / 'model'}: Permission denied" in said
