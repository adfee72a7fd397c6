"""Several processes for one training: torchrun with an exit code that means something, on one node or several.

torchrun turns every failure of a process into 1. A scheduler must tell "stopped in time, try again" (75) and "bad input"
(2) from a crash, so this calls torchrun as a library and ends as its processes did. Signals are passed on to them: they
know how to save. On several nodes one of these runs on each, started by srun, whose environment says where they meet.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from types import FrameType

import psutil
from torch.distributed import run as torchrun
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from deconattn.training.stops import EXIT_PREEMPTED, SIGNALS

PORTS = (20_000, 30_000)  # where nodes meet: one of them, by the number of the job


def launch(processes: int, arguments: list[str]) -> int:
    """Run `python -m deconattn` with `arguments` in `processes` processes on this node; returns the exit code.

    0 when all ended well; 75 when one was stopped in time; else that of the first that failed, 1 if a signal killed it.
    """
    for number in SIGNALS:
        signal.signal(number, _pass_on)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # A process says itself, in one line, why it ends.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    # torchrun's own handler of these signals would end the processes before they have saved.
    options = [
        *_meeting_place(),
        f"--nproc-per-node={processes}",
        "--signals-to-handle=SIGHUP",
        "-m",
        "deconattn",
        *arguments,
    ]
    try:
        torchrun.run(torchrun.parse_args(options))
    except ChildFailedError as error:
        codes = [failure.exitcode for failure in error.failures.values()]
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


def _pass_on(number: int, frame: FrameType | None) -> None:
    for child in psutil.Process().children():
        child.send_signal(number)


if __name__ == "__main__":
    sys.exit(launch(int(sys.argv[1]), sys.argv[2:]))
