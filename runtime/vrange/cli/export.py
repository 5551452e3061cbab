"""`vrange export`: serve the stats segments of this user's processes to Prometheus, as a sidecar.

Use it for services that can't or won't serve metrics themselves; it needs nothing from them. Every
series has the label `service`: the processes' VRANGE_SERVICE, or "group-" and the number of their
process group. Counts of processes that have ended stay in the sums as long as their service lives.
If such a process did not take part in sums (vrange.metrics, processes="group"), its counts are
those of the last scrape.
"""

from __future__ import annotations

import argparse
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from vrange._counters.exposition import Gauges, families
from vrange._counters.lazyfree import lazyfree_bytes
from vrange._counters.processes import directories, living
from vrange._counters.segment import Snapshot
from vrange._counters.service import Service, services
from vrange._counters.totals import Totals
from vrange.errors import VrangeError
from vrange.metrics import start_server

__all__ = ["SidecarCollector", "add_parser", "run"]


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `vrange export`."""
    parser = subparsers.add_parser(
        "export",
        help="serve the figures of this user's processes to Prometheus",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--port", type=int, default=9464, help="the port; 0: any free port")
    parser.add_argument("--addr", default="127.0.0.1", help="the address to listen on")


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted."""
    if not 0 <= args.port <= 65535:
        raise ValueError(f"--port must be 0 to 65535, not {args.port}")
    registry = CollectorRegistry()
    registry.register(SidecarCollector())
    with start_server(args.port, args.addr, registry) as server:
        print(f"http://{args.addr}:{server.port}/metrics", flush=True)
        threading.Event().wait()
    return 0


class SidecarCollector(Collector):
    """Collects the totals of every service, labelled by service."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: dict[tuple[int, int], Snapshot] = {}
        self._ended: dict[str, Totals] = {}

    def describe(self) -> Iterable[Metric]:
        """Return nothing: the metrics are known only once they are collected."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics as they are now."""
        with self._lock:
            told = [
                (
                    {"service": key},
                    total,
                    Gauges(sum(lazyfree_bytes(pid) or 0 for pid in total.pids)),
                )
                for key, total in sorted(self._totals().items())
            ]
        return families(told, labels=["service"])

    def _totals(self) -> dict[str, Totals]:
        found: dict[str, Service] = {}
        for directory in directories():
            with suppress(OSError, VrangeError):
                found |= services(directory)
        alone = {(one.pid, one.start_ticks): one for one in living() if not one.kept}
        taking_part = {
            (one.pid, one.start_ticks) for service in found.values() for one in service.living
        }
        for process, snapshot in self._last.items():
            # A process that now takes part is in its service's sums with everything it counted.
            if process not in alone and process not in taking_part:
                ended = self._ended.setdefault(snapshot.service_key, Totals())
                ended.add(snapshot, ended=True)
        self._last = alone
        told = {key: service.take_totals() for key, service in found.items()}
        for snapshot in alone.values():
            told.setdefault(snapshot.service_key, Totals()).add(snapshot)
        # A service without a living process is over, and so are its series.
        self._ended = {key: ended for key, ended in self._ended.items() if key in told}
        for key, ended in self._ended.items():
            told[key].merge_counts(ended)
        return told
