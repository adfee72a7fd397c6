"""Faults on purpose: each is named in one line, and nothing is lost. The table of them stands in docs/faults.md."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import Mock

import pyarrow.parquet as pq
import pytest
import torch

from deconattn.errors import UserError
from deconattn.files import sha256_file
from deconattn.training import checkpoint
from deconattn.training.checkpoint import FILES, Checkpoints
from deconattn.training.parallel import Process
from tests.conftest import skip_or_fail
from tests.training import PATIENCE, checkpoints, disturb, log, make_run, start, state, train, wait_for

OFTEN = ("--checkpoint-minutes", "0")


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory, token_table: Path) -> Path:
    """A training that was stopped with two checkpoints."""
    run = make_run(tmp_path_factory.mktemp("interrupted") / "undisturbed")
    code, _ = disturb(run, token_table, signal.SIGTERM, lambda: len(checkpoints(run)) == 2, *OFTEN)
    assert code == 75 and len(checkpoints(run)) == 2
    return run


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def foreign(place: Path) -> None:
    """Make it one of the same run on other tokens, whole."""
    state = json.loads((place / "state.json").read_text())
    (place / "state.json").write_text(json.dumps(state | {"spec_hash": "0123abcd-other"}))
    manifest = json.loads((place / "manifest.json").read_text())
    manifest["state.json"] = sha256_file(place / "state.json")
    (place / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        pytest.param(lambda c: truncate(c / FILES[0]), "model.safetensors is damaged (its SHA-256", id="truncated"),
        pytest.param(lambda c: flip(c / FILES[1]), "optimizer.safetensors is damaged (its SHA-256", id="flipped"),
        pytest.param(lambda c: (c / FILES[2]).unlink(), "train.parquet is missing", id="missing curve"),
        pytest.param(lambda c: (c / "manifest.json").unlink(), "manifest.json is missing", id="missing manifest"),
        pytest.param(lambda c: truncate(c / "manifest.json"), "not readable (", id="cut manifest"),
        pytest.param(foreign, "belongs to spec 0123abcd-other, this run is key", id="foreign"),
        pytest.param(lambda c: shutil.copytree(c.with_name("step-00000003"), c, dirs_exist_ok=True),
                     "holds step 3, which is not its name's", id="renamed"),
    ],
)  # fmt: skip
def test_an_unusable_newest_checkpoint_is_set_aside_and_the_one_before_taken(
    damage: Callable[[Path], object], problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed: list[str] = []
    kept = Checkpoints(tmp_path, "key", Process(0, 1, torch.device("cpu")), printed.append)
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(model.parameters())
    for step in (2, 3, 4):
        torch.nn.init.constant_(model.weight, step)
        kept.save(model, optimizer, step, 0.5 * step, [], lambda: None, lambda seconds: None)
    kept.finish()
    newest = tmp_path / "step-00000004"
    damage(newest)
    before = content(newest)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.os, "rename", Mock(side_effect=PermissionError(1, "not permitted")))
        with pytest.raises(UserError, match=r"step-00000004: cannot be set aside \(not permitted\); move it away"):
            kept.load(model, optimizer)
    assert kept.load(model, optimizer) == (3, 1.5, []) and model.weight[0, 0] == 3
    assert printed[-2].startswith(f"{newest}: {problem}") and "going on from the checkpoint before it" in printed[-2]
    assert printed[-1] == f"{newest}: set aside as rejected-{newest.name}, which may be deleted"
    # What it may be good for, the training cannot know.
    assert kept.paths() == [tmp_path / "step-00000003"] and content(tmp_path / f"rejected-{newest.name}") == before


def content(folder: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in folder.iterdir()}


@pytest.mark.slow
def test_checkpoints_that_are_all_unusable_do_not_take_the_place_of_new_ones(
    undisturbed: Path, token_table: Path, tmp_path: Path
) -> None:
    """Their numbers are the highest: nothing that the training writes may be taken for older than they are."""
    run = tmp_path / "undisturbed"
    shutil.copytree(undisturbed, run)
    (run / "record.json").unlink()
    (last,) = checkpoints(run)
    before = last.with_name("step-00000041")
    shutil.copytree(last, before)
    foreign(before), truncate(last / "model.safetensors")
    shutil.rmtree(run / "log")
    kept = {"rejected-" + path.name: content(path) for path in (before, last)}
    code, said = disturb(run, token_table, signal.SIGTERM, lambda: "saved step-00000002" in log(run), *OFTEN)
    assert code == 75 and f"{before}: " in said and "; going on from the beginning" in said
    assert said.count(", which may be deleted\n") == 2
    older, newer = checkpoints(run)
    assert int(newer.name[5:]) == int(older.name[5:]) + 1 < 41
    # What was rejected is as it was: what it may be good for, the training cannot know.
    assert {path.name: content(path) for path in run.glob("checkpoints/rejected-*")} == kept
    done = train(run, token_table)
    assert f"resumed after step {int(newer.name[5:])}\n" in done.stderr and "rejected" not in done.stderr
    assert done.returncode == 0 and state(run) == state(undisturbed)
    assert {path.name: content(path) for path in run.glob("checkpoints/rejected-*")} == kept


@pytest.mark.slow
def test_a_clock_set_back_changes_nothing(
    interrupted: Path, undisturbed: Path, token_table: Path, tmp_path: Path
) -> None:
    """Set back by a year between two attempts: all that is there is dated in the future, the lock too."""
    run = tmp_path / "undisturbed"
    shutil.copytree(interrupted, run)
    for path in [run, *run.rglob("*")]:
        future = path.stat().st_mtime + 365 * 86400
        os.utime(path, (future, future))
    done = train(run, token_table, "--deadline-minutes", "5")
    assert done.returncode == 0 and state(run) == state(undisturbed)


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mounts something at `tmp_path / "place"`, and takes it away again."""
    place = tmp_path / "place"
    place.mkdir()
    if os.geteuid() != 0:
        skip_or_fail("a full disk and a read-only folder need root to be made")

    def mount(*options: str) -> Path:
        subprocess.run(["mount", *options, str(place)], check=True)
        return place

    yield mount
    subprocess.run(["umount", str(place)], check=False)


