"""Stale values of a shared cache, computed again in the background by one of all processes."""

from __future__ import annotations

import functools
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vrange._cache.task_events import running_loop

if TYPE_CHECKING:
    from vrange._cache.refresh import Refresher

__all__ = ["Refreshes"]


class Refreshes:
    """The refreshes of one shared cache."""

    _refresher: Refresher | None = None

    def _begin(self, key: Any, function: Callable[[], Any], loop: Any) -> None:
        if self._refresher is None:
            from vrange._cache.refresh import Refresher  # only where processes can share

            self._refresher = Refresher()
        renewed: Any = _Renewed
        self._refresher.begin(renewed, key, 0, function, (), None, loop)

    def begin(
        self, cache: Any, key: Any, compute: Callable[[], Any], tags: tuple[str, ...]
    ) -> None:
        """Compute a value again in a thread, unless that is under way."""
        self._begin(key, functools.partial(_compute, cache, key, compute, tags), None)

    def begin_async(
        self, cache: Any, key: Any, compute: Callable[[], Awaitable[Any]], tags: tuple[str, ...]
    ) -> None:
        """Compute a value again in a task of the running event loop."""
        loop = running_loop()
        if loop is not None:
            again = functools.partial(_compute_async, cache, key, compute, tags)
            self._begin(key, again, loop)


class _Renewed:
    """Stands for the core, which has nothing to store: the computation stores its result itself."""

    @staticmethod
    def renew(key: Any, stamp: int, value: Any, cost_ns: int) -> bool:
        return True


@contextmanager
def _renewing(cache: Any, key: Any, tags: tuple[str, ...]) -> Iterator[Any]:
    """Yield a function that stores what is computed; None if another process computes already."""
    flight = cache._lead_again(key)
    if flight is None:
        yield None
        return
    with flight:
        since, noted, ticket = cache._changes_of(key), cache._tags.note(tags), cache._begin(key)
        if ticket is not None:
            cache._take_tokens(ticket, tags)
        begun = time.perf_counter()

        def store(value: Any) -> None:
            if not flight.skipped:
                seconds = time.perf_counter() - begun
                cache._renew(key, cache._stored(value, noted), since, int(seconds * 1e9))
                cache._write_later(ticket, key, seconds)

        yield store


def _compute(cache: Any, key: Any, compute: Callable[[], Any], tags: tuple[str, ...]) -> None:
    with _renewing(cache, key, tags) as store:
        if store is not None:
            store(compute())


async def _compute_async(
    cache: Any, key: Any, compute: Callable[[], Awaitable[Any]], tags: tuple[str, ...]
) -> None:
    with _renewing(cache, key, tags) as store:
        if store is not None:
            store(await compute())
