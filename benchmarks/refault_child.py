"""The contenders of refault, each in a process of its own, because a SIGBUS handler is per process.

A child is asked for one measurement at a time, in turn with the others. Before each, it touches and
frees as much memory as it is going to need (warm.py).
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
import zlib
from collections.abc import Callable
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from cffi import FFI

import vrange
from benchmarks import memory
from benchmarks.warm import WarmMemory

SOURCE = Path(__file__).parent / "bare_refault.c"
BLOCK = 64 << 10
VALUE = 0x0102030405060708


@cache
def native() -> tuple[FFI, Any]:
    """Compile bare_refault.c for this process."""
    source = SOURCE.read_text()
    begin, end = "/* cffi: begin */", "/* cffi: end */"
    ffi = FFI()
    ffi.cdef(source[source.index(begin) + len(begin) : source.index(end)])
    with tempfile.TemporaryDirectory() as directory:
        library = os.path.join(directory, "bare_refault.so")
        compiler = os.environ.get("CC", "cc")
        subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, SOURCE], check=True)
        return ffi, ffi.dlopen(library)


def order_of(blocks: int) -> Any:
    """Return all blocks once, from the last to the first, so that nothing is read ahead."""
    return np.arange(blocks, dtype="u4")[::-1].copy()


class Bare:
    """The loop in C."""

    def __init__(self, nbytes: int, regenerate: bool) -> None:
        ffi, c = native()
        self._base = c.bare_open(nbytes, BLOCK, VALUE, regenerate)
        if self._base == ffi.NULL:
            raise OSError(ffi.errno, os.strerror(ffi.errno))
        self._nbytes = nbytes
        self._order = order_of(nbytes // BLOCK)

    def refaults(self) -> float:
        """Return nanoseconds a block."""
        ffi, c = native()
        address = int(ffi.cast("uintptr_t", self._base))
        assert c.bare_discard() == 0
        assert memory.resident_share(address, self._nbytes) == 0
        WarmMemory(self._nbytes).let_go()
        count = len(self._order)
        order = ffi.from_buffer("uint32_t[]", self._order)
        taken = c.touch_blocks(self._base, order, count, BLOCK)
        assert memory.resident_share(address, self._nbytes) == 1
        return float(taken / count)


class Volatile:
    """A VolatileArray."""

    def __init__(self, nbytes: int, fill: str, path: str) -> None:
        content = np.memmap(path, "u8", "r")[: nbytes // 8]
        fills: dict[str, Callable[[], Any]] = {
            "pattern": lambda: vrange.fills.pattern(VALUE),
            "file": lambda: vrange.fills.file(path),
            "compressed": lambda: vrange.fills.compressed(content, level=1),
        }
        self._array = vrange.VolatileArray(nbytes // 8, "u8", fill=fills[fill](), block_bytes=BLOCK)
        # A buffer, which NumPy's stubs declare from Python 3.12 on.
        self._view: Any = np.asarray(self._array)
        self._expected = VALUE if fill == "pattern" else None
        self._content = content
        self._order = order_of(nbytes // BLOCK)
        self._ordinary = np.empty(nbytes // 8, "u8")
        self._ordinary[...] = self._view

    def _discard(self) -> None:
        self._array.discard()
        assert self._array.resident_bytes == 0
        WarmMemory(self._array.nbytes).let_go()

    def refaults(self) -> float:
        """Return nanoseconds a block, one at a time."""
        ffi, c = native()
        self._discard()
        before = self._array.refaults
        count = len(self._order)
        order = ffi.from_buffer("uint32_t[]", self._order)
        taken = c.touch_blocks(ffi.from_buffer(self._view), order, count, BLOCK)
        assert self._array.refaults - before == count, "it has read ahead"
        self._check()
        return float(taken / count)

    def sequential(self) -> float:
        """Return nanoseconds for all of it, page by page."""
        ffi, c = native()
        self._discard()
        taken = c.touch_pages(ffi.from_buffer(self._view), self._array.nbytes)
        self._check()
        return float(taken)

    def _check(self) -> None:
        assert self._array.resident_bytes == self._array.nbytes
        assert self._view[12345] == (self._expected or self._content[12345])

    def resident(self) -> float:
        """Return how much longer a ufunc takes on resident content than on an ordinary array."""
        self._discard()
        self._view.sum()  # in sequence, unlike a copy: memcpy may run backwards
        before = self._array.refaults
        ratios = []
        for turn in range(20):
            times = {}
            for name in ("ours", "theirs") if turn % 2 else ("theirs", "ours"):
                array = self._view if name == "ours" else self._ordinary
                start = time.perf_counter_ns()
                array.sum()
                times[name] = time.perf_counter_ns() - start
            ratios.append(times["ours"] / times["theirs"])
        assert self._array.refaults == before, "it was not resident"
        return float(np.median(ratios))


class Ordinary:
    """np.empty, filled with the same content in the usual way."""

    def __init__(self, nbytes: int, fill: str, path: str) -> None:
        self._nbytes = nbytes
        self._path = path
        self._fill: Callable[[Any], None] = {
            "pattern": lambda out: out.fill(VALUE),
            "file": self._read,
            "compressed": self._inflate,
        }[fill]
        if fill == "compressed":
            content = np.memmap(path, "u1", "r")[:nbytes]
            self._packed = [
                zlib.compress(content[at : at + BLOCK].data, 1) for at in range(0, nbytes, BLOCK)
            ]

    def _read(self, out: Any) -> None:
        with open(self._path, "rb", buffering=0) as file:
            assert file.readinto(out) == out.nbytes

    def _inflate(self, out: Any) -> None:
        flat = out.view("u1")
        for i, block in enumerate(self._packed):
            flat[i * BLOCK : (i + 1) * BLOCK] = np.frombuffer(zlib.decompress(block), "u1")

    def sequential(self) -> float:
        """Return nanoseconds for making and filling it."""
        WarmMemory(self._nbytes).let_go()
        start = time.perf_counter_ns()
        out = np.empty(self._nbytes // 8, "u8")
        self._fill(out)
        return float(time.perf_counter_ns() - start)


class Child:
    """One of these in a process of its own; `ask` it for a measurement."""

    def __init__(self, what: type, *arguments: Any, huge_pages: bool = True) -> None:
        context = get_context("spawn")
        self._pipe, other = context.Pipe()
        before = os.environ.get("NUMPY_MADVISE_HUGEPAGE")
        os.environ["NUMPY_MADVISE_HUGEPAGE"] = "1" if huge_pages else "0"
        try:
            self._process = context.Process(target=_serve, args=(other, what, arguments))
            self._process.start()
        finally:
            if before is None:
                del os.environ["NUMPY_MADVISE_HUGEPAGE"]
            else:
                os.environ["NUMPY_MADVISE_HUGEPAGE"] = before
        other.close()

    def ask(self, method: str) -> float:
        """Run a method there. Fail if it does."""
        self._pipe.send(method)
        answer = self._pipe.recv()
        if isinstance(answer, Exception):
            raise answer
        return float(answer)

    def close(self) -> None:
        self._pipe.close()
        self._process.join()


def _serve(pipe: Any, what: type, arguments: tuple[Any, ...]) -> None:
    contender = what(*arguments)
    while True:
        try:
            method = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(getattr(contender, method)())
        except Exception as error:
            pipe.send(error)
