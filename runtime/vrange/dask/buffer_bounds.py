"""The memory limits of the worker that a buffer belongs to."""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple

from distributed.worker import Worker

import vrange
from vrange._ranges.dask_worker_limit import limit_of, spares_offered
from vrange.dask.judges import spare_offered_soon

__all__ = ["Bounds", "Owner", "bounds_of"]

_HOT_SHARE = 0.25  # of what Dask holds in memory: the rest of that is for volatile values
_FREE_TIMES = 1  # the size of a new value: a copy of one that is evicted needs as much
_FREE_SHARE = 1 / 16  # of the limit: what tasks use meanwhile


class Bounds(NamedTuple):
    """How many bytes of values a worker holds.

    Attributes
    ----------
    most : int
        What is never exceeded.
    hot : int
        What is held once not everything fits into `most`. The rest of that is volatile.

    """

    most: int
    hot: int


def bounds_of(manager: Any, hot: int | float | None) -> Bounds | None:
    """Return a worker's bounds; None if it has none.

    Parameters
    ----------
    manager : WorkerMemoryManager or None
        The worker's.
    hot : int or float or None
        Bytes, or a share of its memory limit. None: by the worker's own target.

    """
    if isinstance(hot, int):
        return Bounds(hot, hot)
    if manager is None or not manager.memory_limit:
        return None
    if hot is not None:
        held = int(hot * manager.memory_limit)
        return Bounds(held, held)
    if not manager.memory_target_fraction:
        return None
    most = int(manager.memory_target_fraction * manager.memory_limit)
    return Bounds(most, int(_HOT_SHARE * most))


class Owner:
    """The worker that has a buffer as its data, once it is there.

    Parameters
    ----------
    hot : int or float or None
        What the worker holds, as for `bounds_of`.

    """

    def __init__(self, hot: int | float | None) -> None:
        self._hot = hot
        self._worker: weakref.ref[Any] | None = None

    def bounds(self, data: object) -> Bounds | None:
        """Return the worker's bounds; None if it has none."""
        worker = self._find(data)
        return bounds_of(worker.memory_manager if worker is not None else None, self._hot)

    def spares_offered(self, data: object) -> bool:
        """Return whether the worker's memory is judged without what is offered to the kernel."""
        worker = self._find(data)
        return worker is not None and spares_offered(worker.memory_manager)

    def missing_bytes(self, data: object, nbytes: int) -> int:
        """Return how much must be evicted, so that the worker does not react to its limit soon.

        It is 0 if its memory is judged with what is offered: what was evicted counts then as well.

        Parameters
        ----------
        data : object
            The buffer.
        nbytes : int
            The size of the value that was stored last.

        """
        worker = self._find(data)
        if worker is None or not spares_offered(worker.memory_manager):
            return 0
        limit = limit_of(worker.memory_manager)
        if limit is None:
            return 0
        wanted = _FREE_TIMES * nbytes + int(_FREE_SHARE * limit)
        return max(0, int(worker.monitor.get_process_memory()) + wanted - limit)

    def _find(self, data: object) -> Any:
        worker = self._worker and self._worker()
        if worker is not None:
            return worker
        for worker in list(Worker._instances):
            manager = getattr(worker, "memory_manager", None)
            if manager is not None and manager.data is data:
                vrange.memory_limit()  # it was being made when vrange looked for its limit
                self._worker = weakref.ref(worker)
                spare_offered_soon(worker)
                return worker
        return None
