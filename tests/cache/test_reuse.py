"""At the memory limit, a new value takes the pages of a less valuable one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cgroup_support import in_cgroup
from support import EAGER, MIB

pytestmark = pytest.mark.memory_cgroup

# `make(key)` is a value that shows its key on every page.
CHILD = """
import json, resource, sys, threading
import numpy as np
import vrange

KIB, MIB = 1 << 10, 1 << 20
limit, value_bytes = int(sys.argv[1]), int(sys.argv[2])
cache = vrange.VolatileCache(hot_bytes=0)
keys = 0

def make(key):
    if value_bytes < 4 * KIB:
        return key.to_bytes(8, "little") * (value_bytes // 8)
    return np.full(value_bytes // 8, key, np.int64)

def is_right(key, value):
    if isinstance(value, bytes):
        return value == make(key)
    return bool((value == key).all())

def store(count):
    global keys
    for _ in range(count):
        cache[keys] = make(keys)
        keys += 1

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def found():
    right = wrong = 0
    for key in range(keys):
        value = cache.get(key)
        if value is not None:
            right, wrong = right + is_right(key, value), wrong + (not is_right(key, value))
    return right, wrong

full = limit * 5 // 4 // value_bytes
"""

STORES = """
store(full)  # and more than that: until then every page is new
before, faults_before = cache.info(), faults()
store(full)
after, faulted = cache.info(), faults() - faults_before
right, wrong = found()
print(json.dumps({
    "stored": full * value_bytes,
    "evicted": after.evicted_bytes - before.evicted_bytes,
    "purged": after.purged_total_bytes - before.purged_total_bytes,
    "entries": after.entries,
    "faults": faulted / full,
    "right": right,
    "wrong": wrong,
    "bytes": after.idle_bytes + after.offered_bytes,
}))
"""


def outcome(program: str, value_bytes: int, limit: int) -> Any:
    return json.loads(in_cgroup(CHILD + program, limit, value_bytes, limit=limit))


@pytest.mark.parametrize("value_bytes", [256 << 10, 1000], ids=["arrays", "small values in slabs"])
def test_a_store_evicts_and_takes_no_new_pages(value_bytes: int) -> None:
    limit = 192 * MIB
    told = outcome(STORES, value_bytes, limit)
    assert told["wrong"] == 0
    assert told["right"] > 0
    # The cache still fills the memory, and what is new replaces what is old.
    assert told["bytes"] > limit // 2 or EAGER
    assert told["right"] * value_bytes > told["bytes"] // 2
    if not EAGER:  # there, nothing is ever taken by the kernel
        # Without reuse nothing is evicted. The kernel takes from the reserve, which follows bursts.
        assert told["evicted"] > told["purged"]
    # A new page of memory that is not filled by userfaultfd is a fault.
    assert told["faults"] < max(value_bytes // 4096, 1) / 4


WHILE_THE_APPLICATION_GROWS = """
import time
store(full)
held, stop = [], threading.Event()

def discard():
    while not stop.is_set():
        for key in range(keys - 1, 0, -7):
            cache.discard([key])
            time.sleep(0)

thread = threading.Thread(target=discard)
thread.start()
wrong = 0
for step in range(40):
    if step % 2 == 0 and step < 20:
        held.append(np.ones(limit // 40, np.uint8))
    elif step >= 30:
        held.clear()
    store(full // 10)
    for key in range(keys - 50, keys):
        value = cache.get(key)
        wrong += value is not None and not is_right(key, value)
stop.set()
thread.join()
right, wrong_at_the_end = found()
print(json.dumps({"right": right, "wrong": wrong + wrong_at_the_end}))
"""


def test_values_are_right_and_the_process_lives_while_memory_is_taken() -> None:
    told = outcome(WHILE_THE_APPLICATION_GROWS, 64 << 10, 192 * MIB)
    assert told["wrong"] == 0
    assert told["right"] > 0


VALUABLE = """
store(full // 4)
for _ in range(50):
    for key in range(10):
        cache.get(key)
store(full)
print(json.dumps([cache.get(key) is not None for key in range(10)]))
"""


def test_what_is_often_used_stays() -> None:
    assert outcome(VALUABLE, 256 << 10, 192 * MIB) == [True] * 10
