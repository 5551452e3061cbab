"""What the kernel may take of a process at any moment, as the kernel counts it."""

from __future__ import annotations

__all__ = ["lazyfree_bytes"]


def lazyfree_bytes(pid: int) -> int | None:
    """What the kernel may take of a process at any moment; None where it doesn't say."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            for line in file:
                if line.startswith("LazyFree:"):
                    return int(line.split()[1]) << 10
    except (OSError, ValueError):
        pass
    return None
