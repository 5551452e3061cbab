"""Names that other programs chose, as text for terminals, logs and warnings."""

from __future__ import annotations

__all__ = ["printable"]


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
