"""The shapes of bursts within one process: each takes memory and returns what holds it."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

MIB = 1 << 20
PIECES, THREADS = 30, 12
SMALL_OBJECT_BYTES = 96  # of bytes(56), and its place in a list
TMPFS = "/dev/shm"
DIRTY_BYTES = 32 * MIB  # a disk that is slow must not be what is measured

Serve = Callable[[], None]


def take(size: int, huge_pages: bool) -> Any:
    """Take memory in one piece and write to each page. NumPy asks for huge pages."""
    if huge_pages:
        return np.ones(size, np.uint8)
    piece = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    np.frombuffer(piece, np.uint8)[:: mmap.PAGESIZE] = 1
    return piece


def one_step(size: int, huge_pages: bool, serve: Serve) -> Any:
    return take(size, huge_pages)


def ramp(size: int, huge_pages: bool, serve: Serve) -> Any:
    held = []
    for _ in range(PIECES):
        held.append(take(size // PIECES, huge_pages))
        for _ in range(10):
            serve()
    return held


def threads(size: int, huge_pages: bool, serve: Serve) -> Any:
    held: list[Any] = []
    begin = threading.Barrier(THREADS)

    def work() -> None:
        begin.wait()
        for _ in range(max(1, size // THREADS // MIB)):
            held.append(take(min(MIB, size // THREADS), huge_pages))
            serve()

    started = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    return held


def small_objects(size: int, huge_pages: bool, serve: Serve) -> Any:
    chunk = 10_000
    count = size // (SMALL_OBJECT_BYTES + 8)
    return [[bytes(56) for _ in range(chunk)] for _ in range(count // chunk)]


class Unlinked:
    """A file that goes when this dies."""

    def __init__(self, directory: str) -> None:
        self._file = tempfile.TemporaryFile(dir=directory, buffering=0)  # noqa: SIM115 (lives on)

    def write(self, size: int) -> None:
        piece = b"x" * MIB
        for _ in range(size // MIB):
            self._file.write(piece)


def tmpfs(size: int, huge_pages: bool, serve: Serve) -> Any:
    file = Unlinked(TMPFS)
    file.write(size)
    return file


SHAPES: dict[str, Callable[[int, bool, Serve], Any]] = {
    "ramp": ramp,
    "12 threads": threads,
    "small objects": small_objects,
    "tmpfs": tmpfs,
}

# ---- what goes on beside a burst -------------------------------------------------------------


class OtherProcess:
    """A process in the same cgroup, without vrange, that takes memory when it is asked to."""

    CODE = """
import mmap, sys
for line in sys.stdin:
    size = int(line)
    held = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) if size else None
    for at in range(0, size, 1 << 20):
        held[at:at + (1 << 20)] = bytes(b"x") * min(1 << 20, size - at)
    print(size, flush=True)
"""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-E", "-c", self.CODE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def take(self, size: int) -> Any:
        """Have it hold `size` bytes until the result dies; raise if it was killed."""
        self._ask(size)
        return _Held(self)

    def _ask(self, size: int) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{size}\n")
        self._process.stdin.flush()
        if not self._process.stdout.readline():
            raise SystemExit("the other process was killed")

    def end(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


class _Held:
    def __init__(self, other: OtherProcess) -> None:
        self._other = other

    def __del__(self) -> None:
        self._other._ask(0)


@contextmanager
def _meanwhile(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Have a thread work until the event that it gets is set."""
    over = threading.Event()
    thread = threading.Thread(target=work, args=(over,))
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def files(path: str, writes: bool) -> AbstractContextManager[None]:
    """Have a thread read a file of the parent's again and again, or also write one."""

    def work(over: threading.Event) -> None:
        piece = bytearray(256 << 10)
        written = 0
        with open(path, "rb", buffering=0) as file, tempfile.TemporaryFile(buffering=0) as other:
            while not over.is_set():
                if not file.readinto(piece):
                    file.seek(0)
                if writes and written < DIRTY_BYTES:
                    written += other.write(piece)

    return _meanwhile(work)


def serving(serve: Serve) -> AbstractContextManager[None]:
    """Have another thread serve requests meanwhile."""

    def work(over: threading.Event) -> None:
        while not over.is_set():
            serve()

    return _meanwhile(work)


def end_with_parent() -> None:
    """In a forked child: be killed when the parent is, which the kernel may have chosen."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def sparse_file(directory: Path, size: int) -> str:
    """Make a file of `size` bytes without content: reading it fills the page cache all the same."""
    path = directory / "sparse"
    with open(path, "wb") as file:
        os.truncate(file.fileno(), size)
    return str(path)
