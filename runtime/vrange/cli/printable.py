"""Text for a terminal: names that other programs chose, and output that isn't UTF-8."""

from __future__ import annotations

import sys

__all__ = ["allow_any_encoding", "printable"]


def printable(text: str) -> str:
    r"""Replace what could act on a terminal by its escape sequence in Python's notation.

    The names of caches, services and processes belong to the programs that chose them. Control
    characters move the cursor or set the title, and direction marks reorder a line.

    Parameters
    ----------
    text : str
        Any text, lone surrogates included.

    Returns
    -------
    str
        The same text if all its characters are printable.

    Examples
    --------
    >>> printable("tiles\x1b[2J")
    'tiles\\x1b[2J'

    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def allow_any_encoding() -> None:
    """Replace characters that standard output can't encode, instead of failing.

    Cron jobs of old and many containers have a locale without UTF-8. A figure with a "?" for a "×"
    is of use there, an exception is not.
    """
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # not of what a test put there
        if reconfigure is not None and stream.errors == "strict":
            reconfigure(errors="replace")
