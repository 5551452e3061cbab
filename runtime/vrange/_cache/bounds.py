"""The bounds that all caches of the process share: they follow the memory limit."""

from __future__ import annotations

from functools import cache

from vrange._cgroup.limits import memory_limit
from vrange._core import hit
from vrange._ranges.set_limit import on_change

_AUTO_SHARE = 10  # of the memory limit: hot values, and keys and entries, of all caches together
_GIVEN_SHARE = 4  # of the memory limit: keys and entries of one cache with max_entries


@cache
def follow_limit() -> None:
    """Set the bounds, now and whenever the program sets a limit."""
    on_change(_set)
    _set()


def _set() -> None:
    limit = memory_limit().limit_bytes
    share = limit // _AUTO_SHARE
    hit.set_hot_bytes(share)
    hit.set_index_bytes(share, limit // _GIVEN_SHARE)
