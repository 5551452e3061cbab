"""What judges a worker by its memory: the worker itself, the scheduler, and its nanny.

All of them look at the resident set, in which bytes count that are offered to the kernel. The
kernel can take those at any moment, as it can the pages of files that it has cached. So here they
are subtracted, in the worker (whose figure the scheduler and the dashboard get) and in its nanny.
If the nanny can't do that, the worker does not either: it would be ended with memory that it takes
for free.
"""

from __future__ import annotations

import functools
import logging
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psutil
from distributed.diagnostics.plugin import NannyPlugin
from distributed.protocol.pickle import dumps

from vrange import VrangeError, capabilities
from vrange._counters.lazyfree import lazyfree_bytes
from vrange._ranges.dask_worker_limit import limit_of, spare_offered
from vrange._ranges.reserve import offer, offered_bytes

__all__ = ["OfferedIsSpared", "spare_offered_soon"]

_LOG = logging.getLogger("vrange.dask")
_REST_TIMES = 20  # so much longer than a reading takes is it used: the kernel walks all page tables

_asked: weakref.WeakSet[Any] = weakref.WeakSet()


def spare_offered_soon(worker: Any) -> None:
    """Make a worker's judges subtract what is offered, if all of them can. Any thread may call."""
    if worker in _asked:
        return
    _asked.add(worker)
    with suppress(RuntimeError):  # its loop is closed
        worker.loop.add_callback(_spare_offered, worker)


async def _spare_offered(worker: Any) -> None:
    if not getattr(worker.data, "beyond_limit", True) or capabilities().rung == "eager":
        return  # on the eager rung nothing is ever offered
    nanny = getattr(worker, "nanny", None)
    if nanny:
        plugin = OfferedIsSpared()
        try:
            answer = await worker.rpc(nanny).plugin_add(plugin=dumps(plugin), name=plugin.name)
        except Exception as error:
            answer = {"status": "error", "text": str(error)}
        if answer.get("status") != "OK":
            _LOG.info(
                "The nanny of %s counts bytes that are offered to the kernel: %s",
                worker.address,
                answer.get("text"),
            )
            return
    spare_offered(worker.memory_manager)
    monitor = worker.monitor
    monitor.get_process_memory = functools.partial(
        _without_offered, worker.memory_manager, monitor.get_process_memory
    )


def _without_offered(manager: Any, resident_bytes: Callable[[], int]) -> int:
    """Return what counts as a worker's memory, after offering what can be if it is too much.

    The caretaker does that, too, but on a busy machine it may be late.
    """
    found = max(0, resident_bytes() - offered_bytes())
    limit = limit_of(manager)
    if limit is not None and found > limit and offer(found - limit):
        found = max(0, resident_bytes() - offered_bytes())
    return found


class OfferedIsSpared(NannyPlugin):
    """Let a nanny end its worker only if it has too much without what is offered to the kernel.

    Workers register it with their nannies by themselves.

    Raises
    ------
    VrangeError
        If the kernel does not report what is offered.

    """

    name = "vrange-offered"

    def setup(self, nanny: Any) -> None:
        """Look again before the nanny ends its worker; Dask calls this in the nanny."""
        if lazyfree_bytes("self") is None:
            raise VrangeError("the kernel reports no LazyFree in /proc/PID/smaps_rollup")
        monitor = nanny.periodic_callbacks.get("memory_monitor")
        if monitor is not None and not isinstance(monitor.callback, _Sparing):
            monitor.callback = _Sparing(nanny, monitor.callback)


class _Sparing:
    """A nanny's look at the memory of its worker."""

    def __init__(self, nanny: Any, plain: Callable[[], Any]) -> None:
        self._nanny = weakref.proxy(nanny)
        self._plain = plain
        self._pid = 0
        self._offered = 0
        self._not_before = 0.0

    def __call__(self) -> Any:
        try:
            if self._is_within_limit():
                return None
        except (psutil.Error, ReferenceError, AttributeError, TypeError):
            pass  # the worker ends or starts now: Dask's own look knows what to do
        return self._plain()

    def _is_within_limit(self) -> bool:
        manager = self._nanny.memory_manager
        most = manager.memory_limit * manager.memory_terminate_fraction
        pid = self._nanny.pid
        if pid is None:
            return False
        resident: int = psutil.Process(pid).memory_info().rss
        if resident <= most:
            return True
        # What was read a while ago is good enough to go on, and never to end the worker.
        is_recent = pid == self._pid and time.monotonic() < self._not_before
        if is_recent and resident - self._offered <= most:
            return True
        return bool(resident - self._read_offered(pid) <= most)

    def _read_offered(self, pid: int) -> int:
        began = time.monotonic()
        self._pid, self._offered = pid, lazyfree_bytes(pid) or 0
        ended = time.monotonic()
        self._not_before = ended + _REST_TIMES * (ended - began)
        return self._offered
