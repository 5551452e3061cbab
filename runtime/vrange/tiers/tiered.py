"""A cache with a lower tier, tags, or both: what `VolatileCache(below=..., tags=...)` makes."""

from __future__ import annotations

import _thread
import dataclasses
import functools
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from datetime import timedelta
from typing import Any, ClassVar

from vrange._cache.info import CacheInfo
from vrange._cache.parameters import check_times, seconds_of_ttl
from vrange.tiers.behind import Behind, Waiting
from vrange.tiers.below import ABSENT, Below, Ticket
from vrange.tiers.refreshes import Refreshes
from vrange.tiers.stores import store_of
from vrange.tiers.tags import LocalTokens, Tags, names_of_tags
from vrange.tiers.through import Through, count_dropped, write

__all__ = ["Tiered", "tiered_kind"]

_TRIES = 4  # to get a value none of whose tags was discarded meanwhile


class Tiered(Through):
    """The operations of a cache that go through its tags and its lower tier.

    The class stands before that of a cache without either, whose operations it calls by `super()`.
    """

    _kind: ClassVar[Any]  # what users call to make one

    def __init__(
        self,
        *,
        name: str | None = None,
        below: Any = None,
        tags: bool = False,
        below_name: str | None = None,
        **parameters: Any,
    ) -> None:
        if not isinstance(tags, bool):
            raise TypeError(f"tags must be True or False, not {tags!r}")
        shared = parameters.get("shared", False)
        found_by = below_name or name or (shared if isinstance(shared, str) else None)
        if below is not None:
            store = store_of(below)
            if not found_by:
                raise TypeError("below needs a name=, by which a later process finds the values")
        if shared is not False and parameters.get("stale") is not None:
            check_times(parameters.get("ttl"), parameters["stale"])
            self._stale = seconds_of_ttl(parameters.pop("stale"), "stale")
            self._fresh = seconds_of_ttl(parameters["ttl"])
            parameters["ttl"] = float(self._fresh or 0) + float(self._stale or 0)
            self._refreshes = Refreshes()
        base: Any = super()
        base.__init__(name=name, **parameters)
        if self._stale is None:
            self._fresh = self._parameters.ttl
        self._has_tags = tags or below is not None
        self._values_have_parts = self._has_tags or self._stale is not None
        self._answers_in_python = tags or self._stale is not None
        self._tags = Tags(self._new_tokens())
        self._has_warned_of_key = False
        if below is None:
            return
        self._below = Below(store, str(found_by), str(name or found_by), self._room_for)
        this: weakref.ref[Through] = weakref.ref(self)  # the queue does not keep the cache alive
        self._behind = Behind(
            functools.partial(write, this),
            functools.partial(count_dropped, this),
            store.leave_thread,
        )

    def _new_tokens(self) -> Any:
        shared: Callable[[], Any] | None = getattr(self, "_tokens_of_all", None)
        return LocalTokens() if shared is None else shared()

    # ---- lookups -------------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> Any:
        found = self.get(key, ABSENT)
        return self._missing(key) if found is ABSENT else found

    def get(self, key: Any, default: Any = None) -> Any:
        """Return the value under `key`, from here or from below, or `default`."""
        base: Any = super()
        found = base.get(key, ABSENT)
        if found is not ABSENT:
            noted, value = self._tags.parts(found)
            is_current = not noted or self._tags.are_current(noted)
            if is_current and not self._tags.is_stale(noted):
                return value
            if not is_current:
                self._drop(key)
        value = self._from_below(key)
        return default if value is ABSENT else value

    def get_or_compute(
        self, key: Any, compute: Callable[[], Any], *, tags: str | Iterable[str] = ()
    ) -> Any:
        """Return the value under `key`, from here or from below, or compute and cache it."""
        base: Any = super()
        names = self._checked(tags)
        ran: list[bool] = []
        through = functools.partial(self._through, key, compute, names, ran)
        for _ in range(_TRIES):
            noted, value = self._tags.parts(base.get_or_compute(key, through))
            if not noted or ran:
                return value
            if self._tags.are_current(noted):
                if self._tags.is_stale(noted):
                    self._refreshes.begin(self, key, compute, names)
                return value
            self._drop(key)
        return value

    async def get_or_compute_async(
        self, key: Any, compute: Callable[[], Awaitable[Any]], *, tags: str | Iterable[str] = ()
    ) -> Any:
        """Do the same for a coroutine function. A thread asks the lower tier meanwhile."""
        base: Any = super()
        names = self._checked(tags)
        ran: list[bool] = []
        through = functools.partial(self._through_async, key, compute, names, ran)
        for _ in range(_TRIES):
            noted, value = self._tags.parts(await base.get_or_compute_async(key, through))
            if not noted or ran:
                return value
            if self._tags.are_current(noted):
                if self._tags.is_stale(noted):
                    self._refreshes.begin_async(self, key, compute, names)
                return value
            self._drop(key)
        return value

    def _checked(self, tags: Any) -> tuple[str, ...]:
        return names_of_tags(tags) if tags else ()

    def _drop(self, key: Any) -> None:
        """Remove a value with a tag that was discarded. It is not valid below either."""
        base: Any = super()
        with suppress(KeyError):
            base.__delitem__(key)

    # ---- setting and removing ------------------------------------------------------------------

    def set(
        self,
        key: Any,
        value: Any,
        *,
        ttl: float | timedelta | None = None,
        tags: str | Iterable[str] = (),
    ) -> None:
        """Store `value` under `key`, with a ttl and tags of its own."""
        base: Any = super()
        names = self._checked(tags)
        seconds = seconds_of_ttl(ttl)
        below = self._below
        stored = self._stored(value, self._tags.note(names), seconds)
        lasts = ttl if seconds is None or self._stale is None else seconds + self._stale
        began = self._begin(key)
        if below is None or began is None:
            base.set(key, stored, ttl=lasts)
            return
        removed = self._remove_below(began)
        with below.lock:
            below.removed_here(began.form)
            base.set(key, stored, ttl=lasts)
        ticket = below.ticket_to_set(began.form, removed, names)
        if ticket.generation is not None and self._behind is not None:
            seconds = self._fresh if seconds is None else seconds
            expires = None if seconds is None else time.time() + seconds
            self._behind.add(Waiting(ticket.digest, key, ticket, expires, None))

    def __setitem__(self, key: Any, value: Any) -> None:
        self.set(key, value)

    def __delitem__(self, key: Any) -> None:
        base: Any = super()
        below, ticket = self._below, self._begin(key)
        if below is None or ticket is None:
            base.__delitem__(key)
            return
        was_below = not base.__contains__(key) and self._has_below(ticket)
        self._remove_below(ticket)
        with below.lock:
            below.removed_here(ticket.form)
            try:
                base.__delitem__(key)
            except KeyError:
                if not was_below:
                    raise

    def pop(self, key: Any, default: Any = ABSENT) -> Any:
        """Remove and return the value under `key`, from here or from below."""
        found = self.get(key, ABSENT)
        try:
            del self[key]
        except KeyError:
            found = ABSENT
        if found is not ABSENT:
            return found
        if default is ABSENT:
            raise KeyError(key)
        return default

    def __contains__(self, key: Any) -> bool:
        base: Any = super()
        found = self._peek_here(key, ABSENT) if self._values_have_parts else ABSENT
        if found is ABSENT:
            is_here = base.__contains__(key)
        else:
            noted = self._tags.parts(found)[0]
            is_here = self._tags.are_current(noted) and not self._tags.is_stale(noted)
        if is_here:
            return True
        ticket = self._begin(key)
        return ticket is not None and self._has_below(ticket)

    def _has_below(self, ticket: Ticket) -> bool:
        assert self._below is not None
        return self._below.read(ticket, self._tags.note, must=True) is not None

    def _remove_below(self, ticket: Ticket) -> bytes:
        assert self._behind is not None
        assert self._below is not None
        self._behind.cancel(ticket.digest)
        return self._below.remove(ticket.form)

    def discard_tag(self, tag: str) -> None:
        """Remove all values with a tag. It takes the same time however many there are."""
        if not isinstance(tag, str):
            raise TypeError(f"a tag is a str, not {tag!r}")
        if self._below is not None:
            self._below.discard_tag(tag)
        self._tags.discard(tag)

    def clear(self) -> None:
        """Remove all values, here and below, and reset the figures."""
        base: Any = super()
        below = self._below
        if below is None or self._behind is None:
            base.clear()
            return
        self._behind.cancel_all()
        below.clear()
        with below.lock:
            below.cleared_here()
            base.clear()
        below.figures.start()
        before = time.time()
        # No thread starts: the tier frees them when it needs the room.
        with suppress(RuntimeError, MemoryError):
            _thread.start_new_thread(below.free_removed, (before,))

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until what is to be written below is written."""
        if self._behind is None:
            return True
        return self._behind.flush(threading.TIMEOUT_MAX if timeout is None else timeout)

    def close(self) -> None:
        """Write what is to be written below, within 5 seconds, and close the cache."""
        if self._behind is not None:
            self._behind.flush()
            self._behind.cancel_all()
        base: Any = super()
        base.close()

    # ---- as a whole ----------------------------------------------------------------------------

    def _new(self, name: str | None) -> Any:
        # Without the lower tier: two caches can't have one place there.
        given = vars(self._parameters) | {"ttl": self._fresh}
        if self._stale is not None:
            given["stale"] = self._stale
        return self._kind(name=name, tags=self._has_tags, **given)

    def _compute_through(self, calls: Any, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function of calls that run natively, which asks below before it computes."""
        this = weakref.ref(self)

        @functools.wraps(function)
        def compute(*args: Any, **kwargs: Any) -> Any:
            cache = this()
            if cache is None:
                return function(*args, **kwargs)
            key = calls.make_key(args, kwargs)
            return cache._through(key, lambda: function(*args, **kwargs), (), [])

        return compute

    def info(self) -> CacheInfo:
        """Return the figures of the cache and of its lower tier."""
        base: Any = super()
        info: CacheInfo = base.info()
        if self._below is None:
            return info
        now = self._below.figures
        return dataclasses.replace(
            info,
            regenerated=max(0, info.regenerated - now.answered),
            below_hits=now.hits,
            below_misses=now.misses,
            below_errors=now.errors,
            below_written=now.written,
            below_dropped=now.dropped,
            below_read_bytes=now.read_bytes,
            below_written_bytes=now.written_bytes,
        )


_kinds: dict[tuple[type[Any], type[Any]], type[Any]] = {}


def tiered_kind(kind: type[Any], base: type[Any]) -> type[Any]:
    """Return the class of caches with a lower tier or tags, over a class without.

    Parameters
    ----------
    kind : type
        What users call to make a cache.
    base : type
        The class of what it would make without.

    """
    made = _kinds.get((kind, base))
    if made is None:
        made = type(base.__name__, (Tiered, base), {"_kind": kind, "__doc__": kind.__doc__})
    return _kinds.setdefault((kind, base), made)
