"""What a lower tier is asked and what it answers: counts, and whether it is worth asking."""

from __future__ import annotations

import weakref
from typing import ClassVar

__all__ = ["Figures"]

_WEIGHT = 0.2  # of the newest time in an average
_ASKED_ANYWAY = 64  # one lookup in so many, so that the averages stay true
_LARGE_BYTES = 1 << 16


class Figures:
    """The figures of one cache's lower tier.

    Parameters
    ----------
    name : str
        The cache's name.

    """

    all: ClassVar[weakref.WeakSet[Figures]] = weakref.WeakSet()

    def __init__(self, name: str) -> None:
        self.name = name
        self.start()
        self._ask_seconds: float | None = None  # a lookup in the tier that finds nothing
        self._compute_seconds: float | None = None
        self._seconds_per_byte = 0.0
        self._skipped = 0
        Figures.all.add(self)

    def start(self) -> None:
        """Count from here."""
        self.hits = self.misses = self.errors = 0
        self.written = self.dropped = 0
        self.answered = 0  # computations that a value from below took the place of
        self.read_bytes = self.written_bytes = 0

    def count_read(self, is_hit: bool, seconds: float) -> None:
        """Count a lookup that took so long."""
        if is_hit:
            self.hits += 1
        else:
            self.misses += 1
            self._ask_seconds = _average(self._ask_seconds, seconds)

    def count_read_bytes(self, nbytes: int, seconds: float) -> None:
        """Note how long a value took to be read."""
        self.read_bytes += nbytes
        if nbytes >= _LARGE_BYTES:
            self._seconds_per_byte = _average(self._seconds_per_byte or None, seconds / nbytes)

    def count_written(self, nbytes: int) -> None:
        """Count a value that was written."""
        self.written += 1
        self.written_bytes += nbytes

    def count_computed(self, seconds: float) -> None:
        """Note how long a computation took."""
        self._compute_seconds = _average(self._compute_seconds, seconds)

    def is_worth_asking(self) -> bool:
        """Return whether a lookup takes less time than a computation, as far as is known."""
        ask, compute = self._ask_seconds, self._compute_seconds
        if ask is None or compute is None or ask <= compute:
            return True
        self._skipped += 1
        return self._skipped % _ASKED_ANYWAY == 0

    def is_worth_writing(self, cost: float | None, nbytes: int) -> bool:
        """Return whether a value can be read in less time than it was computed in."""
        if cost is None or self._ask_seconds is None:
            return True
        return cost > self._ask_seconds + nbytes * self._seconds_per_byte


def _average(before: float | None, now: float) -> float:
    return now if before is None else before + _WEIGHT * (now - before)
