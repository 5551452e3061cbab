"""The figures that `vrange top` shows of a process, from two readings of its stats segment."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from vrange._cgroup.limits import memory_limit, usage_of
from vrange._counters.exposition import STATES
from vrange._counters.names import LATENCIES
from vrange._counters.segment import AccountCounts, Snapshot
from vrange._counters.totals import Totals

__all__ = [
    "SORTS",
    "AccountFigures",
    "ProcessFigures",
    "ServiceFigures",
    "figures",
    "services_of",
    "sorted_by",
]


@dataclass
class AccountFigures:
    """One cache, array or arena. Rates are per second; a ratio is None without requests."""

    name: str
    kind: str
    bytes: dict[str, int]
    requests_per_second: float
    hit_ratio: float | None
    purged_per_second: float
    refaults_per_second: float
    regenerate_p50_seconds: float | None
    regenerate_p99_seconds: float | None


@dataclass
class ProcessFigures:
    """One process. The latencies cover its whole life, by "kind which"."""

    pid: int
    name: str
    service: str
    rung: str
    memory_usage_bytes: int | None
    memory_limit_bytes: int | None
    purged_bytes_per_second: float
    refaults_per_second: float
    hit_ratio: float | None
    stack_high_water_bytes: int
    stack_limit_bytes: int
    stack_returned_bytes: int
    accounts: list[AccountFigures]
    latencies: dict[str, dict[str, dict[str, float | int | None]]] = field(default_factory=dict)
    service_key: str = ""  # the same in all processes of a service


@dataclass
class ServiceFigures:
    """The processes of one service, and what their caches of one name have together.

    A value counts once: its bytes are those of the process that has it.
    """

    name: str
    processes: list[ProcessFigures]
    accounts: list[AccountFigures]


# What a process's caches can be sorted by: the largest first, names in their order.
SORTS = ("name", "memory", "asked", "lost")


def sorted_by(accounts: list[AccountFigures], sort: str | None) -> list[AccountFigures]:
    """Return the caches in the order of one of SORTS; None leaves them as they are."""
    if sort == "name":
        return sorted(accounts, key=lambda account: account.name)
    if sort == "memory":
        return sorted(accounts, key=lambda account: -sum(account.bytes.values()))
    if sort == "asked":
        return sorted(accounts, key=lambda account: -account.requests_per_second)
    if sort == "lost":
        return sorted(accounts, key=lambda account: -account.purged_per_second)
    return accounts


def figures(before: Snapshot, now: Snapshot, seconds: float) -> ProcessFigures:
    """Return the figures of a process, from two snapshots `seconds` apart."""
    earlier, later = Totals(), Totals()
    earlier.add(before)
    later.add(now)
    accounts = []
    for key, account in later.accounts.items():
        if not account.closed:
            past = earlier.accounts.get(key, AccountCounts(account.name, account.kind))
            accounts.append(_account(past, account, seconds))

    def rate(count: str) -> float:
        def total(of: Totals) -> int:
            return sum(getattr(account, count) for account in of.accounts.values())

        return (total(later) - total(earlier)) / seconds

    usage, limit = _memory(now.pid)
    return ProcessFigures(
        pid=now.pid,
        name=now.name,
        service=now.service,
        service_key=now.service_key,
        rung=now.rung,
        memory_usage_bytes=usage,
        memory_limit_bytes=limit,
        purged_bytes_per_second=rate("purged_total_bytes"),
        refaults_per_second=rate("refaults"),
        hit_ratio=_hit_ratio(
            _requests(earlier.accounts.values()), _requests(later.accounts.values())
        ),
        stack_high_water_bytes=now.stack_high_water_bytes,
        stack_limit_bytes=now.stack_limit_bytes,
        stack_returned_bytes=now.stack_returned_bytes,
        accounts=sorted(accounts, key=lambda one: -sum(one.bytes.values())),
        latencies=_latencies(now),
    )


def filtered(processes: list[ProcessFigures], text: str) -> list[ProcessFigures]:
    """Return what has the text in a name: a process with its caches, or these caches of one."""
    wanted = text.casefold()
    found = []
    for process in processes:
        if wanted in f"{process.name}\n{process.service}\n{process.pid}".casefold():
            found.append(process)
        elif kept := [one for one in process.accounts if wanted in one.name.casefold()]:
            found.append(replace(process, accounts=kept))
    return found


def services_of(processes: list[ProcessFigures]) -> list[ServiceFigures]:
    """Return the services of the processes, in the order of their first ones."""
    members: dict[str, list[ProcessFigures]] = {}
    for process in processes:
        members.setdefault(process.service_key or str(process.pid), []).append(process)
    return [
        ServiceFigures(found[0].service or f"{found[0].name} ({key})", found, _together(found))
        for key, found in members.items()
    ]


def _together(processes: list[ProcessFigures]) -> list[AccountFigures]:
    by_name: dict[tuple[str, str], list[AccountFigures]] = {}
    for process in processes:
        for account in process.accounts:
            by_name.setdefault((account.kind, account.name), []).append(account)
    summed = [_sum(accounts) for accounts in by_name.values()]
    return sorted(summed, key=lambda one: -sum(one.bytes.values()))


def _sum(accounts: list[AccountFigures]) -> AccountFigures:
    asked = sum(one.requests_per_second for one in accounts)
    hits = sum((one.hit_ratio or 0) * one.requests_per_second for one in accounts)
    slowest = max(accounts, key=lambda one: one.regenerate_p50_seconds or 0)
    return AccountFigures(
        name=accounts[0].name,
        kind=accounts[0].kind,
        bytes={state: sum(one.bytes[state] for one in accounts) for state in accounts[0].bytes},
        requests_per_second=asked,
        hit_ratio=hits / asked if asked else None,
        purged_per_second=sum(one.purged_per_second for one in accounts),
        refaults_per_second=sum(one.refaults_per_second for one in accounts),
        regenerate_p50_seconds=slowest.regenerate_p50_seconds,
        regenerate_p99_seconds=slowest.regenerate_p99_seconds,
    )


def _account(past: AccountCounts, now: AccountCounts, seconds: float) -> AccountFigures:
    requests = sum(now.requests.values()) - sum(past.requests.values())
    purged = now.requests.get("purged", 0) - past.requests.get("purged", 0)
    return AccountFigures(
        name=now.name,
        kind=now.kind,
        bytes={state: getattr(now, f"{state}_bytes") for state in STATES},
        requests_per_second=requests / seconds,
        hit_ratio=_hit_ratio(past.requests, now.requests),
        purged_per_second=purged / seconds,
        refaults_per_second=(now.refaults - past.refaults) / seconds,
        regenerate_p50_seconds=now.regenerate.percentile(50),
        regenerate_p99_seconds=now.regenerate.percentile(99),
    )


def _requests(accounts: Any) -> dict[str, int]:
    total: dict[str, int] = {}
    for account in accounts:
        for outcome, count in account.requests.items():
            total[outcome] = total.get(outcome, 0) + count
    return total


def _hit_ratio(past: dict[str, int], now: dict[str, int]) -> float | None:
    grown = {outcome: count - past.get(outcome, 0) for outcome, count in now.items()}
    asked = sum(grown.values())
    hits = sum(grown.get(outcome, 0) for outcome in ("hot", "resident", "waited", "peer"))
    return hits / asked if asked > 0 else None


def _memory(pid: int) -> tuple[int | None, int | None]:
    """Return usage and limit of what limits the process: a cgroup, or the machine."""
    try:
        limit = memory_limit(proc_self=f"/proc/{pid}")
        return usage_of(limit), limit.limit_bytes
    except (OSError, ValueError):
        return None, None


def _latencies(now: Snapshot) -> dict[str, dict[str, dict[str, float | int | None]]]:
    found: dict[str, dict[str, dict[str, float | int | None]]] = {}
    for metric in dict.fromkeys(metric for metric, _ in LATENCIES):
        found[metric] = {
            f"{kind} {which}": {
                "count": histogram.count,
                "p50_seconds": histogram.percentile(50),
                "p99_seconds": histogram.percentile(99),
            }
            for (of, kind, which), histogram in now.latencies.items()
            if of == metric
        }
    return found
