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

import pyarrow.parquet as pq
import pytest

from deconattn.files import sha256_file
from deconattn.training import checkpoint
from tests.conftest import ROOT, skip_or_fail
from tests.training import command, disturb, make_run, state, train, wait_for

pytestmark = pytest.mark.xdist_group("training")
OFTEN = ("--checkpoint-minutes", "0")


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory, token_table: Path) -> Path:
    """A training that was stopped with two checkpoints."""
    run = make_run(tmp_path_factory.mktemp("interrupted") / "undisturbed")
    code, _ = disturb(run, token_table, signal.SIGTERM, lambda: len(checkpoints(run)) == 2, *OFTEN)
    assert code == 75 and len(checkpoints(run)) == 2
    return run


def checkpoints(run: Path) -> list[Path]:
    return sorted(run.glob("checkpoints/step-*"))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        pytest.param(lambda c: truncate(c / "model.safetensors"), "model.safetensors is damaged", id="truncated"),
        pytest.param(lambda c: flip(c / "optimizer.safetensors"), "optimizer.safetensors is damaged", id="flipped"),
        pytest.param(lambda c: (c / "manifest.json").unlink(), "manifest.json is missing", id="missing manifest"),
        pytest.param(lambda c: (c / "train.parquet").unlink(), "train.parquet is missing", id="missing curve"),
    ],
)
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(
    damage: Callable[[Path], None], said: str, interrupted: Path, undisturbed: Path, token_table: Path, tmp_path: Path
) -> None:
    run = tmp_path / "undisturbed"
    shutil.copytree(interrupted, run)
    before, newest = checkpoints(run)
    damage(newest)
    done = train(run, token_table)
    assert f"undisturbed: {newest}: {said}" in done.stderr
    assert f"undisturbed: resumed after step {int(before.name[5:])}\n" in done.stderr
    assert done.returncode == 0 and state(run) == state(undisturbed)


def foreign(place: Path) -> None:
    """Make it one of the same run on other tokens, whole."""
    state = json.loads((place / "state.json").read_text())
    (place / "state.json").write_text(json.dumps(state | {"spec_hash": "0123abcd-other"}))
    manifest = json.loads((place / "manifest.json").read_text())
    manifest["state.json"] = sha256_file(place / "state.json")
    (place / "manifest.json").write_text(json.dumps(manifest))


def content(folder: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in folder.iterdir()}


def test_checkpoints_that_are_all_unusable_do_not_take_the_place_of_new_ones(
    undisturbed: Path, token_table: Path, tmp_path: Path
) -> None:
    """Their numbers are the highest: nothing that the training writes may be taken for older than they are."""
    run = tmp_path / "undisturbed"
    shutil.copytree(undisturbed, run)
    (run / "done.json").unlink()
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


def test_a_damaged_checkpoint_is_not_one_of_the_two_that_are_kept(
    interrupted: Path, token_table: Path, tmp_path: Path
) -> None:
    run = tmp_path / "undisturbed"
    shutil.copytree(interrupted, run)
    shutil.rmtree(run / "log")
    before, newest = checkpoints(run)
    truncate(newest / "model.safetensors")
    os.rename(newest, newest.with_name("step-00000059"))
    good = content(before)
    code, _ = disturb(run, token_table, signal.SIGTERM, lambda: "step 6/" in log(run))
    assert code == 75
    # One was written, for the stop: beside it there is the one that it came from.
    assert checkpoints(run)[0] == before and len(checkpoints(run)) == 2 and content(before) == good
    assert [path.name for path in run.glob("checkpoints/rejected-*")] == ["rejected-step-00000059"]


def test_a_damaged_checkpoint_makes_room_for_the_one_of_its_name(
    interrupted: Path, undisturbed: Path, token_table: Path, tmp_path: Path
) -> None:
    run = tmp_path / "undisturbed"
    shutil.copytree(interrupted, run)
    truncate(checkpoints(run)[1] / "model.safetensors")
    done = train(run, token_table, *OFTEN)
    assert done.returncode == 0 and state(run) == state(undisturbed)
    assert [path.name for path in run.glob("checkpoints/rejected-*")] == [
        "rejected-" + checkpoints(interrupted)[1].name
    ]


