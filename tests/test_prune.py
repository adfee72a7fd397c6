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
from deconattn.experiment import code
from deconattn.experiment.identity import Identity
from deconattn.experiment.settings import load_settings
from deconattn.files import write_json
from deconattn.training.lock import RunLock
from tests.project import ROOT

CONFIG = Path("config/test.yaml")
DAYS_AGO = time.time() - 10 * 24 * 3600


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the small config and its data, in which nothing has run."""
    (tmp_path / "config").mkdir()
    (tmp_path / "tests").mkdir()
    shutil.copy(ROOT / CONFIG, tmp_path / CONFIG)
    (tmp_path / "tests/data").symlink_to(ROOT / "tests/data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def begin(*configs: Path, overrides: dict | None = None) -> Identity:
    """The folders that a launch of a config makes, old, with what they say of each other; its identity."""
    ident = Identity(load_settings(configs or [CONFIG], overrides))
    for run, spec in ident.specs.items():
        write_json(ident.folder(run) / "spec.json", spec)
    write_json(ident.tokens / "record.json", {"code": ident.tokens_spec["code"], "spec": ident.tokens_spec})
    write_json(ident.tokens / "manifest.json", {})
    write_json(ident.tokenizer / "manifest.json", {})
    age(Path("results"))
    return ident


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


def test_what_nothing_uses_is_deleted(prune: Callable) -> None:
    ident = begin()
    edit(*LEARNING_RATE)
    assert prune(CONFIG, "--delete")[0] == 0
    assert runs() == [] and ident.tokens.is_dir() and ident.tokenizer.is_dir(), "the config names them"
    edit(*CONTEXT)
    assert prune(CONFIG, "--delete")[0] == 0
    assert not ident.tokens.exists() and ident.tokenizer.is_dir()


def test_what_a_kept_run_was_made_from_is_kept(prune: Callable) -> None:
    ident = begin()
    run = ident.folder(next(iter(ident.specs)))
    os.utime(run / "spec.json")  # written to just now; its token table is old
    edit(*CONTEXT)
    edit("vocab_size: 384", "vocab_size: 300")
    found, said = prune(CONFIG, "--delete")
    assert found == 0 and runs() == [run.name]
    assert ident.tokens.is_dir() and ident.tokenizer.is_dir(), said
    assert f"kept {ident.tokens}: {run} is kept and was made from it" in said
    assert f"kept {ident.tokenizer}: {ident.tokens} is kept and was made from it" in said
    # nothing says what it was trained on: every table may be it
    (run / "spec.json").unlink()
    assert "does not say which of the tokens" in prune(CONFIG, "--delete")[1] and ident.tokens.is_dir()


def test_a_kept_run_keeps_its_fixed_text(prune: Callable) -> None:
    edit("variants: [rndembqk]", "variants: [fixedseqqk]")
    ident = begin()
    run, spec = next((run, spec) for run, spec in ident.specs.items() if "side_text" in spec)
    side = ident.side_path(spec)
    assert side
    side.parent.mkdir(parents=True)
    side.touch()
    age(Path("results"))
    os.utime(ident.folder(run) / "spec.json")
    edit(*CONTEXT)
    assert prune(CONFIG, "--delete")[0] == 0
    assert side.is_file() and runs() == [run]


def test_a_live_training_is_kept_whatever_is_asked_for(prune: Callable) -> None:
    ident = begin()
    mine, other, dead, *_ = map(ident.folder, ident.specs)
    lock = RunLock(mine / "lock")
    lock.acquire()
    elsewhere = RunLock(other / "lock")
    elsewhere.acquire()
    owner = json.loads((other / "lock/000001.json").read_text().partition("\n")[0])
    (other / "lock/000001.json").write_text(json.dumps({**owner, "machine": "another"}) + f"\n{0:020d}")
    left = "from deconattn.training.lock import RunLock; from pathlib import Path; import sys;"
    subprocess.run(
        [sys.executable, "-c", f"{left} RunLock(Path(sys.argv[1])).acquire()", dead / "lock"],
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    age(mine)
    edit(*LEARNING_RATE)
    found, said = prune(CONFIG, "--delete", "--older-than", 0, "--launched-within", 0)
    assert found == 0 and runs() == sorted([mine.name, other.name]), "the owner of the third is dead"
    assert f"kept {mine}: being trained by process {os.getpid()} on " in said
    # silent for days, on a machine that cannot be asked: left behind
    age(other)
    lock.release()
    prune(CONFIG, "--delete", "--older-than", 0)
    assert runs() == []


def launched(ident: Identity, hours: float = 1.0) -> Path:
    """The file of a launch, as `Launch` writes it."""
    path = Path("results/launches/0123456789abcdef.json")
    memory = {"settings": ident.settings.model_dump(mode="json", exclude_unset=True), "adoptions": [],
              "content": ident.content.known, "code": code.memo()}  # fmt: skip
    write_json(path, memory)
    os.utime(path, (time.time() - hours * 3600,) * 2)
    return path


def test_what_a_recent_launch_names_is_kept(prune: Callable) -> None:
    """Its jobs may wait in a queue: begun runs with nothing but a spec, of merged configs and of --config."""
    overlay = Path("config/overlay.yaml")
    overlay.write_text("training: {steps: 13}\n")
    ident = begin(CONFIG, overlay, overrides={"training": {"warmup_steps": 3}})
    path = launched(ident)
    everything = set(runs())
    found, said = prune(CONFIG, "--delete", "--older-than", 0)
    assert found == 0 and set(runs()) == everything, said
    assert f"{path}, started 1 h ago, names it: its jobs may still wait" in said
    # an orphan of code that was edited since is the launch's as well, and nothing of it stays behind here
    known = code.memo()
    write_json(
        path, {**json.loads(path.read_text()), "code": {**known, "digests": {k: "0" * 16 for k in known["digests"]}}}
    )
    assert "names it" not in prune(CONFIG)[1] and code.memo() == known
    # what cannot be read may name anything
    path.write_text("{}")
    found, said = prune(CONFIG, "--delete", "--older-than", 0)
    assert found == 0 and set(runs()) == everything and "cannot be read (KeyError" in said
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


def test_adoptions_are_no_config(prune: Callable) -> None:
    begin()
    Path("config/adoptions.yaml").write_text(
        "- {from: '0123456789abcdef', to: 'fedcba9876543210', what: a, reason: b, date: c}\n"
    )
    found, said = prune(CONFIG, "config/adoptions.yaml")
    assert found == 0 and "no orphans" in said


def test_links_are_left_and_their_target_is_not_counted(prune: Callable, tmp_path: Path) -> None:
    ident = begin()
    linked, *others = map(ident.folder, ident.specs)
    scratch = tmp_path / "scratch"
    linked.rename(scratch)
    (scratch / "weights").write_bytes(bytes(1000))
    linked.symlink_to(scratch)
    (others[0] / "weights").symlink_to(scratch / "weights")
    (others[0] / "copy").hardlink_to(scratch / "weights")
    (others[0] / "gone").symlink_to("nowhere")
    age(Path("results"))
    age(scratch)
    edit(*LEARNING_RATE)
    found, said = prune(CONFIG, "--json")
    sizes = {each["path"]: each["bytes"] for each in json.loads(said[: said.rindex("]") + 1])}
    assert sizes[str(linked)] == 0, "deleting it would free nothing"
    assert sizes[str(others[0])] < 1000 + (others[0] / "spec.json").stat().st_size
    found, said = prune(CONFIG, "--delete", "--older-than", 0)
    assert found == 0 and f"kept {linked}: a link to {scratch}" in said
    assert runs() == [linked.name] and (scratch / "spec.json").is_file(), "the others went all the same"


def test_one_that_cannot_be_deleted_does_not_keep_the_others(prune: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    ident = begin()
    first, *_ = map(ident.folder, ident.specs)
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


@pytest.mark.parametrize("wrong", ["nan", "-1", "inf", "soon"])
@pytest.mark.parametrize("flag", ["--older-than", "--launched-within"])
def test_hours_are_hours(prune: Callable, flag: str, wrong: str) -> None:
    begin()
    edit(*LEARNING_RATE)
    found, said = prune(CONFIG, "--delete", f"{flag}={wrong}")
    assert found == 2 and len(said.splitlines()) == 1 and len(runs()) == 3
    assert flag in said and repr(wrong) in said and "0 or more" in said
