"""The child of bookkeeping: fills one cache and reports by how much its own memory grew."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks import contender, memory, peers

LARGE_BYTES, SMALL_BYTES = 256 << 10, 200


def small_value(number: int) -> bytes:
    return number.to_bytes(8, "little") * (SMALL_BYTES // 8)


def large_value(number: int) -> np.ndarray:
    return np.full(LARGE_BYTES, number % 251, np.uint8)


def keys(kind: str, count: int) -> Iterator[int | str]:
    """Return new objects at each call, so that only the cache keeps them."""
    return (f"key-{number:08}" if kind == "str" else number + 1000 for number in range(count))


def fill(task: dict[str, Any]) -> dict[str, Any]:
    """Ask for `count` keys, each for the first time, and then for some of them again."""
    make: Callable[[int], Any] = small_value if task["values"] == "small" else large_value
    computed = 0

    def compute(key: int | str) -> Any:
        nonlocal computed
        computed += 1
        return make(key - 1000 if isinstance(key, int) else int(key[4:]))

    call = peers.PEERS[task["peer"]](compute, peers.ENTRIES.get(task["peer"]))
    gc.collect()
    before = memory.anonymous_bytes()
    for key in keys(task["keys"], task["count"]):
        call(key)
    gc.collect()
    grown = memory.anonymous_bytes() - before
    assert computed == task["count"]
    step = max(1, task["count"] // 1000)
    for number, key in enumerate(keys(task["keys"], task["count"])):
        if number % step == 0:
            assert np.array_equal(call(key), make(number)), f"{key!r} has another's value"
    assert computed == task["count"], f"{computed - task['count']} were computed again"
    return {"grown_bytes": grown, "per_entry_bytes": grown / task["count"]}


if __name__ == "__main__":
    contender.tell("filled", **fill(contender.task()))
