"""Totals as Prometheus metrics: names, units, help texts and labels.

Durations are counted with eight buckets an octave. One series per bucket and label would be
expensive to store, and prometheus_client's time per line of text is most of a scrape. So latencies
are exposed with one bucket an octave, above 65 µs with one in two octaves. Times to compute again,
which each cache has, are exposed with one bucket in four octaves. The exposed counts are exact,
only coarser.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, lru_cache
from operator import add, attrgetter

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

from vrange._counters.names import KINDS, LATENCIES, OUTCOMES, PRESSURE_LEVELS
from vrange._counters.segment import Histogram, bucket_floors_ns
from vrange._counters.totals import Totals

__all__ = ["Gauges", "families"]

STATES = ("pinned", "idle", "offered", "purged", "hot", "object")
_bytes_by_state = attrgetter(*(f"{state}_bytes" for state in STATES))
_NS = 1e-9
# In ns; each is the beginning of a native bucket. From faster than any call to slower than any
# wait.
_LATENCY_BOUNDS = tuple(1 << power for power in (*range(6, 17), *range(18, 36, 2)))
_REGENERATE_BOUNDS = tuple(1 << power for power in range(16, 36, 4))


class Gauges:
    """Figures from the kernel, not from segments: of processes, and of the memory they share."""

    def __init__(
        self,
        lazyfree_bytes: int | None = None,
        memory_usage_bytes: int | None = None,
        memory_limit_bytes: int | None = None,
    ) -> None:
        self.lazyfree_bytes = lazyfree_bytes
        self.memory_usage_bytes = memory_usage_bytes
        self.memory_limit_bytes = memory_limit_bytes


def _go_string(number: float) -> str:
    return str(floatToGoString(number))  # type: ignore[no-untyped-call]


@cache
def _bounds(buckets: int, bounds: tuple[int, ...]) -> tuple[tuple[str, int], ...]:
    """Return upper bounds in seconds, each with the number of native buckets below it."""
    below = {floor: bucket for bucket, floor in enumerate(bucket_floors_ns(buckets))}
    return tuple((_go_string(bound * _NS), below[bound]) for bound in bounds)


@lru_cache(maxsize=4096)
def _labels_of_each(
    labels: tuple[tuple[str, str], ...], label: str, values: tuple[str, ...]
) -> tuple[tuple[dict[str, str], str], ...]:
    """Return the labels of each line of a family. They never change, so they are made once."""
    return tuple(({**dict(labels), label: value}, value) for value in values)


@lru_cache(maxsize=4096)
def _bucket_labels(
    labels: tuple[tuple[str, str], ...], buckets: int, bounds: tuple[int, ...]
) -> tuple[tuple[dict[str, str], int], ...]:
    """Return a histogram's labels, each with the number of native buckets below its bound."""
    told = [({**dict(labels), "le": le}, below) for le, below in _bounds(buckets, bounds)]
    return (*told, ({**dict(labels), "le": "+Inf"}, buckets))


def _add_histogram(
    family: HistogramMetricFamily,
    labels: tuple[tuple[str, str], ...],
    histogram: Histogram,
    bounds: tuple[int, ...],
) -> None:
    buckets = histogram.buckets
    bucket_name = f"{family.name}_bucket"
    add = family.samples.append
    below = start = 0
    for told, end in _bucket_labels(labels, len(buckets), bounds):
        below += sum(buckets[start:end])
        start = end
        add(Sample(bucket_name, told, below))
    add(Sample(f"{family.name}_count", dict(labels), below))
    add(Sample(f"{family.name}_sum", dict(labels), histogram.sum_ns * _NS))


def families(
    totals: Iterable[tuple[Mapping[str, str], Totals, Gauges]], labels: Iterable[str] = ()
) -> Iterator[Metric]:
    """Yield the metric families.

    Each of `totals` comes with the values of the additional `labels` that it carries.
    """
    told = [(list(values.values()), total, gauges) for values, total, gauges in totals]
    more = list(labels)
    yield from _latencies(told, more)
    yield from _counters(told, more)
    yield from _pressure(told, more)
    yield from _gauges(told, more)


