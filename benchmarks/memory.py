"""The kernel's figures for this process's memory: proof that a benchmark measured its claim."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator

PAGE_BYTES = mmap.PAGESIZE
MADV_DONTNEED, MADV_FREE, MADV_PAGEOUT, MADV_POPULATE_WRITE = 4, 8, 21, 23

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]

# The calls themselves, unchecked, for what is timed.
madvise, munmap, getppid = _libc.madvise, _libc.munmap, _libc.getppid


def _checked(result: int) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def map_private(bytes_: int) -> int:
    """Map anonymous private memory, as malloc does for large blocks. Return its address."""
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    address = _libc.mmap(None, bytes_, protection, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    if address in (None, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), "mmap")
    return int(address)


def unmap(address: int, bytes_: int) -> None:
    _checked(munmap(address, bytes_))


def advise(address: int, bytes_: int, advice: int) -> None:
    _checked(madvise(address, bytes_, advice))


def resident_share(address: int, bytes_: int) -> float:
    """Return the fraction of the pages that are resident, by mincore."""
    pages = -(-bytes_ // PAGE_BYTES)
    seen = ctypes.create_string_buffer(pages)
    _checked(_libc.mincore(address, pages * PAGE_BYTES, seen))
    return sum(flag & 1 for flag in seen.raw) / pages


def lazyfree_bytes() -> int:
    """Return the bytes of this process that the kernel may reclaim at any moment."""
    return _rollup("LazyFree")


def anonymous_bytes() -> int:
    """Return the resident bytes of this process's own memory.

    Files, and what is only reserved, do not count.
    """
    return _rollup("Anonymous")


def _rollup(field: str) -> int:
    for name, words in _fields():
        if name == field:
            return int(words[0]) << 10
    raise KeyError(field)


def _fields() -> Iterator[tuple[str, list[str]]]:
    with open("/proc/self/smaps_rollup") as file:
        for line in file:
            name, _, rest = line.partition(":")
            yield name, rest.split()
