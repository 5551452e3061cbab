"""What code in child processes has at hand, and the server that makes such children quickly.

Run as a program it imports what every child needs and then forks one for each line of JSON that it
reads. Before the fork nothing of vrange has been used: the child decides on its rung by itself.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import mmap
import os
import signal
import sys
import tempfile
import time
import traceback
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from cffi import FFI
from held import Held, address_space_bytes  # noqa: F401 - for the code of children

import vrange
from vrange._core import ffi as vrange_ffi
from vrange._core import lib

PAGE = mmap.PAGESIZE
KIB, MIB = 1 << 10, 1 << 20
MADV_DONTNEED, MADV_FREE, MADV_PAGEOUT = 4, 8, 21

_libc = ctypes.CDLL(None, use_errno=True)
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]


def address_of(view: np.ndarray[Any, Any]) -> int:
    """Where an ndarray's first element lies."""
    return int(view.__array_interface__["data"][0])


def resident_pages(view: np.ndarray[Any, Any]) -> list[bool]:
    """Which pages of contiguous memory are there, as mincore tells."""
    start = address_of(view) & -PAGE
    pages = -(-(address_of(view) + view.nbytes - start) // PAGE)
    seen = (ctypes.c_ubyte * pages)()
    assert _libc.mincore(start, pages * PAGE, seen) == 0, os.strerror(ctypes.get_errno())
    return [bool(page & 1) for page in seen]


def lose_pages(view: np.ndarray[Any, Any], first: int, count: int) -> None:
    """Makes the kernel take some pages, by number, that nobody has pinned, and tells nobody.

    It passes over pages that another processor still has in a batch of its own, so it is asked on
    each, and told anew that it may have them.
    """
    start, nbytes = (address_of(view) & -PAGE) + first * PAGE, count * PAGE
    seen = (ctypes.c_ubyte * count)()
    processors = os.sched_getaffinity(0)
    try:
        for _ in range(2000):
            for processor in processors:
                os.sched_setaffinity(0, {processor})
                assert _libc.madvise(start, nbytes, MADV_FREE) == 0
                assert _libc.madvise(start, nbytes, MADV_PAGEOUT) == 0
            assert _libc.mincore(start, nbytes, seen) == 0
            if not any(page & 1 for page in seen):
                return
            time.sleep(0.001)
        raise AssertionError(f"the kernel keeps some of {count} pages")
    finally:
        os.sched_setaffinity(0, processors)


def settle() -> None:
    """Returns when the thread of the reserve has looked at everything once more."""
    info = vrange_ffi.new("vrange_reserve_info *")
    lib.vrange_reserve_read(info)
    seen = info.ticks
    deadline = time.monotonic() + 20
    while info.ticks < seen + 2:
        assert time.monotonic() < deadline, "the thread of the reserve does not run"
        time.sleep(0.001)
        lib.vrange_reserve_read(info)


@cache
def fill_functions() -> tuple[FFI, Any]:
    """The functions of tests/fills/fills.c, by cffi."""
    source = (Path(__file__).parents[1] / "fills" / "fills.c").read_text()
    begin, end = "/* cffi: begin */", "/* cffi: end */"
    ffi = FFI()
    ffi.cdef(source[source.index(begin) + len(begin) : source.index(end)])
    return ffi, ffi.dlopen(os.environ["VRANGE_TEST_FILLS"])


def names() -> dict[str, Any]:
    """What the code of a child finds defined."""
    import multiprocessing
    import threading

    return {
        **{name: value for name, value in globals().items() if not name.startswith("_")},
        "multiprocessing": multiprocessing,
        "threading": threading,
        "vrange": vrange,
    }


def run(code: str) -> int:
    """Runs the code in this process, and tells the status it is to end with."""
    main = sys.modules["__main__"] = ModuleType("__main__")  # where pickle looks for functions
    vars(main).update(names())
    try:
        exec(compile(code, "<child>", "exec"), vars(main))
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _serve_one(code: str, timeout: float) -> dict[str, Any]:
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        child = os.fork()
        if child == 0:
            os.dup2(stdout.fileno(), 1)
            os.dup2(stderr.fileno(), 2)
            os.close(0)
            os._exit(run(code))
        deadline = time.monotonic() + timeout
        while not (ended := os.waitpid(child, os.WNOHANG))[0]:
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
            time.sleep(0.001)
        stdout.seek(0)
        stderr.seek(0)
        return {
            "status": os.waitstatus_to_exitcode(ended[1]),
            "stdout": stdout.read().decode(),
            "stderr": stderr.read().decode(),
        }


def _serve() -> None:
    faulthandler.disable()
    for line in sys.stdin:
        print(json.dumps(_serve_one(**json.loads(line))), flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["--serve"]:
        _serve()
    else:
        sys.exit(run(sys.argv[1]))
