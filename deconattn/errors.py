"""The error that a user can act on."""

from __future__ import annotations


class UserError(Exception):
    """Bad input, said in one line: what is wrong, the value, what is allowed and where it stands.

    The command line prints it without a traceback and exits with 2.
    """
