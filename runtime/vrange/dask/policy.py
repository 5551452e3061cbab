"""A policy of Dask's active memory manager, which runs in the scheduler."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from distributed.active_memory_manager import ActiveMemoryManagerPolicy, Suggestion

__all__ = ["DropReplicas"]

_ABOVE = 0.6  # of a worker's memory limit: where Dask starts to write results to disk
_LEAST_BYTES = 4096  # a message for each smaller one costs more than it frees
_LATENCY_SECONDS = 0.001  # of a request to another worker


class DropReplicas(ActiveMemoryManagerPolicy):
    """Drop what another worker has as well from workers that are short of memory.

    Dask's own policy, ReduceReplicas, keeps a replica for each worker on which a task may need it,
    however little memory that worker has. Its results then go to disk instead. A replica comes back
    by the network, as fast as the scheduler has measured that. So this policy drops replicas from a
    worker until it is no longer short of memory: first those that no task waits for, then those
    that free most bytes for each second that it takes to send them again.

    Parameters
    ----------
    above : float, default 0.6
        The share of a worker's memory limit above which the worker is short of memory.

    Raises
    ------
    ValueError
        If `above` is not more than 0 and at most 1.

    Notes
    -----
    It is off by default; Dask's configuration on the scheduler's machine turns it on::

        distributed:
          scheduler:
            active-memory-manager:
              policies:
                - class: distributed.active_memory_manager.ReduceReplicas
                - class: vrange.dask.DropReplicas

    The last copy of a result is never dropped, even where computing it again would be cheap: as
    long as a task or a client wants a result, Dask computes a lost one again at once.

    Examples
    --------
    >>> DropReplicas(above=0.7)
    DropReplicas(above=0.7)

    """

    __slots__ = ("above",)

    def __init__(self, *, above: float = _ABOVE) -> None:
        if isinstance(above, bool) or not isinstance(above, int | float) or not 0 < above <= 1:
            raise ValueError(f"above must be more than 0 and at most 1, not {above!r}")
        self.above = above

    def __repr__(self) -> str:
        return f"DropReplicas(above={self.above:g})"

    def run(self) -> Generator[Suggestion, Any, None]:
        """Suggest what to drop; Dask calls this in the scheduler every few seconds."""
        scheduler, memory = self.manager.scheduler, self.manager.workers_memory
        most = {
            worker: int(self.above * worker.memory_limit)
            for worker in memory
            if worker.memory_limit and memory[worker] > self.above * worker.memory_limit
        }
        if not most:
            return
        # Without a task that waits for it, a replica need not come back at all.
        order = sorted(
            (task for task in scheduler.replicated_tasks if task.nbytes >= _LEAST_BYTES),
            key=lambda task: (bool(task.waiters), -self._freed_per_second(task.nbytes)),
        )
        for task in order:
            for worker in [one for one in task.who_has or () if one in most]:
                if memory[worker] > most[worker]:
                    yield Suggestion("drop", task, {worker})

    def _freed_per_second(self, nbytes: int) -> float:
        """Return the bytes that are freed for each second of sending them again."""
        return nbytes / (_LATENCY_SECONDS + nbytes / self.manager.scheduler.bandwidth)
