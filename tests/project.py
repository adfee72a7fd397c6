"""A copy of this checkout in which the real Snakemake runs, as a user would run it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("Snakefile", "slurm", "config", "deconattn", "profiles", "workflow", "tests/data")
CONFIG = "config/test.yaml"


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
                shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
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

    def snakemake(self, *options: str, config: str = CONFIG, timeout: float = 900) -> subprocess.CompletedProcess[str]:
        """Run snakemake to its end."""
        return subprocess.run(
            self.command(*options, config=config), cwd=self.folder, env=self.environment(),
            capture_output=True, text=True, timeout=timeout,
        )  # fmt: skip

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
        return subprocess.run(
            [sys.executable, "-m", "deconattn", *arguments], cwd=self.folder, env=self.environment(),
            capture_output=True, text=True, timeout=timeout,
        )  # fmt: skip

    def runs(self, pattern: str = "*") -> list[Path]:
        """Run folders."""
        return sorted((self.folder / "results/runs").glob(pattern))
