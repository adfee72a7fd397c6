"""`python -m deconattn`: the command line."""

import sys

if sys.argv[1:2] == ["pretrain"]:
    # Before the imports, which take seconds on a busy file system.
    from deconattn.training.early import stop_at_once

    stop_at_once()

from deconattn.cli import main

sys.exit(main())
