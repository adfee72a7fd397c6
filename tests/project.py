"""A copy of this checkout in which the real Snakemake runs, as a user would run it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from deconattn.files import sha256_file
from tests import forks, warm

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("Snakefile", "slurm", "config", "snakemake_logger_plugin_deconattn", "deconattn", "profiles", "workflow",
          "tests/data/mirror")  # fmt: skip
CONFIG = "config/test.yaml"


def named(rule: str, folder: str, part: str = "") -> tuple[str, str]:
    """A job without hashes: evaluations and analyses by their run."""
    path = Path(folder)
    name = path.parent.name if rule in ("evaluate", "analyse") else path.name
    return rule, re.sub(r"-[0-9a-f]{8}$", "", name) + (f"#{int(part)}" if part else "")


@dataclass
class Project:
    """A folder with the project's files and results."""

    folder: Path

    @classmethod
    def copy(cls, folder: Path) -> Project:
        """The checkout's code and configs, without results."""
        for name in COPIED:
            source, target = ROOT / name, folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_symlink():
                target.symlink_to(os.readlink(source))
            elif source.is_dir():
                shutil.copytree(source, target, symlinks=True)  # compiled files too: they stay valid
            else:
                shutil.copy2(source, target)
        return cls(folder)

    def environment(self) -> dict[str, str]:
        """As in a user's shell, one thread a process."""
        return {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "XDG_CACHE_HOME": str(self.folder / ".cache"),
            # the folder's own package, and what a test puts beside it
            "PYTHONPATH": str(self.folder),
        }

    def command(self, *options: str, config: str = CONFIG) -> list[str]:
        """A call of snakemake."""
        return [sys.executable, "-m", "snakemake", "--configfile", config, *options]

    def start(self, *options: str, config: str = CONFIG) -> forks.Fork:
        """Start snakemake, its jobs in forks that share their start-up."""
        environment = {**self.environment(), "WARM_PYTHON": str(warm.python())}
        return forks.Fork("snakemake", ["--configfile", config, *options], self.folder, environment)

    def snakemake(self, *options: str, config: str = CONFIG, timeout: float = 900) -> subprocess.CompletedProcess[str]:
        """Run snakemake to its end."""
        return forks.finish(self.start(*options, config=config), timeout)

    def planned(self, *options: str, config: str = CONFIG) -> dict[str, int]:
        """Jobs by rule that snakemake would run; raises when the dry run fails."""
        done = self.snakemake("-n", "--quiet", "reason", *options, config=config)
        assert done.returncode == 0, done.stdout + done.stderr
        table = re.search(r"job +count\n[- ]+\n(.*?)\ntotal", done.stdout + done.stderr, re.DOTALL)
        if table is None:
            assert "Nothing to be done" in done.stdout + done.stderr
            return {}
        return {
            name: int(count) for name, count in (line.split() for line in table.group(1).splitlines()) if name != "all"
        }

    def jobs(self, config: str = CONFIG) -> list[tuple[str, str]]:
        """(rule, folder without hashes, with its part) of each job that a launch would run, by the package's own plan."""
        return sorted(named(rule, folder, part) for rule, folder, part in self.plan(config))

    def plan(self, config: str = CONFIG) -> list[tuple[str, str, str]]:
        """(rule, folder, part) of each job that a launch would run."""
        done = forks.run("tests.project", [config], self.folder, self.environment(), timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return [tuple(job) for job in json.loads(done.stdout)]

    def planned_jobs(self, *options: str, config: str = CONFIG) -> list[tuple[str, str]]:
        """The same, as the real Snakemake's dry run lists it."""
        done = self.snakemake("-n", *options, config=config)
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
        found = re.findall(r"^(?:local)?rule (\w+):\n(?:    .*\n)*?    output: (.*)$", said, re.MULTILINE)
        markers = [(rule, Path(outputs.split(", ")[-1])) for rule, outputs in found]
        return sorted(named(rule, str(marker.parent), marker.name.partition("-")[2]) for rule, marker in markers)

    def records(self) -> dict[str, str]:
        """Every record → its SHA-256: what differs afterwards was made in between."""
        paths = [path for top in ("results", "resources") for path in (self.folder / top).rglob("record*.json")]
        return {str(path.relative_to(self.folder)): sha256_file(path) for path in paths}

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace one passage of a file."""
        path = self.folder / file
        text = path.read_text()
        assert text.count(old) >= 1, f"{file} does not contain {old!r}"
        path.write_text(text.replace(old, new, 1))

    def edit_all(self, file: str, old: str, new: str) -> None:
        """Replace a passage of a file wherever it stands."""
        path = self.folder / file
        path.write_text(path.read_text().replace(old, new))

    def deconattn(self, *arguments: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run a command of the package in the project's folder."""
        return forks.run("deconattn", arguments, self.folder, self.environment(), timeout)

    def runs(self, pattern: str = "*") -> list[Path]:
        """Run folders."""
        return sorted((self.folder / "results/runs").glob(pattern))


if __name__ == "__main__":  # by the package of the folder in which it runs
    from deconattn.experiment.identity import Identity
    from deconattn.experiment.load import load_settings
    from deconattn.experiment.plan import jobs

    print(json.dumps([(job.rule, job.folder, job.part) for job in jobs(Identity(load_settings(sys.argv[1:])))]))