_Told = list[tuple[list[str], Totals, Gauges]]


def _latencies(told: _Told, more: list[str]) -> Iterator[Metric]:
    helps = {
        "time_to_free": (
            "stage",
            "Time until a call that frees memory returns (released), and until the kernel can "
            "reclaim the memory (offered).",
        ),
        "time_to_reallocate": (
            "outcome",
            "Time from requesting volatile memory to usable content: all of it was there "
            "(resident), or it was lost and refilled (purged).",
        ),
    }
    for metric, (label, text) in helps.items():
        family = HistogramMetricFamily(
            f"vrange_{metric}_seconds", text, labels=[*more, "kind", label], unit="seconds"
        )
        for values, total, _ in told:
            for kind in KINDS:
                for name, which in LATENCIES:
                    found = total.latencies.get((metric, kind, which)) if name == metric else None
                    if found is not None:
                        labels = (*zip(more, values, strict=True), ("kind", kind), (label, which))
                        _add_histogram(family, labels, found, _LATENCY_BOUNDS)
        yield family
    family = HistogramMetricFamily(
        "vrange_regenerate_seconds",
        "Time to compute a value, for the first time or after it was purged.",
        labels=[*more, "name"],
        unit="seconds",
    )
    for values, total, _ in told:
        for name, found in _by_name(total):
            labels = (*zip(more, values, strict=True), ("name", name))
            _add_histogram(family, labels, found, _REGENERATE_BOUNDS)
    yield family


def _by_name(total: Totals) -> Iterator[tuple[str, Histogram]]:
    by_name: dict[str, Histogram] = {}
    for account in total.accounts.values():
        if not account.regenerate.buckets:
            continue
        if account.name in by_name:
            both = Histogram()
            both.add(by_name[account.name])
            both.add(account.regenerate)
            by_name[account.name] = both
        else:
            by_name[account.name] = account.regenerate
    yield from by_name.items()


def _counters(told: _Told, more: list[str]) -> Iterator[Metric]:
    refaults = CounterMetricFamily(
        "vrange_refaults", "Touches of purged pages that were answered.", labels=more
    )
    purged = CounterMetricFamily(
        "vrange_purged_bytes", "Bytes that the kernel reclaimed.", labels=more, unit="bytes"
    )
    requests = CounterMetricFamily(
        "vrange_cache_requests",
        "Lookups in caches: found among the strongly held values (hot) or in volatile memory "
        "(resident), reclaimed by the kernel (purged), or not cached (miss).",
        labels=[*more, "name", "outcome"],
    )
    refused = CounterMetricFamily(
        "vrange_cache_refused",
        "Values that were not stored, as there was no room.",
        labels=[*more, "name"],
    )
    returned = CounterMetricFamily(
        "vrange_stack_returned_bytes",
        "Bytes of stacks that were returned to the kernel.",
        labels=more,
        unit="bytes",
    )
    trims = CounterMetricFamily(
        "vrange_trims", "Trims of stacks and heaps that returned memory.", labels=more
    )
    for values, total, _ in told:
        accounts = list(total.accounts.values())
        refaults.add_metric(values, sum(account.refaults for account in accounts))
        purged.add_metric(values, sum(account.purged_total_bytes for account in accounts))
        returned.add_metric(values, total.stack_returned_bytes)
        trims.add_metric(values, total.trims)
        for account in accounts:
            if account.kind == "cache":
                labels = (*zip(more, values, strict=True), ("name", account.name))
                refused.add_metric([*values, account.name], account.refused)
                for told_labels, outcome in _labels_of_each(labels, "outcome", OUTCOMES):
                    count = account.requests.get(outcome, 0)
                    requests.samples.append(
                        Sample("vrange_cache_requests_total", told_labels, count)
                    )
    yield from (refaults, purged, requests, refused, returned, trims)


