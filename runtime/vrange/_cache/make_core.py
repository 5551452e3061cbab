"""The native core of a cache is made here, with what it calls of Python: codec, waits, warnings."""

from __future__ import annotations

import os
import sys
from functools import partial

from vrange._cache.address_space import CacheArena
from vrange._cache.bounds import follow_limit
from vrange._cache.codec import Codec
from vrange._cache.collector import copy_within_room
from vrange._cache.native_flights import answer_after, led_here
from vrange._cache.not_kept import Source
from vrange._cache.parameters import CacheParameters, nanoseconds_of_ttl
from vrange._cache.refresh import Refresher
from vrange._cache.signal_errors import is_of_signal
from vrange._cache.unstored import as_answered, as_own
from vrange._core import hit
from vrange._counters.account import Account


def make_core(
    account: Account,
    arena: CacheArena,
    source: Source,
    given: CacheParameters,
    codec_kind: type[Codec],
) -> hit.CacheCore:
    """Return the core of a cache that counts in `account` and stores in `arena`."""
    follow_limit()
    codec = codec_kind(source, copies=given.copy)
    return hit.CacheCore(
        owner=account,
        account=account.address,
        name=account.name,
        open_arena=arena.open,
        encode=codec.encode,
        weigh=codec.weigh,
        as_answered=partial(as_own, copy=copy_within_room) if given.copy else as_answered,
        wait=partial(answer_after, given.timeout),
        give_up=source.give_up,
        led=led_here,
        ttl_ns=nanoseconds_of_ttl(given.ttl),
        max_bytes=sys.maxsize if given.max_bytes is None else given.max_bytes,
        hot_bytes=_hot_bytes(given),
        max_entries=given.max_entries,
        copies=given.copy,
        on_evict=given.on_evict,
        stale_ns=nanoseconds_of_ttl(given.stale),
        refresh=None if given.stale is None else Refresher().begin,
    )


def _hot_bytes(given: CacheParameters) -> int | None:
    """Return the bytes that may be held strongly. None: as for all automatic caches."""
    most = None if given.hot_bytes == "auto" else given.hot_bytes
    if given.max_bytes is None:
        return most
    # Values that are held strongly can't be evicted to stay below max_bytes.
    half = given.max_bytes // 2
    return half if most is None else min(most, half)


hit.set_signal_check(is_of_signal)
os.register_at_fork(after_in_child=hit.forget_events)
