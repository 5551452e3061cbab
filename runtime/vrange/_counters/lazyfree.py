"""The bytes of a process that the kernel may reclaim at any moment, as the kernel counts them."""

from __future__ import annotations

import re
from typing import Literal

__all__ = ["lazyfree_bytes"]

_LAZYFREE = re.compile(rb"^LazyFree:\s+(\d+) kB$", re.MULTILINE)


def lazyfree_bytes(pid: int | Literal["self"]) -> int | None:
    """Return the bytes of a process that the kernel may reclaim, or None if it reports none."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb", buffering=0) as file:
            found = _LAZYFREE.search(file.read())
    except OSError:
        return None
    return int(found[1]) << 10 if found else None
