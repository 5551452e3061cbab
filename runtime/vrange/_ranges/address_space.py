"""What is left of the address space, in words for error messages."""

from __future__ import annotations

from vrange._cgroup.tree import NO_LIMIT
from vrange._core import ffi, lib
from vrange.sizes import format_bytes


def address_space_left() -> str:
    """Return how much address space this process can still map, and what limits it."""
    now = ffi.new("vrange_address_space *")
    lib.vrange_address_space_read(now)
    if now.limit_bytes == NO_LIMIT:
        return (
            f"{format_bytes(now.left_bytes)} of the processor's address space are left, perhaps in "
            "pieces; vm.overcommit_memory and vm.max_map_count may limit it further"
        )
    return (
        f"RLIMIT_AS (ulimit -v) is {format_bytes(now.limit_bytes)}, of which "
        f"{format_bytes(now.left_bytes)} are left"
    )
