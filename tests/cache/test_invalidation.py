"""What is forgotten or set stays so: a computation that began before stores nothing over it, and
whoever asks afterwards does not get what it makes.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from support import wait_until
from workers import PATIENCE, Worker, check_that_none_computes, run_async, switching_every, waiters

from vrange import NotKeptWarning, VolatileCache, cached

Cache = VolatileCache[Any, Any]

MADE: dict[str, Callable[[int], Any]] = {
    "small": lambda n: f"value {n}",
    "array": lambda n: np.full((100, 300), n, np.float32),
    "tree": lambda n: {"n": n, "a": np.full(4000, n)},
}
OLD, NEW = 1, 2


def number(value: Any) -> int:
    if isinstance(value, str):
        return int(value.split()[1])
    return int(value["n"] if isinstance(value, dict) else value.flat[0])


ACTS: dict[str, Callable[[Cache, Any], object]] = {
    "sets": lambda cache, new: cache.__setitem__("k", new),
    "updates": lambda cache, new: cache.update(k=new),
    "pops": lambda cache, new: cache.pop("k", None),
    "deletes": lambda cache, new: cache.__delitem__("k") if "k" in cache else cache.pop("k", 0),
    "clears": lambda cache, new: cache.clear(),
}


@pytest.fixture(params=[{}, {"hot_bytes": 0}, {"ttl": 1000}], ids=["hot", "not hot", "ttl"])
def cache(request: pytest.FixtureRequest) -> Any:
    with Cache(**request.param) as cache:
        yield cache


class Computation:
    """Reads what is true, and returns it later."""

    def __init__(self, value: Callable[[int], Any]) -> None:
        self.true = OLD
        self.reads = 0
        self.go = threading.Event()
        self._value = value

    def __call__(self) -> Any:
        self.reads += 1
        read = self._value(self.true)
        if self.reads == 1:
            assert self.go.wait(PATIENCE)
        return read

    async def in_a_task(self) -> Any:
        self.reads += 1
        read = self._value(self.true)
        if self.reads == 1:
            while not self.go.is_set():
                await asyncio.sleep(0.001)
        return read


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("kind", MADE)
@pytest.mark.parametrize("act", ACTS)
def test_who_asks_afterwards_gets_the_new(cache: Cache, act: str, kind: str, native: bool) -> None:
    value = MADE[kind]
    if native:
        cache["like it"] = value(0)  # so that what is led is led natively
    compute = Computation(value)
    early = Worker(cache.get_or_compute, "k", compute)
    wait_until(lambda: compute.reads == 1, "nobody computes")
    joined = Worker(cache.get_or_compute, "k", compute)
    wait_until(lambda: waiters(cache, "k") == 1, "it does not wait")
    compute.true = NEW
    ACTS[act](cache, value(NEW))
    assert number(Worker(cache.get_or_compute, "k", compute).result()) == NEW
    compute.go.set()
    assert number(early.result()) == OLD, "it asked before"
    assert number(joined.result()) == OLD, "and so did this one"
    assert number(cache["k"]) == NEW
    assert number(cache.get_or_compute("k", compute)) == NEW
    assert compute.reads == (1 if act in ("sets", "updates") else 2)
    check_that_none_computes(cache, "k")


@pytest.mark.parametrize("kind", MADE)
@pytest.mark.parametrize("act", ACTS)
def test_nor_is_it_stored_where_nobody_asked_meanwhile(cache: Cache, act: str, kind: str) -> None:
    value = MADE[kind]
    compute = Computation(value)
    early = Worker(cache.get_or_compute, "k", compute)
    wait_until(lambda: compute.reads == 1, "nobody computes")
    compute.true = NEW
    ACTS[act](cache, value(NEW))
    compute.go.set()
    assert number(early.result()) == OLD
    if act in ("sets", "updates"):
        assert number(cache["k"]) == NEW
    else:
        assert "k" not in cache
        assert number(cache.get_or_compute("k", compute)) == NEW


@pytest.mark.parametrize("kind", MADE)
@pytest.mark.parametrize("act", ACTS)
def test_tasks(cache: Cache, act: str, kind: str) -> None:
    value = MADE[kind]
    compute = Computation(value)

    async def main() -> None:
        early = asyncio.ensure_future(cache.get_or_compute_async("k", compute.in_a_task))
        await asyncio.sleep(0)
        joined = asyncio.ensure_future(cache.get_or_compute_async("k", compute.in_a_task))
        while waiters(cache, "k") != 1:
            await asyncio.sleep(0)
        compute.true = NEW
        ACTS[act](cache, value(NEW))
        late = await cache.get_or_compute_async("k", compute.in_a_task)
        assert number(late) == NEW
        compute.go.set()
        assert number(await early) == number(await joined) == OLD
        assert number(cache["k"]) == NEW

    run_async(main())
    check_that_none_computes(cache, "k")


def test_a_decorated_function() -> None:
    compute = Computation(MADE["array"])

    @cached
    def get(n: int) -> Any:
        return compute()

    early = Worker(get, 1)
    wait_until(lambda: compute.reads == 1, "nobody computes")
    compute.true = NEW
    get.cache_clear()
    assert number(Worker(get, 1).result()) == NEW
    compute.go.set()
    assert number(early.result()) == OLD
    assert number(get(1)) == NEW


def test_one_that_could_not_wait_for_another_is_dropped_as_well() -> None:
    """A computation asks for its own key: both are under way."""
    with Cache() as cache:
        compute = Computation(MADE["small"])

        def asks_for_itself() -> Any:
            return cache.get_or_compute("k", compute)

        early = Worker(cache.get_or_compute, "k", asks_for_itself)
        wait_until(lambda: compute.reads == 1, "nobody computes")
        compute.true = NEW
        cache.pop("k", None)
        compute.go.set()
        assert number(early.result()) == OLD
        assert "k" not in cache


def test_one_that_could_not_wait_is_joined_when_the_other_ends(cache: Cache) -> None:
    inner, reached = Computation(MADE["small"]), threading.Event()

    def in_another_thread() -> Any:
        # Waits for "other", whose leader asks for "k": it computes that instead of waiting.
        return cache.get_or_compute("other", lambda: cache.get_or_compute("k", inner))

    def outer() -> Any:
        reached.set()
        cache.get_or_compute("k", inner)
        return MADE["small"](7)

    worker = Worker(cache.get_or_compute, "k", outer)
    assert reached.wait(PATIENCE)
    wait_until(lambda: inner.reads == 1, "nobody computes")
    inner.go.set()
    assert number(worker.result()) == 7
    assert number(Worker(in_another_thread).result()) == 7
    check_that_none_computes(cache, "k", "other")


def test_other_keys_are_stored_all_the_same(cache: Cache) -> None:
    compute = Computation(MADE["small"])
    early = Worker(cache.get_or_compute, "k", compute)
    wait_until(lambda: compute.reads == 1, "nobody computes")
    cache["other"] = "value 3"
    cache.pop("another", None)
    del cache["other"]
    compute.go.set()
    early.result()
    assert number(cache["k"]) == OLD


def test_what_the_kernel_takes_is_not_forgotten() -> None:
    """Purged, evicted or expired meanwhile: what was computed is as good as before."""
    with Cache(hot_bytes=0) as cache:
        compute = Computation(MADE["small"])
        early = Worker(cache.get_or_compute, "k", compute)
        wait_until(lambda: compute.reads == 1, "nobody computes")
        cache.discard()
        cache.keys()
        compute.go.set()
        early.result()
        assert number(cache["k"]) == OLD


def test_what_can_not_be_stored_takes_what_was_there_with_it(cache: Cache) -> None:
    cache["k"] = "value 1"
    with pytest.warns(NotKeptWarning):
        cache["k"] = threading.Lock()
    assert "k" not in cache, "the old value is not what was set"


@pytest.mark.parametrize("kind", MADE)
def test_threads_that_set_and_forget_while_others_compute(cache: Cache, kind: str) -> None:
    """Who asks after it was set or forgotten never gets what was true before."""
    value = MADE[kind]
    true = [0] * 8
    failures: list[object] = []

    def compute(key: int) -> Any:
        return value(true[key])

    def changes(seed: int) -> None:
        for turn in range(120):
            key = (turn + seed) % 4 + 4 * seed  # each has its own
            true[key] += 1
            if turn % 3 == 0:
                cache[key] = value(true[key])
            elif turn % 3 == 1:
                cache.pop(key, None)
            else:
                cache.clear()
            got = number(cache.get_or_compute(key, partial(compute, key)))
            if got != true[key]:
                failures.append((key, got, true[key]))

    def asks() -> None:
        for turn in range(400):
            key = turn % 8
            before = true[key]
            got = number(cache.get_or_compute(key, partial(compute, key)))
            if got < before - 1:  # it may be just about to be said
                failures.append((key, got, before))

    with switching_every(1e-5):
        workers = [Worker(changes, seed) for seed in range(2)] + [Worker(asks) for _ in range(2)]
        for worker in workers:
            worker.result()
    assert not failures
