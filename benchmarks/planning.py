"""How long plan, explain and a launch that finds nothing to do take, on grids of which nothing and everything is finished.

    python -m benchmarks.planning FOLDER [RUNS …]

writes configs of so many runs in FOLDER, and for the finished ones each folder with its spec, a record and a marker, which is
all that these commands read. Both wall time and CPU time are printed: on a machine that others use, only the second says what
a command takes.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import yaml

from deconattn.experiment.identity import Identity
from deconattn.experiment.load import load_settings
from deconattn.experiment.record import mark, write_record, write_spec
from tests.project import CONFIG, Project

GRID = "config/many.yaml"


def build(folder: Path, runs: int, finished: bool) -> Project:
    """A project with a grid of so many runs."""
    project = Project.copy(folder)
    config = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
    shares = [runs // 3 + (rank < runs % 3) for rank in range(3)]
    kinds = (("standard", "uniform"), ("mlp", "uniform"), ("rndembqk", "even"))
    config["name"] = "many"
    config["grid"] = [
        {"models": ["tiny"], "variants": [variant], "layouts": [layout], "seeds": list(range(share))}
        for (variant, layout), share in zip(kinds, shares, strict=True)
    ]
    (folder / GRID).write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    os.chdir(folder)
    for one in Identity(load_settings([GRID])).artefacts.values() if finished else ():
        write_spec(one.folder, one.spec)
        write_record(one.folder, one.spec, [], ended=1.0, seconds=60.0, processes=1, steps=12, status="finished")
        for suffix in ("png", "html"):
            (one.folder / f"{one.folder.name.partition('-')[0]}.{suffix}").touch()
        mark(one.folder)
    return project


def measure(project: Project, command: list[str]) -> tuple[float, float]:
    """(wall seconds, CPU seconds)."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    done = subprocess.run(command, cwd=project.folder, env=project.environment(), capture_output=True, text=True)
    wall = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr[-3000:]
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def report(project: Project, label: str, config: str) -> None:
    """Each command twice; the quicker time counts (the first may have compiled the code)."""
    python = [sys.executable, "-m", "deconattn"]
    commands = {
        "plan": [*python, "plan", config],
        "dry run": project.command("-n", "--quiet", config=config),
        "explain": [*python, "explain", config],
    }
    for name, command in commands.items():
        pairs = [measure(project, command) for _ in range(2)]
        print(f"| {label} | {name} | {min(p[0] for p in pairs):.1f} | {min(p[1] for p in pairs):.1f} |", flush=True)


def main(folder: Path, sizes: list[int]) -> None:
    """Build and measure."""
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print("| grid | command | wall s | CPU s |\n| --- | --- | ---: | ---: |", flush=True)
    report(Project.copy(folder / "paper"), "paper, nothing finished", "config/paper.yaml")
    for runs in sizes:
        for finished in (False, True):
            label = f"{runs:,} runs, {'all' if finished else 'nothing'} finished"
            report(build(folder / f"{runs}-{finished}", runs, finished), label, GRID)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), [int(size) for size in sys.argv[2:]] or [100, 1040])
