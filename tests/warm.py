"""A `python` whose `-m deconattn …` is a fork of one process that has imported what takes seconds, nothing of the project.

Snakemake starts it for each job of a test that is not about processes: the job has its own folder, environment and output, and
shares the start-up alone. What is to be killed or found by its command line is started by the real Python (`Project.command`).
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

PRELOADED = ["torch._dynamo", "torch.distributed.fsdp", "safetensors.torch", "pyarrow.parquet", "pydantic", "psutil", "pandas",
             "scipy.stats", "matplotlib.pyplot", "transformers.modeling_utils", "lm_eval.api.task", "tokenizers",
             "jinja2", "rich.progress"]  # fmt: skip
# What it sends: arguments, folder and environment, with its standard streams; what it gets: the exit code.
CLIENT = """#!{python} -IS
import array, json, os, socket, sys
if sys.argv[1:3] != ["-m", "deconattn"]:
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
said = json.dumps([sys.argv[3:], os.getcwd(), dict(os.environ)]).encode()
server.sendmsg([len(said).to_bytes(8, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
server.sendall(said)
sys.exit(int(server.recv(8) or b"1"))
"""


@cache
def python() -> Path:
    """The program, its server started; one for each worker of the tests."""
    folder = tempfile.TemporaryDirectory(prefix="warm-")
    address, program = f"{folder.name}/socket", Path(folder.name) / "python"
    program.write_text(CLIENT.format(python=sys.executable, address=address))
    program.chmod(0o755)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)  # jobs wait here while the server imports
    number = listener.fileno()
    command = [sys.executable, "-m", "tests.warm", str(number)]
    server = subprocess.Popen(
        command,
        cwd=Path(__file__).parent.parent,
        stdin=subprocess.PIPE,
        pass_fds=[number],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    listener.close()
    atexit.register(folder.cleanup)
    atexit.register(server.kill)
    return program


def serve(listener: socket.socket) -> None:
    """Fork for each connection, until standard input closes as its worker ends."""
    from deconattn.evaluation.lm_eval_setup import set_up

    set_up()
    for module in PRELOADED:
        importlib.import_module(module)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("tests", "deconattn")]:
        del sys.modules[name]
    while sys.stdin not in (ready := select.select([sys.stdin, listener], [], [], 1)[0]):
        if listener in ready:
            connection = listener.accept()[0]
            if os.fork() == 0:
                answer(connection)
            connection.close()
        while True:  # those that are over
            try:
                if os.waitpid(-1, os.WNOHANG) == (0, 0):
                    break
            except ChildProcessError:
                break


def answer(connection: socket.socket) -> None:
    """Run one command in a child, and send its exit code."""
    length, streams, _, _ = socket.recv_fds(connection, 8, 3)
    said = b""
    while len(said) < int.from_bytes(length, "big"):
        said += connection.recv(1 << 16)
    pid = os.fork()
    if pid == 0:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        connection.close()
        run(*json.loads(said))
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    connection.sendall(str(code if code >= 0 else 128 - code).encode())
    os._exit(0)


def run(arguments: list[str], cwd: str, environment: dict[str, str]) -> None:
    """`python -m deconattn arguments` by the package of the folder, or of its PYTHONPATH."""
    import runpy

    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    first = [cwd, *filter(None, environment.get("PYTHONPATH", "").split(":"))]
    sys.path[:] = [*first, *(path for path in sys.path if path not in first)]
    sys.argv = ["deconattn", *arguments]
    code = 0
    try:
        runpy.run_module("deconattn", run_name="__main__", alter_sys=True)
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
