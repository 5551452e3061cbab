"""Makes room when the program limits its own address space while caches hold values.

Under a limit that was there before, caches never reserve more than their share. Values that were
stored before count in full.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from vrange._core import deep, ffi, lib

if TYPE_CHECKING:
    from vrange._cache.cache import VolatileCache

_PROGRAMS_SHARE = 2  # of the limit: as much is the program's, whatever caches did before
_BURIED_AT_ONCE = 4096
_caches: WeakValueDictionary[int, VolatileCache[Any, Any]] = WeakValueDictionary()


def fit_limits(cache: VolatileCache[Any, Any]) -> None:
    """Empty this cache, if need be, when the program sets RLIMIT_AS or RLIMIT_DATA."""
    _follow()
    _caches[id(cache)] = cache


@functools.cache
def _follow() -> None:
    deep.after_limits(_fit)


def _fit() -> None:
    for cache in sorted(_caches.values(), key=_reserved_bytes, reverse=True):
        if _fits():
            return
        core = cache._core
        core.clear()
        while core.bury(_BURIED_AT_ONCE):
            pass
        lib.vrange_address_space_return()


def _reserved_bytes(cache: VolatileCache[Any, Any]) -> int:
    return cache._account.read().reserved_bytes


def _fits() -> bool:
    now = ffi.new("vrange_address_space *")
    lib.vrange_address_space_read(now)
    has_its_share: bool = now.left_bytes >= now.limit_bytes // _PROGRAMS_SHARE
    return has_its_share or now.own_bytes <= now.budget_bytes
