"""Durations, as the commands print them."""

from __future__ import annotations

__all__ = ["duration"]


def duration(seconds: float) -> str:
    """Return seconds in the unit that leaves one to three digits before the point.

    >>> duration(0.00125)
    '1.25 ms'
    """
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.0f} ns"
