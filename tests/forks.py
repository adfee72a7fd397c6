"""`python -m MODULE …` in forks of one process that has imported what takes seconds: torch and Snakemake, nothing of the project.

Each runs as a process, in a folder and with an environment of its own; only the start-up is shared. A test of the start-up
itself, of what is imported, or of a process that is found by its command line takes a new Python (`subprocess`).
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

PRELOADED = ["torch", "torch._dynamo", "torch.distributed.fsdp", "safetensors.torch", "pyarrow.parquet", "pydantic", "psutil",
             "rich.progress", "snakemake.cli"]  # fmt: skip
_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(PRELOADED)


def _child(module: str, arguments: Sequence[str], cwd: str, env: Mapping[str, str], out: str) -> None:
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(f"{out}/{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    first = [cwd, *filter(None, env.get("PYTHONPATH", "").split(":"))]
    sys.path[:] = [*first, *(path for path in sys.path if path not in first)]
    # `tests` is of this checkout; whatever the program imports is of its folder.
    for name in [name for name in sys.modules if name.partition(".")[0] in ("tests", "deconattn")]:
        del sys.modules[name]
    sys.executable = env.get("WARM_PYTHON", sys.executable)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


class Fork:
    """A running `python -m module arguments`: the part of subprocess.Popen that tests need."""

    def __init__(self, module: str, arguments: Sequence[str], cwd: Path, env: Mapping[str, str]) -> None:
        self.args = [module, *arguments]
        self._out = tempfile.TemporaryDirectory()
        self._process = _server.Process(
            target=_child, args=(module, list(arguments), str(cwd), dict(env), self._out.name), daemon=True
        )
        self._process.start()
        self.pid = self._process.pid
        assert self.pid is not None

    def poll(self) -> int | None:
        return self._process.exitcode

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for the end; what was said on standard output and error."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        out, err = (Path(self._out.name, name) for name in ("out", "err"))
        said = out.read_text() if out.exists() else "", err.read_text() if err.exists() else ""
        self._out.cleanup()
        return said


def run(
    module: str, arguments: Sequence[str], cwd: Path, env: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run `python -m module arguments` to its end, as subprocess.run does."""
    return finish(Fork(module, arguments, cwd, env), timeout)


def finish(process: Fork, timeout: float) -> subprocess.CompletedProcess[str]:
    """Wait for the end of a process; whatever goes wrong meanwhile, it does not live on."""
    try:
        out, err = process.communicate(timeout)
    except BaseException:
        process.kill()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode or 0, out, err)
