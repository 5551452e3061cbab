"""A cache that is one for all processes of a service: what `VolatileCache(shared=...)` returns."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator
from datetime import timedelta
from typing import Any, Generic, TypeVar

from vrange._cache.cache import VolatileCache
from vrange._cache.codec import Codec
from vrange._cache.not_kept import warn
from vrange._cache.parameters import nanoseconds_of_ttl
from vrange._cache.unstored import as_answered, as_own
from vrange._core import lib
from vrange._service.answers import Answers
from vrange._service.blob import BlobCodec
from vrange._service.decorated import BACKEND, leave_uncached
from vrange._service.flights import Flight
from vrange._service.index import NotSharedError, close_index, open_index
from vrange._service.listing import peek
from vrange._service.reads import new_reads
from vrange._service.tokens import SharedTokens, keys_but_tags
from vrange._service.values import ABSENT, SharedValues

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


_opening = threading.RLock()  # a finalizer may use another cache


def _forget_threads() -> None:
    """In the child of a fork, where a thread that held the lock does not exist."""
    global _opening
    _opening = threading.RLock()


os.register_at_fork(after_in_child=_forget_threads)


class _AloneError(Exception):
    """Raised where the process has a cache of its own."""


def _or_alone(name: str) -> Callable[[Any], Any]:
    """Decorate a method: where the processes can't share, the base class's of this name runs."""

    def decorate(method: Any) -> Any:
        @functools.wraps(method)
        def call(self: Any, *args: Any, **named: Any) -> Any:
            try:
                return method(self, *args, **named)
            except NotSharedError as error:
                self._be_private(error)
            except _AloneError:
                pass
            return getattr(super(SharedCache, self), name)(*args, **named)

        return call

    return decorate


class SharedCache(VolatileCache[K, V], Generic[K, V]):
    """A cache that is one for all processes of a service. See VolatileCache."""

    _codec_kind: type[Codec] = BlobCodec
    _backend = BACKEND
    _calls_are_native = False

    def __init__(
        self,
        *,
        shared: str | bool,
        name: str | None = None,
        on_evict: object = None,
        **parameters: Any,
    ) -> None:
        if on_evict is not None:
            raise TypeError(
                "on_evict belongs to a cache of one process: the values of a shared cache leave in "
                "any process. Leave out on_evict or shared"
            )
        self._name_of_all = _name_of_all(shared, name)
        super().__init__(name=name or self._name_of_all, **parameters)
        self._values: SharedValues | None = None
        self._tokens: SharedTokens | None = None
        self.reads = new_reads(self._core, self._parameters.copy)
        # A program may decorate many functions that it never calls: the index is opened with the
        # first use. With max_entries=0 nothing is kept, and no caller waits.
        self._is_used = self._parameters.max_entries == 0

    def _open(self) -> None:
        with _opening:
            if self._is_used:
                return
            given = self._parameters
            try:
                index = open_index(self._name_of_all)
            except (NotSharedError, OSError) as refusal:
                error: Exception | None = refusal
            else:
                error = None
                values = SharedValues(
                    index, self._core, self._account, self._source, given, self.reads
                )
                own = as_own if given.copy else as_answered
                self._answers = Answers(values, own, given.timeout, self._count_computed)
                self._values = values
            self._is_used = True
        if error is not None:
            self._be_private(error)

    def _count_computed(self, took_ns: int) -> None:
        lib.vrange_account_regenerated(self._account.pointer, took_ns)

    def _be_private(self, error: Exception) -> None:
        """Go on as a cache of this process alone."""
        if self._values is not None:
            self._leave()
            super().clear()
        warn(
            f"cache {self.name!r} is not shared, and each process has its own: {error}",
            RuntimeWarning,
        )

    def _leave(self) -> None:
        values, self._values = self._values, None
        if values is not None:
            close_index(values.index)
            values.forget()

    def _shared(self) -> SharedValues | None:
        """Return the values that are shared; None if this process has a cache of its own."""
        if self._core.closed:
            self._core.get(None, None)  # raises
        if not self._is_used:
            self._open()
        values = self._values
        if values is None or values.index.is_joined:
            return values
        try:  # this is the child of a fork
            values.index.renew()
        except (NotSharedError, OSError) as error:
            self._be_private(error)
        return self._values

    def _joined(self) -> SharedValues:
        values = self._shared()
        if values is None:
            raise _AloneError
        return values

    # ---- lookups -------------------------------------------------------------------------------

    def __getitem__(self, key: K) -> V:
        found: Any = self.get(key, ABSENT)
        return self._missing(key) if found is ABSENT else found

    def get(self, key: K, default: Any = None) -> Any:
        """Return the value under `key`, or `default`."""
        value = self.reads.get(key, ABSENT)
        return self._get(key, default) if value is ABSENT else value

    @_or_alone("get")
    def _get(self, key: K, default: Any) -> Any:
        values = self._joined()
        value = values.look(values.know(key))
        if value is ABSENT:
            self._core.count_request(False)
            return default
        return value

    def get_or_compute(
        self, key: K, compute: Callable[[], V], *, tags: str | Iterable[str] = ()
    ) -> V:
        """Return the value under `key`, or call compute() and cache its result.

        One caller at a time computes a key, across the threads and tasks of all processes.
        """
        if tags:
            raise self._has_no_tags()
        value: Any = self.reads.get(key, ABSENT)
        if value is ABSENT:
            value = self._get_or_compute(key, compute)
        return value  # type: ignore[no-any-return]

    @_or_alone("get_or_compute")
    def _get_or_compute(self, key: K, compute: Callable[[], V]) -> Any:
        known = self._joined().know(key)
        return self._answers.answer(known, compute)

    async def get_or_compute_async(
        self, key: K, compute: Callable[[], Awaitable[V]], *, tags: str | Iterable[str] = ()
    ) -> V:
        """Return the value under `key`, or await compute() and cache its result.

        One caller at a time computes a key, across the threads and tasks of all processes. Under
        another event loop than asyncio's, tasks do not wait: each computes.
        """
        if tags:
            raise self._has_no_tags()
        values = self._shared()
        if values is not None:
            try:
                answer: V = await self._answers.answer_async(values.know(key), compute)
                return answer
            except NotSharedError as error:
                self._be_private(error)
        return await super().get_or_compute_async(key, compute)

    # ---- as a mapping --------------------------------------------------------------------------

    @_or_alone("set")
    def set(
        self,
        key: K,
        value: V,
        *,
        ttl: float | timedelta | None = None,
        tags: str | Iterable[str] = (),
    ) -> None:
        """Store `value` under `key` for all processes, with a ttl of its own."""
        if tags:
            raise self._has_no_tags()
        ttl_ns = nanoseconds_of_ttl(ttl)
        expires_ns = time.monotonic_ns() + ttl_ns if ttl_ns else 0
        values = self._joined()
        values.store(values.know(key), value, None, expires_ns=expires_ns)

    def __setitem__(self, key: K, value: V) -> None:
        self.set(key, value)

    @_or_alone("__delitem__")
    def __delitem__(self, key: K) -> None:
        values = self._joined()
        if not values.remove(values.know(key)):
            raise KeyError(key)

    @_or_alone("pop")
    def pop(self, key: K, *default: Any) -> Any:
        """Remove and return the value under `key`. One caller of all processes gets it."""
        values = self._joined()
        value = values.take(values.know(key))
        if value is not ABSENT:
            return value
        if not default:
            raise KeyError(key)
        return default[0]

    def clear(self) -> None:
        """Remove all entries, of all processes. Reset this process's figures."""
        values = self._shared()
        if values is not None:
            values.clear()
        super().clear()

    @_or_alone("__contains__")
    def __contains__(self, key: Any) -> bool:
        """Return whether the value seems to be there. It may be gone by the next lookup."""
        values = self._joined()
        return values.has(values.know(key))

    @_or_alone("__len__")
    def __len__(self) -> int:
        """Return the number of entries, including values whose loss was not noticed yet."""
        values = self._joined()
        return sum(1 for _ in keys_but_tags(values)) if self._tokens else values.count()

    @_or_alone("__iter__")
    def __iter__(self) -> Iterator[K]:
        return iter(list(keys_but_tags(self._joined())))

    def discard(self, *keys: K) -> int:
        """Make the kernel take values of this process now, for tests. Small values stay."""
        values = self._shared()
        if values is None or not keys:
            return super().discard(*keys)
        stamps: Any = values.stamps_of(keys)
        return super().discard(*stamps) if stamps else 0

    # ---- for tags and a lower tier -------------------------------------------------------------

    def _tokens_of_all(self) -> SharedTokens:
        self._tokens = SharedTokens(self._shared)
        return self._tokens

    def _peek_here(self, key: Any, default: Any) -> Any:
        values = self._shared()
        if values is None:
            return super()._peek_here(key, default)
        value = peek(values, values.know(key), copies=self._parameters.copy)
        return default if value is ABSENT else value

    def _leads(self, key: Any) -> bool:
        return self._shared() is not None or super()._leads(key)

    def _changes_of(self, key: Any) -> Any:
        values = self._shared()
        return None if values is None else values.changes_of(values.know(key))

    def _store_from_below(
        self, key: Any, stored: Any, seconds: float | None, since: Any, leads: bool
    ) -> None:
        values = self._shared()
        if values is None or since is None:
            super()._store_from_below(key, stored, seconds, since, leads)
            return
        expires_ns = 0 if seconds is None else self._expiry(nanoseconds_of_ttl(seconds))
        values.store(values.know(key), stored, since, expires_ns=expires_ns)
        if leads:
            leave_uncached()  # it is stored, with its own expiry

    def _lead_again(self, key: Any) -> Flight | None:
        """Lead a computation of a value that is still there. None: another caller does."""
        values = self._shared()
        if values is None:
            return None
        flight = Flight.begin(values.index, values.know(key).digest)
        return flight if flight is not None and flight.leads else None

    def _renew(self, key: Any, stored: Any, since: Any, cost_ns: int) -> None:
        """Store a value in place of a stale one, unless the key was removed or set since."""
        values = self._shared()
        if values is not None and since is not None:
            values.store(values.know(key), stored, since, cost_ns=cost_ns)

    def close(self) -> None:
        """Leave the shared cache. Small values stay for the other processes."""
        self._leave()
        super().close()


def _name_of_all(shared: object, name: str | None) -> str:
    """Return the name by which the processes find one cache."""
    if shared is True and name is not None:
        return name
    if not isinstance(shared, str) or not shared:
        raise TypeError(
            "shared must be the name by which the processes of a service find the cache, or True "
            f"together with name=, not {shared!r}"
        )
    return shared
