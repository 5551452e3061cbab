"""Hits while memory runs out: an allocation that fails costs no value."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import pytest
from support import wait_until

from vrange import VolatileCache

VALUES = {
    "array": np.arange(20_000),
    "small": [1, "two", 3.0] * 10,
    "text": "x" * 20_000,
    "nested": {"a": np.arange(9000), "b": [1] * 99},
}


@contextmanager
def failing(allocation: int) -> Iterator[None]:
    """Let one allocation of the interpreter fail, this many after now."""
    memory: Any = pytest.importorskip("_testcapi")
    memory.set_nomemory(allocation, allocation + 1)
    try:
        yield
    finally:
        memory.remove_mem_hooks()


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="CPython itself crashes without memory")
def test_one_failing_allocation_leaves_nothing_of_what_is_cleared() -> None:
    class Key:
        pass

    for allocation in range(40):
        with VolatileCache[Key, int](hot_bytes=0) as cache:
            keys = []
            for number in range(5_000):
                key = Key()
                cache[key] = number
                keys.append(weakref.ref(key))
            del key
            # The entries are gone even if the thread that drops their references gets no memory.
            with suppress(MemoryError), failing(allocation):
                cache.clear()
            assert len(cache) == 0
        wait_until(lambda keys=keys: not any(key() for key in keys), "keys are dropped")


# A generator's context manager and pickle.loads crash there without vrange as well: for one,
# PyObject_ClearWeakRefs leaves dangling references if it gets no memory.
@pytest.mark.skipif(sys.version_info >= (3, 12), reason="CPython itself crashes without memory")
@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("hot_bytes", [0, "1MiB"])
def test_one_failing_allocation_makes_no_hit_compute(kind: str, hot_bytes: int | str) -> None:
    with VolatileCache[str, Any](hot_bytes=hot_bytes) as cache:
        cache[kind] = VALUES[kind]
        computed: list[str] = []
        for allocation in range(30):
            cache._core.cool(None)
            answer = None
            try:
                with failing(allocation):
                    answer = cache.get_or_compute(kind, lambda: computed.append(kind))
            except MemoryError:
                continue
            np.testing.assert_equal(answer, VALUES[kind])
        assert not computed
        np.testing.assert_equal(cache[kind], VALUES[kind])
