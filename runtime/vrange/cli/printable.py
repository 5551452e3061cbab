"""Text for a terminal: names that other programs chose, and output that isn't UTF-8."""

from __future__ import annotations

import sys

from vrange._printable import printable

__all__ = ["allow_any_encoding", "printable"]


def allow_any_encoding() -> None:
    """Replace characters that standard output can't encode, instead of failing.

    Cron jobs of old and many containers have a locale without UTF-8. A figure with a "?" for a "×"
    is of use there, an exception is not.
    """
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # not of what a test put there
        if reconfigure is not None and stream.errors == "strict":
            reconfigure(errors="replace")
