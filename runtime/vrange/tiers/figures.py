"""What a lower tier is asked and what it answers: counts, and whether it is worth asking."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

__all__ = ["Figures", "families"]

_WEIGHT = 0.2  # of the newest time in an average
_ASKED_ANYWAY = 64  # one lookup in so many, so that the averages stay true
_LARGE_BYTES = 1 << 16
_NAMES_MOST = 5 * 256  # five counts a name
_OTHERS = "other"
_SURE = 8  # lookups and computations; before, each value is asked for and written


class Figures:
    """The figures of one cache's lower tier.

    Parameters
    ----------
    name : str
        The cache's name.

    """

    # By the cache's name and what was counted. They stay when a cache is closed or cleared.
    totals: ClassVar[Counter[tuple[str, str]]] = Counter()

    def __init__(self, name: str) -> None:
        self.name = name
        self.start()
        self._ask_seconds: float | None = None  # a lookup in the tier that finds nothing
        self._compute_seconds: float | None = None
        self._seconds_per_byte = 0.0
        self._skipped = self._asked = self._computed = 0

    def start(self) -> None:
        """Count from here."""
        self.hits = self.misses = self.errors = 0
        self.written = self.dropped = 0
        self.answered = 0  # computations that a value from below took the place of
        self.read_bytes = self.written_bytes = 0

    def count_read(self, is_hit: bool, seconds: float) -> None:
        """Count a lookup that took so long."""
        self._total("hit" if is_hit else "miss", 1)
        if is_hit:
            self.hits += 1
        else:
            self.misses += 1
            self._asked += 1
            self._ask_seconds = _average(self._ask_seconds, seconds)

    def count_read_bytes(self, nbytes: int, seconds: float) -> None:
        """Note how long a value took to be read."""
        self._total("read", nbytes)
        self.read_bytes += nbytes
        if nbytes >= _LARGE_BYTES:
            self._seconds_per_byte = _average(self._seconds_per_byte or None, seconds / nbytes)

    def count_written(self, nbytes: int) -> None:
        """Count a value that was written."""
        self._total("written", nbytes)
        self.written += 1
        self.written_bytes += nbytes

    def count_error(self) -> None:
        """Count a failure."""
        self._total("error", 1)
        self.errors += 1

    def _total(self, what: str, count: int) -> None:
        known = (self.name, "hit") in Figures.totals or len(Figures.totals) < _NAMES_MOST
        name = self.name if known else _OTHERS
        for each in ("hit", "miss", "error", "read", "written"):
            Figures.totals[name, each] += count if each == what else 0

    def count_computed(self, seconds: float) -> None:
        """Note how long a computation took."""
        self._computed += 1
        self._compute_seconds = _average(self._compute_seconds, seconds)

    @property
    def _is_sure(self) -> bool:
        return min(self._asked, self._computed) >= _SURE

    def is_worth_asking(self) -> bool:
        """Return whether a lookup takes less time than a computation, as far as is known."""
        ask, compute = self._ask_seconds, self._compute_seconds
        if ask is None or compute is None or not self._is_sure or ask <= compute:
            return True
        self._skipped += 1
        return self._skipped % _ASKED_ANYWAY == 0

    def is_worth_writing(self, cost: float | None, nbytes: int) -> bool:
        """Return whether a value can be read in less time than it was computed in."""
        if cost is None or self._ask_seconds is None or not self._is_sure:
            return True
        return cost > self._ask_seconds + nbytes * self._seconds_per_byte


def _average(before: float | None, now: float) -> float:
    return now if before is None else before + _WEIGHT * (now - before)


def families() -> Iterator[Metric]:
    """Yield the counts of this process as Prometheus metrics."""
    from prometheus_client.core import CounterMetricFamily

    requests = CounterMetricFamily(
        "vrange_below_requests",
        "Lookups in the lower tiers of caches: found (hit), not found (miss), or failed (error).",
        labels=["name", "outcome"],
    )
    nbytes = CounterMetricFamily(
        "vrange_below_bytes",
        "Bytes that were read from the lower tiers of caches, and written there.",
        labels=["name", "direction"],
        unit="bytes",
    )
    for (name, what), count in list(Figures.totals.items()):
        (nbytes if what in ("read", "written") else requests).add_metric([name, what], count)
    yield from (requests, nbytes)
