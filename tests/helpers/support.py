"""What tests share: making the kernel take memory, looking where it is, and child processes."""

from __future__ import annotations

import ctypes
import dataclasses
import fcntl
import os
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import vrange
from vrange._cache.info import CacheInfo
from vrange._core import ffi, lib
from vrange._counters.stats import AccountStats

T = TypeVar("T")

RUNG = vrange.capabilities().rung
EAGER = RUNG == "eager"  # nothing is ever left to the kernel: what is volatile can't be lost by it
PAGE: int = lib.vrange_page_bytes()
MIB = 1 << 20

# CPython 3.12 and later warn of a fork while there are threads: in these children it is meant.
FORK_WITH_THREADS = {"PYTHONWARNINGS": "ignore::DeprecationWarning"}

MADV_DONTNEED, MADV_FREE, MADV_PAGEOUT = 4, 8, 21
TAKE_SECONDS = 5
_stubborn: list[tuple[int, int]] = []
_libc = ctypes.CDLL(None, use_errno=True)
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]


def giving(value: T) -> Callable[[], T]:
    """A function that returns it."""
    return lambda: value


def wait_until(true: Callable[..., object], why: str, seconds: float = 20) -> None:
    """Fails if it does not come true. The bound is for a broken build, not a measurement.

    `true` is called without arguments; a lambda in a loop binds variables by its defaults.
    """
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain: {why}"
        time.sleep(0.0005)


def address_of(handle: int) -> int:
    """Where a range lies."""
    return int(ffi.cast("uintptr_t", lib.vrange_address(handle)))


def address_of_buffer(view: object) -> int:
    """Where the memory of anything with a buffer lies, read-only ones too."""
    return int(ffi.cast("uintptr_t", ffi.from_buffer(view)))


def resident_pages(address: int, nbytes: int) -> list[bool]:
    """Which pages have memory behind them now, as mincore tells."""
    pages = -(-nbytes // PAGE)
    seen = (ctypes.c_ubyte * pages)()
    assert _libc.mincore(address, nbytes, seen) == 0, os.strerror(ctypes.get_errno())
    return [bool(page & 1) for page in seen]


def handle_of(cache: vrange.VolatileCache[Any, Any], key: object) -> int:
    """The range that a key's value lies in; 0: there is none."""
    return max(cache._core.handles((key,)), default=0)


def wait_offered(handle: int) -> None:
    """Until the reserve has told the kernel of a volatile range. Never on the eager rung."""
    assert not EAGER
    wait_until(lambda: lib.vrange_state(handle) == lib.VRANGE_STATE_OFFERED, "it is not offered")


def page_out(address: int, nbytes: int) -> int:
    """Asks the kernel once to take these pages, whoever they belong to; how many are left."""
    assert _libc.madvise(address, nbytes, MADV_PAGEOUT) == 0, os.strerror(ctypes.get_errno())
    return sum(resident_pages(address, nbytes))


def take(address: int, nbytes: int) -> None:
    """Makes the kernel take offered pages, as it does when memory runs short. Nobody may use them.

    Pages that another processor still has in a batch, on their way to its lists, are passed over,
    and are active again. The call empties the batches of the processor that it runs on: so it is
    made on each, and the kernel is told anew that it may have the pages.
    """
    if page_out(address, nbytes) == 0:
        return
    processors = os.sched_getaffinity(0)

    def take_from_everywhere() -> bool:
        for processor in processors:
            os.sched_setaffinity(0, {processor})
            page_out(address, nbytes)
        assert _libc.madvise(address, nbytes, MADV_FREE) == 0, os.strerror(ctypes.get_errno())
        return page_out(address, nbytes) == 0 or time.monotonic() > deadline

    deadline = time.monotonic() + TAKE_SECONDS
    try:
        wait_until(take_from_everywhere, "the kernel does not take these pages")
    finally:
        os.sched_setaffinity(0, processors)
    if sum(resident_pages(address, nbytes)):
        # Seen once in many thousands of calls, and not explained: one page that stays. What vrange
        # meets afterwards is the same. More than a few of these and reclaim itself is broken.
        _stubborn.append((address, nbytes))
        assert len(_stubborn) <= 3, "the kernel takes nothing that it was offered"
        assert _libc.madvise(address, nbytes, MADV_DONTNEED) == 0, os.strerror(ctypes.get_errno())


def lose(handle: int, offset: int = 0, nbytes: int | None = None) -> bool:
    """Makes the kernel take (part of) a volatile range with nobody telling vrange.

    False on the eager rung, where it was asked to and could not, as nothing was offered to it.
    """
    info = ffi.new("vrange_range_info *")
    if not EAGER:
        wait_offered(handle)
    assert lib.vrange_range_read(handle, info) == lib.VRANGE_OK
    address, wanted = address_of(handle) + offset, info.bytes - offset if nbytes is None else nbytes
    if EAGER:
        before = sum(resident_pages(address, wanted))
        assert page_out(address, wanted) == before
        return False
    take(address, wanted)
    return True


def python(
    code: str,
    *arguments: object,
    rung: str | None = None,
    environment: dict[str, str] | None = None,
    prepare: Callable[[], object] | None = None,
    timeout: float = 60,
) -> subprocess.CompletedProcess[str]:
    """Runs code in an interpreter of its own, on this rung unless another one is named."""
    variables = {**os.environ, "VRANGE_RUNG": rung or RUNG, **(environment or {})}
    variables["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")])
    )
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(code), *map(str, arguments)],
        env={name: value for name, value in variables.items() if value},
        capture_output=True,
        text=True,
        timeout=timeout,
        preexec_fn=prepare,
        check=False,
    )


