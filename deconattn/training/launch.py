"""Several processes for one training: torchrun with an exit code that means something, on one node or several.

torchrun turns every failure of a process into 1. A scheduler must tell "stopped in time, try again" (75) and "bad input"
(2) from a crash, so this calls torchrun as a library and ends as its processes did. It passes signals on to them: they
know how to save. On several nodes srun starts one of these on each, and its environment says where they meet.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path

import psutil

from deconattn.training.lock import mark_killed
from deconattn.training.stops import EXIT_PREEMPTED, LAUNCHER, SIGNALS, hear, leave

PORTS = (20_000, 30_000)  # where nodes meet: one of them, by the number of the job


def launch(processes: int, arguments: list[str]) -> int:
    """Run `python -m deconattn pretrain RUN …` (`arguments`) in `processes` processes on this node; returns the exit code.

    0 when all ended well; 75 when one was stopped in time; else that of the first that failed, 1 if a signal killed it.
    """
    # A thread hears signals, so that a launcher that is deep in an import or waits for other nodes hears them too. What it
    # starts has them blocked until it can handle them.
    os.environ[LAUNCHER] = str(os.getpid())
    threading.Thread(target=_pass_signals_on, args=hear(), name="listener", daemon=True).start()
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # A process says itself, in one line, why it ends.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    # torchrun's own handler of these signals would end the processes before they have saved.
    options = [*_meeting_place(), f"--nproc-per-node={processes}", "--signals-to-handle=SIGHUP", "-m", "deconattn"]
    try:
        torchrun.run(torchrun.parse_args([*options, *arguments]))
    except ChildFailedError as error:
        codes = [failure.exitcode for failure in error.failures.values()]
        if -signal.SIGKILL in codes:
            mark_killed(Path(arguments[1]))
        if EXIT_PREEMPTED in codes:
            return EXIT_PREEMPTED
        return max(1, error.get_first_failure()[1].exitcode)
    return 0


def _meeting_place() -> list[str]:
    nodes = int(os.environ.get("SLURM_STEP_NUM_NODES", "1"))
    if nodes == 1:
        return ["--standalone"]
    first, last = PORTS
    port = first + int(os.environ["SLURM_JOB_ID"]) % (last - first)
    return [
        f"--nnodes={nodes}", f"--node-rank={os.environ['SLURM_NODEID']}",
        f"--master-addr={os.environ['SLURM_LAUNCH_NODE_IPADDR']}", f"--master-port={port}",
    ]  # fmt: skip


def _pass_signals_on(heard: socket.socket, _speaks: socket.socket) -> None:
    """Send each signal on to the processes of this launcher: those that are there, and those that come later.

    A launcher that has started nothing yet ends at once with 75: a process that it was just starting sees that it has gone.
    """
    number: int | None = None
    told: set[int] = set()
    while True:
        with suppress(TimeoutError):
            for value in heard.recv(64):
                if value in SIGNALS:
                    number, told = value, set()
                    heard.settimeout(0.1)
        if number is None:
            continue
        children = psutil.Process().children()
        if not children and not told:
            leave(signal.Signals(number).name)
        for child in children:
            if child.pid not in told:
                told.add(child.pid)
                with suppress(psutil.Error):  # it has ended by itself
                    child.send_signal(number)


if __name__ == "__main__":
    sys.exit(launch(int(sys.argv[1]), sys.argv[2:]))
