"""What `vrange run` tells the mimalloc that CPython has for its objects (3.13 and later).

CPython has no call that returns this allocator's free pages, but the allocator reads its options
from the environment, as mimalloc 2 does everywhere (its documentation, "Environment Options"). By
default it gives pages back 10 ms after they became free, if the thread allocates then, and by
MADV_DONTNEED. With these options it does so after 1 ms and by MADV_FREE: the kernel takes the pages
when it needs them, and the next use before that costs no page fault. With 0 ms the advice costs as
much time again as a program that makes and deletes objects takes. Whole segments of 32 MiB wait ten
times as long by default, and for the next segment that is made or given up: often for ever.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["mimalloc_options"]

_PURGE_DELAY = "MIMALLOC_PURGE_DELAY"  # milliseconds
_SEGMENT_DELAYS = "MIMALLOC_ARENA_PURGE_MULT"  # how many of those delays a whole segment waits
_PURGE_DECOMMITS = "MIMALLOC_PURGE_DECOMMITS"  # 1: MADV_DONTNEED, 0: MADV_FREE


def mimalloc_options(before: Mapping[str, str], *, returns: bool) -> dict[str, str]:
    """Return the variables to set: none if another allocator serves, or the user has set one.

    Parameters
    ----------
    before : Mapping[str, str]
        The environment.
    returns : bool
        Whether freed pages are to be returned, and not only offered.

    """
    is_used = before.get("PYTHONMALLOC", "").startswith("mimalloc")
    options = {_PURGE_DELAY: "1", _SEGMENT_DELAYS: "1", _PURGE_DECOMMITS: str(int(returns))}
    return options if is_used and not options.keys() & before.keys() else {}
