"""Reads and writes of spilled values, counted as Dask's own buffer counts them."""

from __future__ import annotations

from collections import defaultdict

from distributed.metrics import context_meter

__all__ = ["Counted"]


class Counted:
    """Totals for Dask's dashboards and the worker's /metrics.

    Attributes
    ----------
    metrics : dict
        By what was done and unit, such as ``("disk-read", "bytes")``.

    """

    def __init__(self) -> None:
        self.metrics: defaultdict[tuple[str, str], float] = defaultdict(float)

    def add(self, what: str, nbytes: int, seconds: float | None = None) -> None:
        """Count one read or write."""
        for unit, amount in (("count", 1), ("bytes", nbytes), ("seconds", seconds)):
            if amount is not None:
                self.metrics[what, unit] += amount
                context_meter.digest_metric(what, amount, unit)

    def write_seconds(self, nbytes: int) -> float | None:
        """Return how long writing so many bytes takes, as far as is known."""
        written = self.metrics["disk-write", "bytes"]
        return nbytes * self.metrics["disk-write", "seconds"] / written if written else None