def test_a_finished_training_keeps_its_last_checkpoint_and_not_a_rejected_one(
    undisturbed: Path, token_table: Path, tmp_path: Path
) -> None:
    """Resumed at its end it writes no checkpoint, only results: those too must not count what is not the run's."""
    run = tmp_path / "undisturbed"
    shutil.copytree(undisturbed, run)
    (run / "done.json").unlink()
    (last,) = checkpoints(run)
    shutil.copytree(last, last.with_name("step-00000099"))
    done = train(run, token_table)
    assert done.returncode == 0 and "step-00000099: holds step 60, which is not its name's" in done.stderr
    assert state(run) == state(undisturbed) and checkpoints(run) == [last]


def test_what_cannot_be_set_aside_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (3, 8, 9, 40):
        (tmp_path / f"step-{step:08d}").mkdir()
    rejected, said = [tmp_path / "step-00000008", tmp_path / "step-00000040"], []
    monkeypatch.setattr(checkpoint.os, "rename", lambda *_: (_ for _ in ()).throw(PermissionError(1, "not permitted")))
    checkpoint.keep_last(tmp_path / "step-00000009", 2, rejected, said.append)
    assert [path.name for path in checkpoint.checkpoints(tmp_path)] == [f"step-{n:08d}" for n in (3, 8, 9, 40)]
    assert [line.endswith("could not be set aside (not permitted); it does not count") for line in said] == [True, True]
    checkpoint.keep_last(tmp_path / "step-00000041", 1, rejected, said.append)  # it is not there: nothing makes room
    assert len(checkpoint.checkpoints(tmp_path)) == 4


def log(run: Path) -> str:
    path = run / "log" / "pretrain.log"
    return path.read_text() if path.exists() else ""


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


def test_a_full_disk_stops_with_the_last_checkpoint_intact(
    mounted: Callable[..., Path], undisturbed: Path, token_table: Path
) -> None:
    place = mounted("-t", "tmpfs", "-o", "size=8m", "tmpfs")
    run, filler = make_run(place / "undisturbed"), place / "filler"
    with subprocess.Popen(command(run, token_table, *OFTEN), cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: len(checkpoints(run)) == 2, process)
        process.send_signal(signal.SIGSTOP)  # it is not to end while the disk fills
        with open(filler, "wb", buffering=0) as stream, pytest.raises(OSError, match="No space left"):
            while True:
                stream.write(bytes(4096))
        process.send_signal(signal.SIGCONT)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 2 and "Traceback" not in said
    last = checkpoints(run)[-1]
    assert "the checkpoint could not be written (" in said.splitlines()[-1]
    assert said.splitlines()[-1].endswith(f"; the last one is {last.name}")
    assert not list(run.glob("checkpoints/.*"))
    filler.unlink()
    done = train(run, token_table)
    assert f"resumed after step {int(last.name[5:])}\n" in done.stderr
    assert done.returncode == 0 and state(run) == state(undisturbed)


def test_a_disk_that_is_full_when_results_are_written_loses_nothing(
    mounted: Callable[..., Path], undisturbed: Path, token_table: Path
) -> None:
    place = mounted("-t", "tmpfs", "-o", "size=8m", "tmpfs")
    run = place / "undisturbed"
    shutil.copytree(undisturbed, run)
    (run / "done.json").unlink(), (run / "train.parquet").unlink(), shutil.rmtree(run / "model")
    with open(place / "filler", "wb", buffering=0) as stream, pytest.raises(OSError, match="No space left"):
        while True:
            stream.write(bytes(4096))
    os.truncate(place / "filler", (place / "filler").stat().st_size - 20 * 4096)
    done = train(run, token_table)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "could not be written" in done.stderr.splitlines()[-1] and not (run / "done.json").exists()
    (place / "filler").unlink()
    assert train(run, token_table).returncode == 0
    assert state(run) == state(undisturbed)


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
        pytest.param(truncate, UNREADABLE.format(".*footer"), id="truncated"),
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


def test_a_file_in_the_place_of_a_folder_is_one_line(token_table: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "log").write_text("a file where the folder of logs should be")
    done = train(run, token_table)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
