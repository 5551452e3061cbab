"""One recursion of many levels, twice, for deep_levels.py: its time, and what stays resident.

    python deep_levels_child.py NAME LEVELS main|thread|limit

"limit" is a thread with a large stack, after sys.setrecursionlimit. Any interpreter can run this.
"""

from __future__ import annotations

import copy
import functools
import gc
import json
import pickle
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

LARGE = 4 << 30
MEASURED_AFTER = 1.0


def nested(levels: int) -> list[Any]:
    inner: list[Any] = []
    for _ in range(levels - 1):
        inner = [inner]
    return inner


def levels_of(value: list[Any]) -> int:
    levels = 1
    while value:
        value = value[0]
        levels += 1
    return levels


def loads(levels: int) -> Callable[[], bool]:
    text = "[" * levels + "]" * levels
    return lambda: levels_of(json.loads(text)) == levels


def dumps(levels: int) -> Callable[[], bool]:
    value = nested(levels)
    return lambda: len(json.dumps(value)) == 2 * levels


def pickled(levels: int) -> Callable[[], bool]:
    value = nested(levels)
    return lambda: len(pickle.dumps(value)) > 2 * levels


def copied(levels: int) -> Callable[[], bool]:
    value = nested(levels)
    return lambda: levels_of(copy.deepcopy(value)) == levels


def memoised(levels: int) -> Callable[[], bool]:
    def fresh() -> bool:
        @functools.cache
        def steps(n: int) -> int:
            return 0 if n == 0 else 1 + steps(n - 1)

        return steps(levels) == levels

    return fresh


WORK: dict[str, Callable[[int], Callable[[], bool]]] = {
    "json.loads": loads,
    "json.dumps": dumps,
    "pickle.dumps": pickled,
    "copy.deepcopy": copied,
    "functools.cache": memoised,
}


def mebibytes(field: str) -> float:
    with open("/proc/self/status") as lines:
        for line in lines:
            if line.startswith(field + ":"):
                return int(line.split()[1]) / 1024
    return 0.0


def stack_mebibytes() -> list[float] | None:
    """Return what the deepest thread used of its stack, and what of all is resident (vrange)."""
    vrange = sys.modules.get("vrange")
    if vrange is None:
        return None
    uses = vrange.stack_info().threads
    used = max((use.high_water_bytes for use in uses), default=0)
    return [used / 2**20, sum(use.resident_bytes for use in uses) / 2**20]


def measure(make: Callable[[], Callable[[], bool]]) -> dict[str, Any]:
    figures: dict[str, Any] = {"stopped": "", "seconds": []}
    work = make()
    gc.collect()
    before = mebibytes("VmRSS")
    try:
        for _ in range(2):
            begun = time.perf_counter()
            right = work()
            figures["seconds"].append(time.perf_counter() - begun)
            assert right
    except (RecursionError, MemoryError) as error:
        figures["stopped"] = f"{type(error).__name__}: {error}"[:200]
        return figures
    gc.collect()
    peak = mebibytes("VmHWM")
    time.sleep(MEASURED_AFTER)
    after = mebibytes("VmRSS")
    return figures | {
        "before_mib": before,
        "peak_mib": peak,
        "after_mib": after,
        "stack_mib": stack_mebibytes(),
    }


def main() -> None:
    name, levels, where = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    make = functools.partial(WORK[name], levels)
    if where == "limit":
        threading.stack_size(LARGE)
        sys.setrecursionlimit(2**31 - 1)
    results: list[dict[str, Any]] = []
    if where == "main":
        results.append(measure(make))
    else:
        thread = threading.Thread(target=lambda: results.append(measure(make)))
        thread.start()
        thread.join()
    sys.stdout.write(json.dumps(results[0]))


if __name__ == "__main__":
    main()
