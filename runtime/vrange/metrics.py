"""vrange's figures for Prometheus: a collector for prometheus_client.

Nothing here runs when a cache is asked or memory is released: the native side counts, and a scrape
reads the counts. For ASGI and WSGI apps, use prometheus_client (make_asgi_app, make_wsgi_app).

>>> import prometheus_client, vrange.metrics
>>> registry = prometheus_client.CollectorRegistry()
>>> collector = vrange.metrics.register(registry)
>>> b"vrange_info" in prometheus_client.generate_latest(registry)
True
"""

from __future__ import annotations

import errno
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any, Literal

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector as PrometheusCollector

from vrange._cgroup.limits import MemoryLimit, memory_limit, usage_of
from vrange._closing import Closing
from vrange._core import lib
from vrange._counters.account import warn_if_unseen
from vrange._counters.exposition import Gauges, families
from vrange._counters.http import start_http_server
from vrange._counters.lazyfree import lazyfree_bytes
from vrange._counters.names import RUNGS
from vrange._counters.service import join, own_snapshot
from vrange._counters.totals import Totals

__all__ = ["Collector", "Server", "register", "serve"]

_LIMIT_SECONDS = 15

Processes = Literal["self", "group"]


class Collector(PrometheusCollector):
    """Collects the metrics of this process, or of its whole service.

    Parameters
    ----------
    processes : {"self", "group"}, default "self"
        "self": this process. "group": all processes of the service that have a collector of this
        kind, such as the workers of one server; a scrape of any of them then gives the right sums.
        Counts of workers that have ended stay in the sums, their bytes do not. A service consists
        of the processes with the same VRANGE_SERVICE in the environment, or else of the process
        group.

    Raises
    ------
    ValueError
        If `processes` is neither.

    """

    def __init__(self, processes: Processes = "self") -> None:
        if processes not in ("self", "group"):
            raise ValueError(f'processes must be "self" or "group", not {processes!r}')
        self.processes = processes
        if processes == "group":
            self._totals: Callable[[], Totals] = join()
        else:
            warn_if_unseen()
            self._totals = _own_totals

    def describe(self) -> Iterable[Metric]:
        """Return nothing: the metrics are known only once they are collected."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics as they are now."""
        totals = self._totals()
        if not totals.rungs:
            totals.rungs.add(("none", *RUNGS)[lib.vrange_rung()])
        yield from families([({}, totals, kernel_gauges(totals.pids))])
        if "vrange.tiers.figures" in sys.modules:  # a cache has a lower tier
            from vrange.tiers.figures import families as families_below

            yield from families_below()

    def __repr__(self) -> str:
        return f"<vrange.metrics.Collector, processes={self.processes!r}>"


def _own_totals() -> Totals:
    totals = Totals()
    totals.add(own_snapshot())
    return totals


def kernel_gauges(pids: Iterable[int]) -> Gauges:
    """Return the kernel's figures for these processes together, and for the memory they share."""
    try:
        limit = _limit_lately(int(time.monotonic() / _LIMIT_SECONDS))
        usage: int | None = usage_of(limit)
        limit_bytes: int | None = limit.limit_bytes
    except (OSError, ValueError):
        usage = limit_bytes = None  # the cgroup was removed while it was read
    found = [lazyfree_bytes(pid) for pid in pids]
    known = [count for count in found if count is not None]
    return Gauges(sum(known) if known else None, usage, limit_bytes)


@lru_cache(maxsize=1)
def _limit_lately(_: int) -> MemoryLimit:
    # The limit may change while a process runs, but finding it takes a third of a millisecond.
    return memory_limit()


# ---- registration --------------------------------------------------------------------------------

_lock = threading.Lock()
_registered: weakref.WeakKeyDictionary[CollectorRegistry, Collector] = weakref.WeakKeyDictionary()


def _collector_of(registry: CollectorRegistry) -> Collector | None:
    collector = _registered.get(registry)
    if collector is None:
        return None
    # A registry does not report that a collector was unregistered, so look into the registry
    # itself.
    known = getattr(registry, "_collector_to_names", None)
    return collector if known is None or collector in known else None


def register(registry: CollectorRegistry = REGISTRY, processes: Processes = "self") -> Collector:
    """Add a Collector to a registry and return it.

    Parameters
    ----------
    registry : prometheus_client.CollectorRegistry, optional
        The default is prometheus_client's own registry.
    processes : {"self", "group"}, default "self"
        As for Collector.

    Returns
    -------
    Collector
        `registry.unregister(collector)` removes it again.

    Raises
    ------
    ValueError
        If the registry has one already. Every series would then appear twice, and Prometheus drops
        such a scrape as a whole.
    TypeError
        If `registry` is not a CollectorRegistry.

    """
    if not isinstance(registry, CollectorRegistry):
        raise TypeError(f"registry must be a CollectorRegistry, not {registry!r}")
    with _lock:
        before = _collector_of(registry)
        if before is not None:
            raise ValueError(f"this registry has {before!r} already: unregister it first")
        collector = Collector(processes)
        registry.register(collector)
        _registered[registry] = collector
    return collector


class Server(Closing):
    """An HTTP server with /metrics, in a thread of its own, until it is closed."""

    def __init__(self, server: Any, thread: threading.Thread) -> None:
        self._server = server
        self._thread = thread
        self.port: int = server.server_port

    def close(self) -> None:
        """Stop serving and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __repr__(self) -> str:
        return f"<vrange.metrics.Server on port {self.port}>"


def serve(
    port: int,
    addr: str = "127.0.0.1",
    *,
    registry: CollectorRegistry = REGISTRY,
    processes: Processes = "self",
) -> Server:
    """Serve a registry's metrics over HTTP.

    Parameters
    ----------
    port : int
        The port; 0 means any free one, and the Server's `port` is its number.
    addr : str, default "127.0.0.1"
        The address to listen on. The default can be reached from this machine only.
    registry : prometheus_client.CollectorRegistry, optional
        If it has no Collector, one is registered.
    processes : {"self", "group"}, default "self"
        As for Collector.

    Returns
    -------
    Server
        A context manager; it serves until it is closed. A client that sends nothing for 10 s is
        dropped, and when more than 32 are connected, a new one takes the place of the oldest.

    Raises
    ------
    OSError
        If the port is taken or the address does not belong to this machine. The message names both.
    ValueError, TypeError
        If `port` is not an int from 0 to 65535.

    """
    if isinstance(port, bool) or not isinstance(port, int):
        raise TypeError(f"port must be an int, not {port!r}")
    if not 0 <= port <= 65535:
        raise ValueError(f"port must be 0 to 65535, not {port}")
    server = start_server(port, addr, registry)
    with _lock:
        missing = _collector_of(registry) is None
    if missing:
        try:
            register(registry, processes)
        except BaseException:
            server.close()
            raise
    return server


def start_server(port: int, addr: str, registry: CollectorRegistry) -> Server:
    """Serve a registry as it is. Raise OSError as `serve` does."""
    try:
        return Server(*start_http_server(port, addr, registry))
    except OSError as error:
        why = "the port is already in use" if error.errno == errno.EADDRINUSE else str(error)
        raise OSError(error.errno, f"can't serve metrics on {addr}, port {port}: {why}") from error
