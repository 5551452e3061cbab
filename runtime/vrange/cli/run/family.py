"""A program and the processes that it starts, seen from outside."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

__all__ = ["Family"]

_INTERPRETERS = ("python", "pypy")


class Family:
    """Process `pid` and its descendants, as of the last `look()`.

    Attributes
    ----------
    pids : list of int
        The processes, the program's first.
    interpreters : set of int
        The processes that were seen to run a Python of their own, ended ones too: started by the
        program, not forked from it.

    """

    def __init__(self, pid: int) -> None:
        self.pids = [pid]
        self.interpreters: set[int] = set()
        self._settled: dict[int, bytes] = {}

    def look(self) -> None:
        """Look the descendants up, if the kernel lists them (CONFIG_PROC_CHILDREN)."""
        found = self.pids[:1]
        for one in found:
            with suppress(OSError):
                for task in Path(f"/proc/{one}/task").iterdir():
                    with suppress(OSError):
                        found += map(int, (task / "children").read_text().split())
        self.pids = found
        self._settled = {pid: self._settled[pid] for pid in found if pid in self._settled}
        program = _command(found[0])
        for one in found[1:]:
            self._look_at(one, program)

    def _look_at(self, pid: int, program: bytes) -> None:
        # Until a child calls exec, it has its parent's executable and command line.
        command = _command(pid)
        if command in (b"", program) or self._settled.get(pid) == command:
            return
        self._settled[pid] = command
        with suppress(OSError):
            name = os.path.basename(os.readlink(f"/proc/{pid}/exe"))
            if name.startswith(_INTERPRETERS):
                self.interpreters.add(pid)


def _command(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except OSError:
        return b""
