"""What every job does around its work: lock, look for a valid record, check code and sources, leave a record.

So a job is idempotent: where a valid record stands, it only sets the marker.
"""

from __future__ import annotations

import functools
import importlib
import shutil
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deconattn.errors import UserError
from deconattn.experiment import record
from deconattn.experiment.code import keep, reach, read_again, roots_of
from deconattn.pieces import Pieces

WEIGHTS = "model/model.safetensors"
DRAWN = ("figure", "table", "page")
"""Stages whose pictures and pages Snakemake declares: that of a second launch deletes them before it starts its own job."""
Work = Callable[[dict[str, Any], Namespace], Iterable[str]]
"""Spec and command-line options → names of the files that were made in `options.folder`."""


def job(*stages: str, first: Callable[[], None] = lambda: None) -> Callable[[Work], Callable[[Namespace], None]]:
    """Decorator: a subcommand that does the work of `options.folder`, or of its part, unless a valid record stands.

    `first` is called before the modules that the work uses are imported. The subcommand raises `UserError` for no spec, one
    of another stage, code that was edited since, or a source that is gone.
    """

    def subcommand(work: Work) -> Callable[[Namespace], None]:
        @functools.wraps(work)
        def run(options: Namespace) -> None:
            first()
            folder, part = options.folder, getattr(options, "part", "")
            spec = record.read_spec(folder)
            if (stage := spec.get("stage")) not in stages:
                path = folder / record.SPEC
                raise UserError(f"{path}: of stage {stage!r}; this command does {' or '.join(stages)}")
            owned = _stoppable(options) if "deadline_minutes" in options else record.locked(folder, part)
            with owned, record.noted(folder):
                if not record.standing(folder, spec, part):
                    load_and_check(spec, folder)
                    started, facts = time.time(), {}
                    if "device" in options:
                        from deconattn.device import device_name

                        facts["device"] = device_name(options.device)
                    for may_repeat in (stage in DRAWN, stage in DRAWN, False):
                        try:
                            write_record(folder, spec, work(spec, options), started, part, **facts)
                            break
                        except FileNotFoundError:
                            if not may_repeat:
                                raise
                record.mark(folder, part)
                for kept in folder.glob("pieces-*"):
                    shutil.rmtree(kept, ignore_errors=True)

        return run

    return subcommand


@contextmanager
def _stoppable(options: Namespace) -> Iterator[None]:
    """The lock of a job that may end at any moment, with 75, as its finished pieces are on disk."""
    from deconattn.training.lock import RunLock
    from deconattn.training.stops import StopWatch

    stops, lock = StopWatch(options.deadline_minutes, options.folder), RunLock(options.folder / "lock")
    try:
        with stops.nothing_to_save():
            lock.acquire(wait=True)
            stops.lock = lock
            yield
    finally:
        stops.close()
        lock.release()


def pieces(folder: Path, spec: dict[str, Any]) -> Pieces:
    """The finished pieces of a result, made from what its sources are now: other weights of a run have other ones."""
    return Pieces(folder / f"pieces-{record.short_hash(_sources(spec))}")


def _sources(spec: dict[str, Any]) -> dict[str, str | None]:
    return {path: (record.read_record(path) or {}).get("sum") for path in record.made_from(spec)}


def _comes_back(source: str) -> bool:
    """Whether a picture's record is there again within a minute: a second launch may be drawing it anew."""
    end = time.monotonic() + 60
    while (found := record.read_record(source)) is None and time.monotonic() < end:
        time.sleep(0.2)
    return found is not None


def load_and_check(spec: dict[str, Any], folder: Path) -> None:
    """Import all that a job can reach, then refuse if it is not its spec's code, or if what it is made from is not finished.

    In this order: what is edited after it was imported cannot run, what was edited before is noticed.

    Raises:
        UserError: the code was edited while the job was waiting, a folder that the spec names has no record, a run no weights.
    """
    if "code" in spec:
        for module in reach(*roots_of(spec))["modules"]:
            importlib.import_module(module)
        read_again()
        if (now := reach(*roots_of(spec))["digest"]) != spec["code"]:
            raise UserError(
                f"{folder / record.SPEC}: written for code {spec['code']}, but the code here is {now}: it was edited since; "
                "start snakemake again"
            )
        keep()
    for source in record.made_from(spec):
        if record.read_record(source) is None and not (spec["stage"] == "page" and _comes_back(source)):
            raise UserError(f"{record.record_path(source)}: no such record, and it is needed; start snakemake again")
    if (run := _run_of(spec)) and not (run / WEIGHTS).is_file():
        raise UserError(
            f"{run / WEIGHTS}: gone, and it is needed; to train again from what is left, delete {run / record.DONE}"
        )


def write_record(
    folder: Path, spec: dict[str, Any], files: Iterable[str], started: float, part: str = "", **facts: Any
) -> None:
    """Write the record of a job, with the code that did it and the state of what it was made from."""
    ended, code = time.time(), reach(*roots_of(spec))
    facts |= {"started": started, "ended": ended, "seconds": ended - started, **facts}
    facts |= {"made_by": code["digest"], "definitions": code["definitions"]}
    facts["sources"] = _sources(spec)
    if run := _run_of(spec):
        facts["weights"] = ((record.read_record(run) or {}).get("files") or {})[WEIGHTS]["sha256"]
    record.write_record(folder, spec, files, part, **facts)


def _run_of(spec: dict[str, Any]) -> Path | None:
    """The trained run that an evaluation or analysis reads."""
    run = (spec.get("made_from") or {}).get("run")
    return Path(run) if run else None
