"""What a cache with a lower tier does when a value is absent: it reads there before it computes."""

from __future__ import annotations

import asyncio
import functools
import time
import weakref
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from vrange._cache.common import CommonCache
from vrange._cache.not_kept import warn
from vrange._cache.unstored import as_answered, as_own
from vrange._stable_keys import form_of
from vrange.tiers.behind import Behind, Waiting
from vrange.tiers.below import ABSENT, Below, Found, Ticket
from vrange.tiers.tags import Tags

__all__ = ["Through", "count_dropped", "write"]


class Through(CommonCache[Any, Any]):
    """The part of a cache that reads its lower tier, and queues what is to be written there."""

    _below: Below | None = None
    _behind: Behind | None = None
    _has_warned_of_key = False
    _fresh: float | None = None  # the ttl, and for how long a value is answered afterwards: of a
    _stale: float | None = None  # cache whose values carry their age, as no core looks at it
    _tags: Tags

    if TYPE_CHECKING:  # what the class of the cache itself knows how to do

        def _peek_here(self, key: Any, default: Any) -> Any:
            """Return what is stored here under a key, without counting a request."""

        def _as_known(self, key: Any) -> Any:
            """Return a key whose parts other processes know."""

        def _leads(self, key: Any) -> bool:
            """Return whether a computation of the key is under way whose result is stored."""

        def _changes_of(self, key: Any) -> Any:
            """Return what tells whether any process removed or set the key since."""

        def _store_from_below(
            self, key: Any, stored: Any, seconds: float | None, since: Any, leads: bool
        ) -> None:
            """Store a value that expires in so many seconds, unless the key was removed since."""

        def _room_for(self, nbytes: int) -> object:
            """Return an object that reserves memory. Raise MemoryError if there is too little."""

    def _begin(self, key: Any) -> Ticket | None:
        if self._below is None:
            return None
        try:
            return self._below.begin(form_of(self._as_known(key)))
        except TypeError as error:
            hash(key)  # one that can't be hashed is no key at all
            if not self._has_warned_of_key:
                self._has_warned_of_key = True
                warn(f"cache {self.name!r}: values of such keys are not kept below: {error}")
            return None

    def _through(
        self, key: Any, compute: Callable[[], Any], tags: tuple[str, ...], ran: list[bool]
    ) -> Any:
        """Compute a value that is absent here, unless it is below. Return what is stored.

        `ran` shows that this call did so: what it returns then is new enough for the caller.
        """
        ran.append(True)
        noted = self._tags.note(tags)
        ticket = self._begin(key)
        if ticket is not None and self._leads(key):
            since = self._changes_of(key)
            found = self._read(ticket, tags)
            if found is not None:
                return self._answer(key, ticket, found, since)
        begun = time.perf_counter()
        value = compute()
        self._write_later(ticket, key, time.perf_counter() - begun)
        return self._stored(value, noted)

    async def _through_async(
        self,
        key: Any,
        compute: Callable[[], Awaitable[Any]],
        tags: tuple[str, ...],
        ran: list[bool],
    ) -> Any:
        ran.append(True)
        noted = self._tags.note(tags)
        ticket = self._begin(key)
        if ticket is not None and self._leads(key):
            since = self._changes_of(key)
            found = await _in_thread(functools.partial(self._read, ticket, tags))
            if found is not None:
                return self._answer(key, ticket, found, since)
        begun = time.perf_counter()
        value = await compute()
        self._write_later(ticket, key, time.perf_counter() - begun)
        return self._stored(value, noted)

    def _stored(self, value: Any, noted: tuple[Any, ...], seconds: float | None = None) -> Any:
        """Return what is stored for a value with these tokens."""
        fresh = self._fresh if seconds is None else seconds
        if self._stale is not None and fresh is not None:
            noted = self._tags.with_age(noted, fresh)
        return self._tags.stored(value, noted)

    def _take_tokens(self, ticket: Ticket, tags: tuple[str, ...]) -> None:
        """Let what is computed now be written below."""
        assert self._below is not None
        self._below.take_tokens(ticket, tags)

    def _read(self, ticket: Ticket, tags: tuple[str, ...]) -> Found | None:
        assert self._below is not None
        return self._below.read(ticket, self._tags.note, tags)

    def _answer(self, key: Any, ticket: Ticket, found: Found, since: Any) -> Any:
        """Return what is stored for a value from below. It expires when it would have there."""
        stored = self._stored(found.value, found.noted, found.seconds_left)
        assert self._below is not None
        self._below.figures.answered += 1
        if found.seconds_left is not None:
            self._put_back(key, stored, ticket, found, since, leads=True)
        return stored

    def _from_below(self, key: Any) -> Any:
        """Return the value of a key from the lower tier, or ABSENT, and keep it here."""
        ticket = self._begin(key)
        if ticket is None:
            return ABSENT
        since = self._changes_of(key)
        assert self._below is not None
        found = self._below.read(ticket, self._tags.note, must=True)
        if found is None:
            return ABSENT
        stored = self._stored(found.value, found.noted, found.seconds_left)
        self._put_back(key, stored, ticket, found, since, leads=False)
        kept = self._peek_here(key, ABSENT)  # as later callers get it
        if kept is not ABSENT:
            return self._tags.parts(kept)[1]
        return as_own(found.value) if self._parameters.copy else as_answered(found.value)

    def _put_back(
        self, key: Any, stored: Any, ticket: Ticket, found: Found, since: Any, *, leads: bool
    ) -> None:
        assert self._below is not None
        with self._below.lock:
            if self._below.is_current(ticket):
                left = found.seconds_left
                seconds = left if left is None or self._stale is None else left + self._stale
                self._store_from_below(key, stored, seconds, since, leads)

    def _write_later(self, ticket: Ticket | None, key: Any, cost: float | None) -> None:
        if ticket is None or self._below is None or self._behind is None:
            return
        figures = self._below.figures
        if cost is not None:
            figures.count_computed(cost)
        if ticket.generation is not None and figures.is_worth_writing(cost, 0):
            expires = None if self._fresh is None else time.time() + self._fresh
            self._behind.add(Waiting(ticket.digest, key, ticket, expires, cost))


def count_dropped(this: weakref.ref[Through]) -> None:
    """Count a value that is not written."""
    cache = this()
    if cache is not None and cache._below is not None:
        cache._below.figures.dropped += 1


def write(this: weakref.ref[Through], waiting: Waiting) -> bool:
    """Write the value of a key, in the thread. Return whether that is done."""
    cache = this()
    if cache is None or cache._below is None:
        return True
    try:
        found = cache._peek_here(waiting.key, ABSENT)
    except ValueError:  # it is closed
        return True
    if found is ABSENT:
        return False
    noted, value = cache._tags.parts(found)
    if waiting.is_cancelled or not cache._tags.are_current(noted):
        return True
    cache._below.write(waiting.ticket, value, waiting.expires, waiting.cost)
    if waiting.is_cancelled:
        cache._below.take_back(waiting.ticket)
    return True


async def _in_thread(do: Callable[[], Any]) -> Any:
    """Return do(), from a thread if an event loop of asyncio runs here."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # another library's loop
        return do()
    try:
        asked = loop.run_in_executor(None, do)
    except RuntimeError:  # the loop's executor was shut down
        return do()
    return await asked
