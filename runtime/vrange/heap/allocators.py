"""What stands behind malloc in this process (native/allocators.c has what is known of each)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from vrange._core import ffi, lib

# mimalloc's heaps belong to threads, and only the thread itself may clean its own.
OF_THE_CALLING_THREAD = frozenset({"mimalloc"})


@cache
def numbers() -> dict[str, int]:
    """The native number of each allocator that is linked or preloaded."""
    names = {which: lib.vrange_allocator_name(which) for which in range(lib.VRANGE_ALLOCATORS)}
    return {ffi.string(name).decode(): which for which, name in names.items() if name != ffi.NULL}


def loaded() -> dict[str, Callable[[], int]]:
    """Each with the call that gives back what it doesn't use, and tells what RSS went down by."""
    return {
        name: lambda which=which: int(lib.vrange_allocator_release(which))  # type: ignore[misc]
        for name, which in numbers().items()
    }