def _pressure(told: _Told, more: list[str]) -> Iterator[Metric]:
    """Yield the series of pressure watchers; without a watcher, ever, there are none."""
    level = GaugeMetricFamily(
        "vrange_pressure_level",
        "How near the tightest memory limit is: 0 normal, 1 elevated, 2 critical.",
        labels=more,
    )
    changes = CounterMetricFamily(
        "vrange_pressure_changes", "How often a level was entered.", labels=[*more, "level"]
    )
    actions = CounterMetricFamily(
        "vrange_pressure_actions",
        "Actions that were taken because the level rose, or fell again (grow_hot).",
        labels=[*more, "action", "outcome"],
    )
    returned = CounterMetricFamily(
        "vrange_pressure_returned_bytes",
        "Bytes that these actions returned to the kernel, or offered to it.",
        labels=[*more, "action"],
        unit="bytes",
    )
    for values, total, _ in told:
        counts = total.pressure
        if counts.level:
            level.add_metric(values, PRESSURE_LEVELS.index(counts.level) - 1)
        for name, count in counts.changes.items():
            changes.add_metric([*values, name], count)
        for (action, outcome), count in counts.actions.items():
            actions.add_metric([*values, action, outcome], count)
        for action, count in counts.returned_bytes.items():
            if action.startswith(("trim", "offer")):
                returned.add_metric([*values, action], count)
    yield from (level, changes, actions, returned)


def _gauges(told: _Told, more: list[str]) -> Iterator[Metric]:
    by_state = GaugeMetricFamily(
        "vrange_bytes",
        "Bytes of ranges by state: in use (pinned), unused and not offered yet (idle), offered to "
        "the kernel (offered), reclaimed and not yet freed or refilled (purged). Beside them, what "
        "caches hold strongly (hot): part of the pinned ones, and ordinary objects (object).",
        labels=[*more, "name", "state"],
        unit="bytes",
    )
    plain = {
        name: GaugeMetricFamily(f"vrange_{name}_bytes", text, labels=more, unit="bytes")
        for name, text in {
            "process_lazyfree": "Resident bytes that the kernel may reclaim any time (LazyFree).",
            "memory_usage": "Bytes in use of the memory that the tightest limit covers.",
            "memory_limit": "The tightest limit of the process: its cgroup's or the machine's.",
            "stack_high_water": "Largest use of the deep stack that came nearest to its end.",
            "stack_limit": "The size of the deep stack that came nearest to its end.",
        }.items()
    }
    processes = GaugeMetricFamily(
        "vrange_processes", "Processes that these figures cover.", labels=more
    )
    info = InfoMetricFamily("vrange", "The mechanism in use (rung) and the kernel.", labels=more)
    for values, total, gauges in told:
        names: dict[str, tuple[int, ...]] = {}
        for account in total.accounts.values():
            if not account.closed:
                here = _bytes_by_state(account)
                before = names.get(account.name)
                names[account.name] = tuple(map(add, before, here)) if before else here
        for name, sums in names.items():
            labels = (*zip(more, values, strict=True), ("name", name))
            each = zip(_labels_of_each(labels, "state", STATES), sums, strict=True)
            by_state.samples.extend(
                Sample("vrange_bytes", one, figure) for (one, _), figure in each
            )
        read = {
            "process_lazyfree": gauges.lazyfree_bytes,
            "memory_usage": gauges.memory_usage_bytes,
            "memory_limit": gauges.memory_limit_bytes,
            "stack_high_water": total.stack_high_water_bytes or None,
            "stack_limit": total.stack_limit_bytes or None,
        }
        for name, figure in read.items():
            if figure is not None:
                plain[name].add_metric(values, figure)
        processes.add_metric(values, len(total.pids))
        for rung in sorted(total.rungs):
            info.add_metric(values, {"rung": rung, "kernel": platform.release()})
    yield by_state
    yield from plain.values()
    yield processes
    yield info