def fill(place: Path, free: int = 0) -> Path:
    """Fill the disk but for `free` pages; the file to delete."""
    filler = place / "filler"
    with open(filler, "wb", buffering=0) as stream, pytest.raises(OSError, match="No space left"):
        while True:
            stream.write(bytes(4096))
    os.truncate(filler, filler.stat().st_size - free * 4096)
    return filler


def test_a_full_disk_stops_with_what_is_there_intact(
    mounted: Callable[..., Path], undisturbed: Path, token_table: Path
) -> None:
    """At a checkpoint, and when the results are written."""
    place = mounted("-t", "tmpfs", "-o", "size=8m", "tmpfs")
    run = make_run(place / "undisturbed")
    process = start(run, token_table, *OFTEN)
    wait_for(lambda: len(checkpoints(run)) == 2, process)
    process.send_signal(signal.SIGSTOP)  # it is not to end while the disk fills
    filler = fill(place)
    process.send_signal(signal.SIGCONT)
    said = process.communicate(PATIENCE)[1]
    last = checkpoints(run)[-1]
    assert process.returncode == 2 and "Traceback" not in said
    assert "the checkpoint could not be written (" in said.splitlines()[-1]
    assert said.splitlines()[-1].endswith(f"; the last one is {last.name}")
    assert not list(run.glob("checkpoints/.*"))
    filler.unlink()
    done = train(run, token_table)
    assert f"resumed after step {int(last.name[5:])}\n" in done.stderr
    assert done.returncode == 0 and state(run) == state(undisturbed)

    (run / "record.json").unlink(), (run / "train.parquet").unlink(), shutil.rmtree(run / "model")
    filler = fill(place, free=20)
    done = train(run, token_table)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "could not be written" in done.stderr.splitlines()[-1] and not (run / "record.json").exists()
    filler.unlink()
    assert train(run, token_table).returncode == 0 and state(run) == state(undisturbed)


def test_a_read_only_folder_is_one_line(
    mounted: Callable[..., Path], interrupted: Path, token_table: Path, tmp_path: Path
) -> None:
    shutil.copytree(interrupted, tmp_path / "undisturbed")
    place = mounted("--bind", str(tmp_path / "undisturbed"))
    subprocess.run(["mount", "-o", "remount,ro,bind", str(place)], check=True)
    done = train(place, token_table)
    assert done.returncode == 2
    assert done.stderr.strip() == f"{place / 'lock'}: cannot be written (Read-only file system)"
    assert checkpoints(place) == [place / "checkpoints" / one.name for one in checkpoints(tmp_path / "undisturbed")]


def test_a_file_in_the_place_of_a_folder_is_one_line(token_table: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "log").write_text("a file where the folder of logs should be")
    done = train(run, token_table)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr


def lose_row_group(part: Path) -> None:
    """The part as a writer leaves it that lost its row group: whole Parquet without rows."""
    table = pq.read_table(part)
    with pq.ParquetWriter(part, table.schema):
        pass


UNREADABLE = r"row group 0 cannot be read \({}.*\); tokenise again"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        pytest.param(flip, UNREADABLE.format(".*CRC"), id="flipped byte"),
        pytest.param(truncate, UNREADABLE.format(".*footer"), id="truncated", marks=pytest.mark.slow),
        pytest.param(lose_row_group, UNREADABLE.format("0 row groups, the manifest lists 1"), id="missing row group"),
        pytest.param(Path.unlink, "no such file, though manifest.json lists it", id="missing part"),
    ],
)
def test_a_damaged_token_shard_is_named(
    damage: Callable[[Path], None], said: str, interrupted: Path, undisturbed: Path, token_table: Path, tmp_path: Path
) -> None:
    run, tokens = tmp_path / "undisturbed", tmp_path / "tokens"
    shutil.copytree(interrupted, run)
    shutil.copytree(token_table, tokens)
    part = tokens / "part-0001.parquet"
    damage(part)
    done = train(run, tokens)
    assert done.returncode == 2 and re.fullmatch(f"{part}: {said}", done.stderr.splitlines()[-1]), done.stderr
    assert len(checkpoints(run)) == 2
    # Mended, it goes on; once is enough, mending is the same for all.
    if damage is flip:
        shutil.copy(token_table / part.name, part)
        assert train(run, tokens).returncode == 0 and state(run) == state(undisturbed)
