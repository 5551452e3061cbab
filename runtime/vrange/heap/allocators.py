"""The allocators that serve malloc in this process (allocators.c knows each one)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from vrange._core import ffi, lib


@cache
def numbers() -> dict[str, int]:
    """Return the native number of each allocator that is linked or preloaded, by name."""
    names = {which: lib.vrange_allocator_name(which) for which in range(lib.VRANGE_ALLOCATORS)}
    return {ffi.string(name).decode(): which for which, name in names.items() if name != ffi.NULL}


def of_the_calling_thread() -> frozenset[str]:
    """Return the names of those that return only what the calling thread holds."""
    return frozenset(
        name for name, which in numbers().items() if lib.vrange_allocator_is_of_thread(which)
    )


def loaded() -> dict[str, Callable[[], int]]:
    """Return, by name, the call that trims each allocator and returns how far RSS went down."""
    return {
        name: lambda which=which: int(lib.vrange_allocator_release(which))  # type: ignore[misc]
        for name, which in numbers().items()
    }
