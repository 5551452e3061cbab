"""The kernel's own lines about a kill in one cgroup."""

from __future__ import annotations

import os

_RECORD_BYTES = 8192
_STATISTICS = ("inactive_file", "active_file", "anon", "file", "shmem", "kernel")


class KernelLog:
    """Reads what is written after this was made. Without permission it reads nothing."""

    def __init__(self) -> None:
        self._file = -1
        try:
            self._file = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
            os.lseek(self._file, 0, os.SEEK_END)
        except OSError:
            self.close()

    @property
    def is_readable(self) -> bool:
        return self._file >= 0

    def _lines(self) -> list[str]:
        lines: list[str] = []
        while self._file >= 0:
            try:
                record = os.read(self._file, _RECORD_BYTES)
            except BlockingIOError:
                break
            except BrokenPipeError:
                continue  # older records were overwritten
            lines.append(record.decode(errors="replace").partition(";")[2].split("\n")[0])
        return lines

    def about(self, cgroup: str) -> list[str]:
        """Return the lines about kills in the cgroup whose directory ends like this.

        The figures come before the line that names the cgroup. Lines about others are left out.
        """
        found: list[str] = []
        block: list[str] = []
        follows = False
        for line in self._lines():
            if "invoked oom-killer" in line:
                block, follows = [line], False
            elif line.startswith("oom-kill:"):
                follows = f"{cgroup}," in line
                if follows:
                    found += [*block, line]
                block = []
            elif "Killed process" in line:
                if follows:
                    found.append(line)
            elif line.startswith("memory: usage") or line.split(" ")[0] in _STATISTICS:
                block.append(line)
        return [line[:300] for line in found]

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = -1
