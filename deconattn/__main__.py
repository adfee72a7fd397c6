"""`python -m deconattn`: the command line."""

import sys

from deconattn.cli import main

sys.exit(main())
