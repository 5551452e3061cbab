"""The child of peers_table: tries one property of one cache, and reports what happened.

Its task: `property`, `cache`, `option` (use the cache's option for this property), `directory` for
caches on disk, and `quick`.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import contender, memory
from benchmarks.interleave import interleaved
from benchmarks.peers_table_caches import CACHES, TTL_SECONDS, Decorated, Function
from benchmarks.peers_table_callers import Decorate, Facts, async_function, invalidation, stampede

MIB = 1 << 20
SMALL_BYTES = 200


def image(key: int) -> np.ndarray:
    return np.full(MIB, key % 251, np.uint8)


def growth(decorate: Decorate, task: Facts) -> Facts:
    """Ask for more than the container holds."""
    asked, full = task["values"], False

    def compute(key: int) -> np.ndarray:
        if full:
            raise LookupError(key)  # so that nothing is stored while what is kept is counted
        return image(key)

    call = decorate(compute).call
    for key in range(asked):
        assert call(key)[-1] == key % 251
    full, kept = True, 0
    for key in range(asked):
        try:
            assert call(key)[-1] == key % 251
        except LookupError:
            continue
        kept += 1
    return {"disk_bytes": disk_bytes(task["directory"]), "asked": asked, "kept": kept}


def give_back(decorate: Decorate, task: Facts) -> Facts:
    """Fill the cache with what fits; then another program of the container needs the memory."""
    cached = decorate(image)
    for key in range(task["values"]):
        cached.call(key)
    neighbour = "held = [b'x' * (1 << 20) for _ in range(int(__import__('sys').argv[1]))]"
    command = [sys.executable, "-c", neighbour, str(task["neighbour_mib"])]
    return {"neighbour_status": subprocess.call(command)}


def array(decorate: Decorate, task: Facts) -> Facts:
    """Hold one hit, and see how much another one adds to this process's own memory."""
    size = 16 * MIB
    calls = []

    def compute(key: int) -> np.ndarray:
        calls.append(key)
        return np.full(size, key, np.uint8)

    cached = decorate(compute)
    cached.call(1)
    held = cached.call(1)
    gc.collect()
    before = memory.anonymous_bytes()
    again = cached.call(1)
    assert int(again[-1]) == int(held[-1]) == 1
    assert int(again.sum(dtype=np.int64)) == size
    grown = memory.anonymous_bytes() - before
    assert calls == [1], "a hit was none"
    return {"copied": grown > size / 2}


def mutation(decorate: Decorate, task: Facts) -> Facts:
    """Change a hit of each kind, and look at the next one."""
    found = {}
    kinds: dict[str, tuple[Function, Function]] = {
        "array": (make_array, lambda value: value.__setitem__(0, 9)),
        "list": (make_list, lambda value: value.append(9)),
        "nested": (make_nested, lambda value: value[0].append(9)),
    }
    for kind, (make, change) in kinds.items():
        call = decorate(make).call
        call(1)
        try:
            change(call(1))
        except ValueError:  # the destination is read-only
            found[kind] = "refused"
            continue
        kept = repr(call(1)) == repr(make(1))
        found[kind] = "private" if kept else "changes the cache"
    return found


def make_array(key: int) -> np.ndarray:
    return np.zeros(1000)


def make_list(key: int) -> list[int]:
    return [0]


def make_nested(key: int) -> list[list[int]]:
    return [[0]]


def failure(decorate: Decorate, task: Facts) -> Facts:
    """Ask twice for what fails."""
    calls = []

    def fail(key: int) -> int:
        calls.append(key)
        raise LookupError(key)

    call = decorate(fail).call
    for _ in range(2):
        try:
            call(1)
        except LookupError:
            continue
        raise AssertionError("the exception was lost")
    return {"cached": len(calls) == 1}


def ttl(decorate: Decorate, task: Facts) -> Facts:
    calls = []

    def load(key: int) -> int:
        calls.append(key)
        return key

    call = decorate(load).call
    call(1)
    time.sleep(2 * TTL_SECONDS)
    call(1)
    return {"expires": len(calls) == 2}


def unpicklable(decorate: Decorate, task: Facts) -> Facts:
    """Cache a lambda, which pickle refuses."""
    calls = []

    def load(key: int) -> Function:
        calls.append(key)
        return lambda: key

    try:
        call = decorate(load).call
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert call(1)() == call(1)() == 1
    except Exception as error:
        return {"outcome": f"raises `{type(error).__name__}`"}
    return {"outcome": "kept" if len(calls) == 1 else "returned, not kept"}


def shared(decorate: Decorate, task: Facts) -> Facts:
    """Compute once, and ask from a second process while this one lives; or only ask (`role`)."""
    calls = []

    def load(key: int) -> int:
        calls.append(key)
        return key

    call = decorate(load).call
    assert call(1) == 1
    facts: Facts = {"computed": len(calls)}
    if task.get("role") != "ask":
        second = subprocess.run(
            [sys.executable, "-m", "benchmarks.peers_table_child"],
            input=json.dumps({**task, "role": "ask"}),
            capture_output=True,
            text=True,
            check=True,
        )
        facts["computed_by_second"] = json.loads(second.stdout)["computed"]
    return facts


def small(decorate: Decorate, task: Facts) -> Facts:
    """Measure an entry's share, key and value included, in memory and on disk."""
    count = task["entries"]
    call = decorate(small_value).call
    call(0)  # what the first call opens
    gc.collect()
    before, disk = memory.anonymous_bytes(), disk_bytes(task["directory"])
    for key in range(1000, 1000 + count):
        call(key)
    gc.collect()
    return {
        "memory_bytes": (memory.anonymous_bytes() - before) / count,
        "disk_bytes": (disk_bytes(task["directory"]) - disk) / count,
    }


def small_value(key: int) -> bytes:
    return key.to_bytes(8, "little") * (SMALL_BYTES // 8)


def hits(decorate: Decorate, task: Facts) -> Facts:
    """Time the hits of all caches in turn, in ns."""
    make = image if task["what"] == "array" else small_value
    calls = {}
    for name, cache in CACHES.items():
        directory = Path(task["directory"], name)
        calls[name] = cache.decorate(make, str(directory)).call
        for _ in range(3):
            calls[name](1001)

    def timed(call: Function) -> float:
        count, start = 0, time.perf_counter()
        while (taken := time.perf_counter() - start) < task["seconds"]:
            for _ in range(10):
                call(1001)
            count += 10
        return taken / count * 1e9

    return interleaved({name: partial(timed, call) for name, call in calls.items()}, task["rounds"])


def disk_bytes(directory: str) -> int:
    """Return what the files take: blocks, not lengths."""
    return sum(path.lstat().st_blocks * 512 for path in Path(directory).rglob("*"))


PROPERTIES: dict[str, Callable[[Decorate, Facts], Facts]] = {
    "growth": growth,
    "give_back": give_back,
    "array": array,
    "mutation": mutation,
    "async": async_function,
    "stampede": stampede,
    "failure": failure,
    "ttl": ttl,
    "invalidation": invalidation,
    "unpicklable": unpicklable,
    "shared": shared,
    "small": small,
    "hits": hits,
}


def main() -> None:
    task = contender.task()
    cache = CACHES[task["cache"]]
    decorator = cache.options[task["property"]][1] if task.get("option") else cache.decorate
    made = 0

    def decorate(function: Function) -> Decorated:
        nonlocal made
        made += 1
        return decorator(function, str(Path(task["directory"], f"function-{made}")))

    contender.tell("found", **PROPERTIES[task["property"]](decorate, task))


if __name__ == "__main__":
    main()
