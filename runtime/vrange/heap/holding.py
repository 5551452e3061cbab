"""What a process's memory is held by, and how much of it a trim would return."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from vrange._core import lib
from vrange._counters.lazyfree import lazyfree_bytes
from vrange._counters.stats import stats
from vrange._stacks.trim import stack_info
from vrange.heap import allocators, glibc, interpreter, pools, trim_lock
from vrange.heap.trim import Deep

__all__ = ["holding"]

_CACHED = ("arena", "cache", "array")


def holding(deep: Deep) -> dict[str, Any]:
    """Return, in bytes, what this process's memory is held by. Nothing is changed.

    Parameters
    ----------
    deep : bool or "holes"
        As for `vrange.heap.trim`.

    Returns
    -------
    dict
        "rss"; "unused", by source what `vrange.heap.trim(deep, collect=False)` would return;
        "unknown", by source why that can't be told; "cached", what is volatile in caches and
        arrays, which a trim leaves; "offered", what of all this the kernel may take now; and
        "live", the rest.

    """
    with trim_lock.lock:
        unused: dict[str, int] = {}
        unknown: dict[str, str] = {}
        for name, count in _sources(deep).items():
            found = count()
            if isinstance(found, str):
                unknown[name] = found
            else:
                unused[name] = found
        rss = int(lib.vrange_resident_bytes())
    cached = sum(
        one.idle_bytes + one.offered_bytes for one in stats().accounts if one.kind in _CACHED
    )
    return {
        "rss": rss,
        "unused": unused,
        "unknown": unknown,
        "cached": cached,
        "offered": lazyfree_bytes("self") or 0,
        "live": max(0, rss - sum(unused.values()) - cached),
    }


_Count = Callable[[], int | str]


def _sources(deep: Deep) -> dict[str, _Count]:
    sources: dict[str, _Count] = {"stacks": _stacks, "arrays": _arrays}
    sources |= {name: lambda: "it does not tell" for name in pools.KNOWN if name in sys.modules}
    if deep:
        sources["pymalloc"] = lambda: interpreter.unused(holes=deep == "holes")
    for name, number in allocators.numbers().items():
        sources[name] = lambda name=name, number=number: _allocator(name, number)  # type: ignore[misc]
    return sources


def _stacks() -> int:
    """Return the memory of pooled stacks; blocked threads find out only as they trim themselves."""
    return sum(stack.resident_bytes for stack in stack_info().stacks if stack.thread_id is None)


def _arrays() -> int:
    return int(lib.vrange_heap_unused())


def _allocator(name: str, number: int) -> int | str:
    if name == "glibc":
        found = glibc.unused_bytes()
        return "it has no report" if found is None else found
    told = int(lib.vrange_allocator_unused(number))
    return "it does not tell" if told < 0 else told
