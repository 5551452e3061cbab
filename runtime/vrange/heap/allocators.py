"""What stands behind malloc in this process, and how each gives back what it holds unused.

Found by the functions they export, so whatever was linked or preloaded is found, and what a library
keeps to itself under other names is not (pools.py has those that offer a call in Python).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

# jemalloc's number for all arenas (MALLCTL_ARENAS_ALL, jemalloc(3)).
_EVERY_ARENA = 4096


def _glibc(process: ctypes.CDLL) -> Callable[[], object]:
    malloc_trim = process.malloc_trim
    malloc_trim.argtypes = [ctypes.c_size_t]
    return lambda: malloc_trim(0)


def _jemalloc(process: ctypes.CDLL) -> Callable[[], object]:
    mallctl = process.mallctl
    mallctl.argtypes = [ctypes.c_char_p, *[ctypes.c_void_p] * 3, ctypes.c_size_t]

    def release() -> None:
        mallctl(b"thread.tcache.flush", None, None, None, 0)
        mallctl(b"arena.%d.purge" % _EVERY_ARENA, None, None, None, 0)

    return release


def _mimalloc(process: ctypes.CDLL) -> Callable[[], object]:
    mi_collect = process.mi_collect
    mi_collect.argtypes = [ctypes.c_bool]
    mi_collect.restype = None
    return lambda: mi_collect(True)


def _tcmalloc(process: ctypes.CDLL) -> Callable[[], object]:
    release = process.MallocExtension_ReleaseFreeMemory
    release.argtypes = []
    release.restype = None
    return lambda: release()


# By the function that shows it is there. The next allocator goes here.
_KNOWN: dict[str, tuple[str, Callable[[ctypes.CDLL], Callable[[], object]]]] = {
    "jemalloc": ("mallctl", _jemalloc),
    "mimalloc": ("mi_collect", _mimalloc),
    "tcmalloc": ("MallocExtension_ReleaseFreeMemory", _tcmalloc),
    "glibc": ("malloc_trim", _glibc),
}

# mimalloc's heaps belong to threads, and only the thread itself may clean its own.
OF_THE_CALLING_THREAD = frozenset({"mimalloc"})


@cache
def loaded() -> dict[str, Callable[[], Any]]:
    """The allocators of this process, each with the call that gives back what it doesn't use."""
    process = ctypes.CDLL(None)  # all that is linked or preloaded, not what dlopen kept local
    return {
        name: prepare(process)
        for name, (function, prepare) in _KNOWN.items()
        if hasattr(process, function)
    }
