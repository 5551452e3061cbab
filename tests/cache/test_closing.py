"""A cache that is closed while callers compute: they get their answers, later calls are refused."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vrange import VolatileCache, cached

PATIENCE = 20  # seconds until a test gives up; that of workers is for Linux only
SECONDS_TO_BEGIN = (0.05, 0.5, 3)  # that a caller may take until it waits

VALUES: dict[str, Callable[[], Any]] = {
    "small": lambda: "small",
    "bytes": lambda: b"x" * 10_000,
    "array": lambda: np.arange(10_000),
    "object": lambda: {"a": [1, 2]},
}


Make = Callable[[], VolatileCache[str, Any]]


@pytest.fixture(params=["plain", "stale", "tags", "below", "shared"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Return a function whose caches find nothing of each other's, nor of other runs'."""

    def new() -> VolatileCache[str, Any]:
        place = str(uuid.uuid4())
        options: dict[str, dict[str, Any]] = {
            "plain": {},
            "stale": {"ttl": 60, "stale": 60},
            "tags": {"tags": True},
            "below": {"below": tmp_path / place},
            "shared": {"shared": place},
        }
        return VolatileCache(name="closing", **options[request.param])

    return new


class Computation:
    """A function that tells when it runs, and waits until it may return."""

    def __init__(self, value: str) -> None:
        self.runs, self.may_return = threading.Event(), threading.Event()
        self._make = VALUES[value]

    def __call__(self) -> Any:
        self.runs.set()
        assert self.may_return.wait(PATIENCE)
        return self._make()

    async def awaited(self) -> Any:
        self.runs.set()
        while not self.may_return.is_set():
            await asyncio.sleep(0.001)
        return self._make()


def answers_of(
    calls: list[Callable[[], Any]], compute: Computation, close: Callable[[], None], seconds: float
) -> list[Any]:
    """Start the first call, which computes, then the others, which wait; close, and go on."""
    answers: list[Any] = [None] * len(calls)

    def call(place: int) -> None:
        try:
            answers[place] = calls[place]()
        except Exception as error:
            answers[place] = error

    threads = [threading.Thread(target=call, args=(n,), daemon=True) for n in range(len(calls))]
    threads[0].start()
    assert compute.runs.wait(PATIENCE)
    for thread in threads[1:]:
        thread.start()
    threads[-1].join(seconds)
    close()
    compute.may_return.set()
    for thread in threads:
        thread.join(PATIENCE)
    return answers


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("how", ["thread", "task"])
def test_each_caller_gets_its_answer(make: Make, how: str, value: str) -> None:
    for seconds in SECONDS_TO_BEGIN:
        cache, compute = make(), Computation(value)

        def call(cache: Any = cache, compute: Computation = compute) -> Any:
            if how == "thread":
                return cache.get_or_compute("k", compute)
            return asyncio.run(cache.get_or_compute_async("k", compute.awaited))

        first, second = answers_of([call, call], compute, cache.close, seconds)
        np.testing.assert_equal(first, VALUES[value]())
        with pytest.raises(ValueError, match="cache 'closing' is closed"):
            cache.get_or_compute("k", lambda: 1)
        if not isinstance(second, ValueError):  # as it began too late
            break
    np.testing.assert_equal(second, VALUES[value]())


def test_an_array_is_as_read_only_as_a_stored_one() -> None:
    cache, compute = VolatileCache[str, Any](), Computation("array")
    (answer,) = answers_of([lambda: cache.get_or_compute("k", compute)], compute, cache.close, 0)
    assert not answer.flags.writeable


def test_a_decorated_function_returns_its_value() -> None:
    compute = Computation("array")

    @cached
    def function(n: int) -> Any:
        return compute()

    (answer,) = answers_of([lambda: function(1)], compute, function.cache.close, 0)
    np.testing.assert_equal(answer, VALUES["array"]())
    with pytest.raises(ValueError, match="is closed"):
        function(1)


def test_what_the_program_raises_is_not_taken_for_the_cache_s() -> None:
    cache = VolatileCache[str, Any]()

    def compute() -> Any:
        cache.close()
        raise ValueError("the program's own")

    with pytest.raises(ValueError, match="own"):
        cache.get_or_compute("k", compute)
