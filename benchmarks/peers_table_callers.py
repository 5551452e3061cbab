"""What peers_table tries with several callers at once."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

from benchmarks.peers_table_caches import Decorated, Function

CALLERS = 8
PATIENCE = 60.0
Facts = dict[str, Any]
Decorate = Callable[[Function], Decorated]


def async_function(decorate: Decorate, task: Facts) -> Facts:
    """Await the same call twice, then by eight tasks at once."""
    calls = []

    async def load(key: int) -> int:
        calls.append(key)
        await asyncio.sleep(0.05)
        return key

    async def twice(call: Function) -> None:
        assert await call(1) == 1
        assert await call(1) == 1

    async def at_once(call: Function) -> None:
        assert await asyncio.gather(*[call(2) for _ in range(CALLERS)]) == [2] * CALLERS

    try:
        call = decorate(load).call
        asyncio.run(twice(call))
    except Exception as error:  # each library fails in a way of its own
        return {"works": False, "error": f"{type(error).__name__}: {error}"[:200]}
    works = calls == [1]
    calls.clear()
    asyncio.run(at_once(call))
    return {"works": works, "computed_by_tasks": len(calls)}


def stampede(decorate: Decorate, task: Facts) -> Facts:
    """Ask for one missing key from eight threads at once."""
    calls = []

    def load(key: int) -> int:
        calls.append(key)
        time.sleep(0.2)
        return key

    call, start = decorate(load).call, threading.Barrier(CALLERS, timeout=PATIENCE)
    answers = []

    def ask() -> None:
        start.wait()
        answers.append(call(1))

    run_threads([ask] * CALLERS)
    assert answers == [1] * CALLERS
    return {"computed": len(calls)}


def invalidation(decorate: Decorate, task: Facts) -> Facts:
    """Clear the cache while a value of the old state is being computed."""
    state, computing, go_on = ["old"], threading.Event(), threading.Event()

    def load(key: int) -> str:
        seen = state[0]
        if seen == "old":
            computing.set()
            assert go_on.wait(PATIENCE)
        return seen

    cached = decorate(load)

    def change() -> None:
        assert computing.wait(PATIENCE)
        state[0] = "new"
        # Some caches hold a lock while they compute: then clearing waits, so it can't be waited for
        clearing = threading.Thread(target=cached.clear)
        clearing.start()
        clearing.join(0.5)
        go_on.set()
        clearing.join(PATIENCE)

    run_threads([lambda: cached.call(1), change])
    return {"later": cached.call(1)}


def run_threads(functions: list[Callable[[], Any]]) -> None:
    errors: list[BaseException] = []

    def run(function: Callable[[], Any]) -> None:
        try:
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=[function]) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive(), "a caller waits for ever"
    if errors:
        raise errors[0]
