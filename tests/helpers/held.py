"""What a process holds: whether there is something now that was not there before."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import time
from collections import Counter
from pathlib import Path

import vrange

_libc = ctypes.CDLL(None)
# The core opens these when it first reads them, and keeps them (native/core/os/proc_files.c).
_KEPT = {
    "/proc/meminfo",
    *(f"/proc/{os.getpid()}/{name}" for name in ("statm", "pagemap", "cgroup")),
}


def descriptors() -> dict[int, str]:
    """What is open, and what each number leads to."""
    found = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            found[int(number)] = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:  # that of the listing itself, and of a thread that just closed it
            continue
    return found


def descriptors_of(path: str | Path) -> list[int]:
    """Those that lead to this file."""
    return [number for number, target in descriptors().items() if target == str(path)]


def address_space_bytes() -> int:
    """Reserved, whether there is memory behind it or not."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")


def sigbus_handler() -> int:
    """The address that the kernel calls."""
    action = (ctypes.c_ulong * 32)()
    assert _libc.sigaction(signal.SIGBUS, None, action) == 0
    return int(action[0])


class Held:
    """What is held now, so that `check` can tell later what came and did not go.

    What went meanwhile is no leak: something of a test before this one may be collected at any
    time. And what is gone a moment later is none either: the thread of the reserve opens files for
    as long as it reads them.
    """

    def __init__(self) -> None:
        # What is opened once and kept (userfaultfd, buffers, the thread) is no leak.
        ours = None
        if vrange.capabilities().rung == "refault":
            with vrange.VolatileArray(1, "u1", fill=vrange.fills.zero()):
                ours = sigbus_handler()
        gc.collect()
        handler = sigbus_handler()
        # An array of a test before has it still, and may take it along when it is collected.
        self._handler = None if handler == ours else handler
        self._descriptors = descriptors()
        self._accounts = self._names()

    @staticmethod
    def _names() -> Counter[str]:
        return Counter(account.name for account in vrange.stats().accounts)

    def more(self) -> list[str]:
        """What is held now and was not then, in words."""
        gc.collect()
        now = descriptors()
        once = {target for target, times in Counter(now.values()).items() if times == 1} & _KEPT
        found = [
            f"descriptor {number} of {target}"
            for number, target in now.items()
            if self._descriptors.get(number) != target and target not in once
        ]
        found += [f"account {name}" for name in (self._names() - self._accounts).elements()]
        if self._handler is not None and sigbus_handler() != self._handler:
            found.append("another handler of SIGBUS")
        return found

    def check(self, patience: float = 10) -> None:
        """Fails where something is still held, after so many seconds, that was not then."""
        deadline = time.monotonic() + patience
        while more := self.more():
            assert time.monotonic() < deadline, more
            time.sleep(0.01)
