"""Eight workers in a cgroup of 1 GiB, 400 MiB of values: memory, hits, requests, and bursts."""

from __future__ import annotations

import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import contender
from benchmarks.service.record import Record
from benchmarks.service.workers import EACH, LRU, SHARED
from vrange.cli.memory_cgroup import MemoryCgroup

LIMIT_MIB, VALUES, VALUE_KIB, WORKERS = 1024, 1600, 256, 8
BURST_MIB, BURSTS, BURSTS_AT_ONCE = 300, 50, 10
REQUESTS = 16_000  # of all workers
ROUNDS = 3
TIMEOUT = 900

ONE = "vrange, one process"
CONTENDERS = {SHARED: WORKERS, EACH: WORKERS, ONE: 1, LRU: WORKERS}


@contextmanager
def _directory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="vrange-service-", dir="/dev/shm"))
    directory.chmod(0o700)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def run(name: str, requests: int, bursts: int, values: int = VALUES) -> dict[str, Any]:
    """Run the workers of one contender in a cgroup of their own."""
    workers = CONTENDERS[name]
    with _directory() as directory, MemoryCgroup(LIMIT_MIB << 20, name="vrange-service") as group:
        task = {
            "cache": EACH if name == ONE else name,
            "name": f"bench-{uuid.uuid4().hex[:12]}",
            "workers": workers,
            "values": values,
            "value_kib": VALUE_KIB,
            "requests": requests,
            "bursts": bursts,
            "burst_mib": BURST_MIB,
            "seed": time.time_ns(),
            "directory": group.path,
            "version": group.version,
        }
        outcome = contender.run(
            "benchmarks.service.workers",
            task,
            group=group,
            timeout=TIMEOUT,
            environment={"VRANGE_RUNTIME_DIR": str(directory)},
        )
    begun, served = outcome.told("begun"), outcome.told("served")
    survived = outcome.told("survived")
    found: dict[str, Any] = {
        "workers": workers,
        "killed": outcome.oom_kills,
        "bursts": len(outcome.told("burst")),
        "survived": len(survived),
        "wrong": sum(line["wrong"] for line in served + survived),
        "peak_bytes": outcome.peak_bytes,
    }
    if served and requests:
        line = served[0]
        found |= {
            "begun_bytes": begun[0]["used"],
            "used_bytes": line["used"],
            "hit_ratio": 1 - line["computed"] / line["requests"],
            "requests_per_cpu_second": line["requests"] / line["cpu_seconds"],
        }
    return found


def measure(record: Record, quick: bool) -> None:
    """Run what the record does not have yet."""
    rounds, bursts = (1, 1) if quick else (ROUNDS, BURSTS)
    requests, values = (400, 100) if quick else (REQUESTS, VALUES)
    for number in range(rounds):
        for name in CONTENDERS:
            record.once(f"served {name} {number}", partial(run, name, requests, 0, values))
    at_once = min(bursts, BURSTS_AT_ONCE)
    for number in range(bursts // at_once):
        record.once(f"bursts {number}", partial(run, SHARED, 0, at_once, values))
