"""The cgroup's figures, read from inside without vrange, and what they make possible."""

from __future__ import annotations

from pathlib import Path

NAMES = {
    "cgroup v1": ("memory.usage_in_bytes", "memory.limit_in_bytes", "total_"),
    "cgroup v2": ("memory.current", "memory.max", ""),
}
# What a burst costs beside its bytes: page tables, and the pages that the kernel charges ahead for
# each processor (64 at a time).
KERNEL_BYTES = 1 << 20
KERNEL_SHARE = 256


class Figures:
    """Usage and limit of the cgroup at `directory`."""

    def __init__(self, directory: str, version: str) -> None:
        usage, limit, self._prefix = NAMES[version]
        self.usage_path = str(Path(directory, usage))
        self._limit, self._stat = Path(directory, limit), Path(directory, "memory.stat")

    def usage(self) -> int:
        return int(Path(self.usage_path).read_text())

    def limit(self) -> int:
        return int(self._limit.read_text())

    def takeable(self, offered: int) -> int:
        """Return the bytes that the kernel can take: clean file pages, and offered pages.

        Offered pages are on its lists of file pages, until they are taken. Those that were pinned
        again stay there for a while, and can't be taken.
        """
        counts = dict(line.split() for line in self._stat.read_text().splitlines())

        def total(*names: str) -> int:
            return sum(int(counts.get(self._prefix + name, 0)) for name in names)

        files = total("cache", "file") - total("shmem")
        unwritten = total("dirty", "writeback", "file_dirty", "file_writeback")
        listed = total("inactive_file", "active_file") - files
        return max(0, files - unwritten) + max(0, min(offered, listed))


def shared_bytes() -> int:
    """Return the bytes of this process's memory that it shares with a forked one."""
    with open("/proc/self/smaps_rollup") as file:
        fields = {name: rest.split()[0] for name, _, rest in (each.partition(":") for each in file)}
    return int(fields.get("Shared_Dirty", 0)) << 10


def possible(limit: int, usage: int, idle: int, takeable: int) -> int:
    """Return the largest burst that fits: limit - pinned - process.

    What is neither idle nor the kernel's to take is pinned or the process's own.
    """
    left = limit - (usage - idle - takeable) - KERNEL_BYTES
    return max(0, left - left // KERNEL_SHARE)
