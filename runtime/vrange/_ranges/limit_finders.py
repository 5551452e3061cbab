"""What looks for limits that are not the system's, once a limit matters in this process."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

__all__ = ["find_limits", "on_first_use"]

_finders: list[Callable[[], object]] = []


def on_first_use(find: Callable[[], object]) -> None:
    """Call `find` once a limit matters in this process; for the rooms above."""
    _finders.append(find)


def find_limits() -> None:
    """Call what looks for such limits, unless it was called before."""
    while _finders:
        with suppress(IndexError):  # another thread was quicker
            _finders.pop()()
