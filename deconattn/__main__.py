"""`python -m deconattn` and the `deconattn` script: the command line, and what to install where only the models are."""

from __future__ import annotations

import os
import signal
import sys


def main() -> int:
    """Run the command line; a library of the pipeline that is not installed is one line."""
    if sys.argv[1:2] == ["pretrain"]:
        # Before the imports, which take seconds on a busy file system; until then Ctrl-C ends it as it ends any program.
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        from deconattn.training.stops import stop_at_once

        stop_at_once()
    try:
        from deconattn import cli

        return cli.main()
    except ModuleNotFoundError as error:
        if os.environ.get("DECONATTN_TRACEBACK") or error.name is None or error.name.split(".")[0] == "deconattn":
            raise
        print(
            f"{error.name} is not installed; the pipeline needs it: pip install 'deconattn[workflow]'", file=sys.stderr
        )
        return 2


if __name__ == "__main__":
    sys.exit(main())
