"""The allocators that serve malloc in this process (allocators.c knows each one)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from vrange._core import ffi, lib

# A mimalloc heap belongs to one thread, and only that thread may clean it.
OF_THE_CALLING_THREAD = frozenset({"mimalloc"})


@cache
def numbers() -> dict[str, int]:
    """Return the native number of each allocator that is linked or preloaded, by name."""
    names = {which: lib.vrange_allocator_name(which) for which in range(lib.VRANGE_ALLOCATORS)}
    return {ffi.string(name).decode(): which for which, name in names.items() if name != ffi.NULL}


def loaded() -> dict[str, Callable[[], int]]:
    """Return, by name, the call that trims each allocator and returns how far RSS went down."""
    return {
        name: lambda which=which: int(lib.vrange_allocator_release(which))  # type: ignore[misc]
        for name, which in numbers().items()
    }
