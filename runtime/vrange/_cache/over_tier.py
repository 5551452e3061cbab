"""What a lower tier (vrange.tiers) asks of a cache on Linux, besides what a mapping does."""

from __future__ import annotations

import time
from collections.abc import Hashable
from typing import Any, Generic, TypeVar

from vrange._cache.collector import room_for
from vrange._cache.common import CommonCache
from vrange._cache.function import NamedArguments
from vrange._cache.parameters import nanoseconds_of_ttl
from vrange._core import hit

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class OverTier(CommonCache[K, V], Generic[K, V]):
    """The methods that a lower tier needs."""

    _core: hit.CacheCore

    def _expiry(self, ttl_ns: int) -> int:
        stale_ns = nanoseconds_of_ttl(self._parameters.stale)
        return time.monotonic_ns() + ttl_ns + stale_ns if ttl_ns else 0

    def _peek_here(self, key: Any, default: Any) -> Any:
        return self._core.peek(key, default)

    def _as_known(self, key: Any) -> Any:
        # The native mark between positional and named arguments has no name in other processes.
        mark = hit.KEYWORD_MARK
        if type(key) is not tuple or not any(part is mark for part in key):
            return key
        return tuple(NamedArguments if part is mark else part for part in key)

    def _leads(self, key: Any) -> bool:
        return self._core.flight(key) is not None

    def _changes_of(self, key: Any) -> Any:
        return None

    def _store_from_below(
        self, key: Any, stored: Any, seconds: float | None, since: Any, leads: bool
    ) -> None:
        expires_ns = 0 if seconds is None else self._expiry(nanoseconds_of_ttl(seconds))
        self._core.store(key, stored, expires_ns, 0)

    def _room_for(self, nbytes: int) -> object:
        return room_for(nbytes)