def succeeds(*arguments: Any, **options: Any) -> str:
    """As `python`; what it printed. Fails unless the child ended well and was silent on stderr."""
    done = python(*arguments, **options)
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert not done.stderr, done.stderr
    return done.stdout


@contextmanager
def strict_overcommit() -> Iterator[None]:
    """The machine under vm.overcommit_memory=2, with room for some GiB more than is committed now:
    whatever else runs on it goes on. Another suite that wants the same waits for its turn.
    """
    with (Path(tempfile.gettempdir()) / "vrange-strict-overcommit").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        with _strict_overcommit():
            yield


@contextmanager
def _strict_overcommit() -> Iterator[None]:
    settings = Path("/proc/sys/vm")
    before = {
        name: (settings / name).read_text()
        for name in ("overcommit_memory", "overcommit_ratio", "overcommit_kbytes")
    }
    committed = next(
        int(line.split()[1])
        for line in Path("/proc/meminfo").read_text().splitlines()
        if line.startswith("Committed_AS:")
    )
    # Setting one of these unsets the other.
    in_use = "overcommit_kbytes" if int(before["overcommit_kbytes"]) else "overcommit_ratio"
    # A shell restores them when this process closes the pipe, also by being killed: otherwise a
    # machine that refuses memory would stay behind.
    restore = f"read _; echo $0 >overcommit_memory; echo $1 >{in_use}"
    with subprocess.Popen(
        ["sh", "-c", restore, before["overcommit_memory"].strip(), before[in_use].strip()],
        cwd=settings,
        stdin=subprocess.PIPE,
    ):
        (settings / "overcommit_kbytes").write_text(str(committed + (8 << 20)))
        (settings / "overcommit_memory").write_text("2")
        yield


def smaps_bytes(address: int, field: str = "Rss") -> int:
    """A field of the mapping that `address` lies in; 0 where nothing is mapped."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split(maxsplit=1)[0]
        if "-" in first and not first.endswith(":"):
            begin, end = (int(part, 16) for part in first.split("-"))
            inside = begin <= address < end
        elif inside and first == field + ":":
            return int(line.split()[1]) * 1024
    return 0


def is_mapped(address: int) -> bool:
    """Whether the address belongs to any mapping."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        begin, end = (int(part, 16) for part in line.split(maxsplit=1)[0].split("-"))
        if begin <= address < end:
            return True
    return False


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def volatile_bytes(counters: AccountStats) -> int:
    """What nobody holds, lost or not."""
    return int(counters.idle_bytes + counters.offered_bytes + counters.purged_bytes)


def whenever(info: CacheInfo) -> CacheInfo:
    """The same whether the reserve has offered meanwhile or not."""
    idle = info.idle_bytes + info.offered_bytes
    return dataclasses.replace(info, idle_bytes=idle, offered_bytes=0)
