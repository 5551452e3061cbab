"""The memory limits of the worker that a buffer belongs to."""

from __future__ import annotations

from typing import Any, NamedTuple

from distributed.worker import Worker

import vrange

__all__ = ["Bounds", "bounds_of", "manager_of"]

_HOT_SHARE = 0.25  # of what Dask holds in memory: the rest of that is for volatile values


def manager_of(data: object) -> Any:
    """Return the memory manager of the worker that has this data; None while there is none."""
    for worker in list(Worker._instances):
        manager = getattr(worker, "memory_manager", None)
        if manager is not None and manager.data is data:
            vrange.memory_limit()  # it was being made when vrange looked for its limit
            return manager
    return None


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
