"""How long plan, explain and a launch that finds nothing to do take on finished grids of 100 and 1,000 runs.

    python -m benchmarks.planning FOLDER [RUNS …]

builds them in FOLDER and prints a table. How they are made: the small test grid (3 runs) is really run to its end.
Its three runs are then copied to the names of the larger grid, with the spec of each, its own name and seed in its
records and Parquet, sums and Snakemake's notes made anew to fit; `deconattn verify` has to find no fault with them.
Tables and figures are then really gathered and drawn by Snakemake. So files, records and notes are as after a real
grid, but for their numbers, which repeat.

Both wall time and CPU time are printed: on a machine that others use, only the second says what the command takes.
"""

from __future__ import annotations

import base64
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from deconattn.experiment.identity import Identity
from deconattn.experiment.records import read_record, sealed, sums
from deconattn.experiment.settings import load_settings
from deconattn.experiment.states import OUTPUTS, WEIGHTS
from deconattn.files import sha256_file, write_json
from tests.project import CONFIG, Project

GRID = "config/many.yaml"
TABLES = ("evaluation.parquet", "samples.parquet", "attention.parquet", "scores.parquet")


def build(small: Project, folder: Path, runs: int) -> Project:
    """A finished grid of so many runs from the finished small one."""
    shutil.copytree(small.folder, folder, symlinks=True)
    project = Project(folder)
    config = yaml.safe_load((folder / CONFIG).read_text())
    config["name"] = "many"
    shares = [runs // 3 + (rank < runs % 3) for rank in range(3)]
    config["grid"] = [
        {"models": ["tiny"], "variants": [variant], "layouts": [layout], "seeds": list(range(share))}
        for (variant, layout), share in zip(
            (("standard", "uniform"), ("mlp", "uniform"), ("rndembqk", "even")), shares, strict=True
        )
    ]
    (folder / GRID).write_text(yaml.safe_dump(config, sort_keys=False))
    os.chdir(folder)
    ident = Identity(load_settings([GRID]))
    manifest = sha256_file(ident.tokens / "manifest.json")
    for name, spec in ident.specs.items():
        model = spec["model"]
        source = next(Path("results/runs").glob(f"tiny-{model['variant']}-{model['layout']}-s0-*"))
        if source.name != name:
            _copy_run(source, ident, name, manifest)
    done = project.snakemake("--quiet", "rules", config=GRID, timeout=3000)
    assert done.returncode == 0, done.stderr[-3000:]
    return project


def _copy_run(source: Path, ident: Identity, name: str, manifest: str) -> None:
    spec, target = ident.specs[name], ident.folder(name)
    shutil.copytree(source, target)
    write_json(target / "spec.json", {**spec, "tokens": {**spec["tokens"], "manifest_sha256": manifest}})
    done, _ = read_record(target / "done.json")
    assert done
    key = f"{spec['hash']}-{manifest[:16]}"
    files = sums(target, [file for file in OUTPUTS["pretrain"] if file != "done.json"])
    write_json(target / "done.json", sealed({**done, "run": name, "hash": spec["hash"], "key": key, "files": files}))
    for table in TABLES:
        if (target / table).is_file():
            _rename(target / table, name, spec["seed"])
    for stage, wanted in (("evaluate", ident.evaluation_spec), ("analyse", ident.analysis_spec)):
        *tables, record = OUTPUTS[stage]
        found, _ = read_record(target / record)
        if found:
            facts = {"run": name, "spec": wanted(name), "weights": files[WEIGHTS], "files": sums(target, tables)}
            write_json(target / record, sealed({**found, **facts}))
    for path in [*(target / file for stage in OUTPUTS for file in OUTPUTS[stage]), target / "spec.json"]:
        note = _note(source / path.relative_to(target))
        if path.is_file() and note.is_file():
            _note(path).write_text(note.read_text().replace(source.name, name))


def _rename(path: Path, name: str, seed: int) -> None:
    table = pq.read_table(path)
    for column, value, kind in (("run", name, pa.string()), ("seed", seed, pa.int64())):
        if column in table.column_names:
            table = table.set_column(table.column_names.index(column), column, pa.array([value] * table.num_rows, kind))
    pq.write_table(table, path, compression="zstd")


def _note(path: Path) -> Path:
    """Snakemake's record of an output."""
    return Path(".snakemake/metadata") / base64.b64encode(str(path).encode()).decode()


def measure(project: Project, command: list[str]) -> tuple[float, float, str]:
    """(wall seconds, CPU seconds, what it said)."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    done = subprocess.run(command, cwd=project.folder, env=project.environment(), capture_output=True, text=True)
    wall = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr[-3000:]
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu, done.stdout + done.stderr


def report(project: Project, label: str, config: str) -> None:
    """Each command twice; the quicker time counts (the first may have compiled the code)."""
    python = [sys.executable, "-m"]
    commands = {
        "plan": [*python, "deconattn", "plan", config],
        "no-op launch": project.command(config=config),
        "explain": [*python, "deconattn", "explain", config],
    }
    for name, command in commands.items():
        if name == "no-op launch" and label.startswith("paper"):
            continue
        pairs = [measure(project, command) for _ in range(2)]
        wall, cpu = min(pair[0] for pair in pairs), min(pair[1] for pair in pairs)
        if name == "no-op launch":
            assert "Nothing to be done" in pairs[-1][2], pairs[-1][2]
        print(f"| {label} | {name} | {wall:.1f} | {cpu:.1f} |", flush=True)


def main(folder: Path, sizes: list[int]) -> None:
    """Build and measure."""
    folder.mkdir(parents=True)
    small = Project.copy(folder / "small")
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print("| grid | command | wall s | CPU s |\n| --- | --- | ---: | ---: |", flush=True)
    report(small, "paper, nothing finished", "config/paper.yaml")
    done = small.snakemake("--quiet", "rules")
    assert done.returncode == 0, done.stderr[-3000:]
    for runs in sizes:
        project = build(small, folder / str(runs), runs)
        report(project, f"{runs:,} runs, finished", GRID)
        verified = project.deconattn("verify")
        assert verified.returncode == 0, verified.stdout[-3000:]
    print(json.dumps({"load": os.getloadavg()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), [int(size) for size in sys.argv[2:]] or [100, 1000])
