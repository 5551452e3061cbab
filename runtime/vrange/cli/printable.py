"""Text for a terminal: names that other programs chose, and output that isn't UTF-8."""

from __future__ import annotations

import os
import sys
from typing import TextIO

from vrange._printable import printable

__all__ = ["prepare_output", "printable"]


def prepare_output() -> None:
    """Let a command print what it has to say, whatever its output is.

    Characters that the output can't encode are replaced. Cron jobs of old and many containers have
    a locale without UTF-8. A figure with a "?" for a "×" is of use there, an exception is not. In a
    process that was started with its output closed, as by some daemons, prints go nowhere.
    """
    sys.stdout = sys.stdout or _nowhere()
    sys.stderr = sys.stderr or _nowhere()
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # not of what a test put there
        if reconfigure is not None and stream.errors == "strict":
            reconfigure(errors="replace")


def _nowhere() -> TextIO:
    return open(os.devnull, "w")
