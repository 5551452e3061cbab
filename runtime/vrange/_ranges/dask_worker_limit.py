"""The memory limit of a Dask worker in this process, which vrange keeps without being asked.

A worker pauses, and its nanny ends it, when its resident set exceeds a share of its memory limit.
That limit is known to Dask alone: no cgroup has it. So vrange reads it from the worker. Dask is
never imported for that: a process that doesn't import it pays for one comparison an import.
"""

from __future__ import annotations

import _thread
import functools
import sys
import weakref
from contextlib import suppress
from typing import Any

from vrange._ranges.set_limit import on_read, put_limit
from vrange._when_imported import when_imported

__all__ = ["follow_workers", "limit_of", "spare_offered", "spares_offered"]

_MODULE = "distributed.worker_memory"  # where the class is that has the limit
_SHARES = ("memory_spill_fraction", "memory_pause_fraction")
_NANNYS_SHARE = "distributed.worker.memory.terminate"

_OVER = ("closed", "failed")  # a worker's status

# By worker. Several can share a process (LocalCluster(processes=False)). Each judges all of it.
_managers: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()

# The memory managers of workers whose judges do not count what is offered to the kernel.
_sparing: weakref.WeakSet[Any] = weakref.WeakSet()


def follow_workers() -> None:
    """Keep below the limits of this process's workers: those of now, and those made later."""
    module = sys.modules.get(_MODULE)
    on_read(_follow)
    if module is None:
        when_imported(_MODULE, lambda: _watch(sys.modules[_MODULE]))
    else:
        _watch(module)


def limit_of(manager: Any) -> int | None:
    """Return the resident set at which a worker first reacts; None if it never does.

    Above it a worker writes results to disk; then it pauses; at last its nanny ends it. Each of
    these shares of the worker's memory limit can be turned off (False).
    """
    shares = [getattr(manager, name, False) for name in _SHARES]
    shares.append(_nannys_share())
    limit = getattr(manager, "memory_limit", None)
    in_use = [float(share) for share in shares if share]
    return int(limit * min(in_use)) or None if limit and in_use else None


def spare_offered(manager: Any) -> None:
    """Declare that neither this worker nor its nanny counts what is offered to the kernel."""
    _sparing.add(manager)
    _follow()


def spares_offered(manager: Any) -> bool:
    """Return whether that was declared."""
    return manager in _sparing


def _most_of(manager: Any, limit: int) -> int:
    """Return up to where a copy may exceed the limit; 0 if the judges count what is offered.

    It lasts for milliseconds, but tasks allocate meanwhile. So it may go a quarter of the way to
    where the nanny would end the worker.
    """
    if manager not in _sparing:
        return 0
    end = float(_nannys_share() or 1)
    return max(limit, int((3 * limit + manager.memory_limit * end) / 4))


def _nannys_share() -> Any:
    config = sys.modules.get("dask.config")
    return config.get(_NANNYS_SHARE, False) if config is not None else False


def _watch(module: Any) -> None:
    # Dask has no hook for this that would not be passed on to other machines.
    with suppress(Exception):  # another Dask than the ones known: no limit is found
        manager = module.WorkerMemoryManager
        plain = manager.__init__

        @functools.wraps(plain)
        def __init__(self: Any, worker: Any, *arguments: Any, **options: Any) -> None:
            plain(self, worker, *arguments, **options)
            _found(worker, self)

        manager.__init__ = __init__
    _follow()


def _found(worker: Any, manager: Any) -> None:
    _note(worker, manager)
    _follow()


def _note(worker: Any, manager: Any) -> None:
    if manager is not None and worker not in _managers:
        _managers[worker] = manager
        weakref.finalize(worker, _follow_soon).atexit = False


def _follow_soon() -> None:
    # The collector may run this in the middle of what holds the locks that _follow takes.
    with suppress(RuntimeError):  # no thread can be started: the limit stays
        _thread.start_new_thread(_follow, ())


def _follow() -> None:
    with suppress(Exception):  # a caller that reads the limit must not get an error of Dask's
        # Those that were made before vrange looked, or were being made then.
        for worker in list(getattr(_worker_class(), "_instances", ())):
            _note(worker, getattr(worker, "memory_manager", None))
        managers = [
            manager
            for worker, manager in list(_managers.items())
            if getattr(getattr(worker, "status", None), "name", None) not in _OVER
        ]
        judges = [(limit, one) for one in managers if (limit := limit_of(one)) is not None]
        put_limit(
            "Dask worker",
            min((limit for limit, _ in judges), default=None),
            most_bytes=min((_most_of(one, limit) for limit, one in judges), default=0),
        )


def _worker_class() -> Any:
    return getattr(sys.modules.get("distributed.worker"), "Worker", None)
