"""Requests that other processes of this user make of this one, such as `vrange trim PID`.

A request is a file beside the stats segment of the process that it is for. The directory is its
user's own, so nobody else can put one there. The caretaker looks for the file (requests.c), and a
thread that is started then takes it: it removes the name, and writes the answer into the file,
which the asking process (ask.py) has open. So a process that ends early leaves no answer behind,
and needs neither a descriptor nor a signal while nobody asks.
"""

from __future__ import annotations

import atexit
import os
import stat
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from vrange._core import ffi, lib
from vrange._counters.descriptor import Descriptor
from vrange._system_threads import original

__all__ = ["BYTES_MOST", "answer_with"]

BYTES_MOST = 1 << 16  # of a request, and of its answer
_UNFINISHED_SECONDS = 5.0  # it is written at once, so its maker was killed in between
_END_SECONDS = 2.0  # how long exit waits for an answer that is being made

Answer = Callable[[Mapping[str, Any]], Mapping[str, Any]]


_answer: Answer | None = None
_turn = original("allocate_lock")()


def answer_with(answer: Answer) -> None:
    """Let requests to this process be answered by `answer`, on a thread of its own.

    What `answer` raises is the answer. No request is answered once the program has ended.
    """
    global _answer
    _answer = answer
    lib.vrange_requests_answer(lib.answer_request)


@ffi.def_extern()  # type: ignore[untyped-decorator]
def answer_request() -> None:
    # The core's thread has a small stack, and importing modules may need a large one.
    with suppress(RuntimeError):  # no thread can be started: the next look tries again
        original("start_new_thread")(_answer_request, ())


def _answer_request() -> None:
    lib.vrange_thread_name(b"vrange-request")
    path = ffi.new("char[]", lib.VRANGE_PATH_BYTES)
    if lib.vrange_request_path(path, lib.VRANGE_PATH_BYTES) < 0:
        return
    with _turn, suppress(OSError):
        _take(os.fsdecode(ffi.string(path)))


def _take(path: str) -> None:
    held = Descriptor(os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK))
    import json  # here: `import vrange` stays quick

    try:
        found = os.fstat(held.number)
        if found.st_uid != os.geteuid() or not stat.S_ISREG(found.st_mode):
            return
        asked = os.pread(held.number, BYTES_MOST, 0)
        if not asked.endswith(b"\n"):  # it is being written, unless its maker was killed
            if time.time() - found.st_mtime > _UNFINISHED_SECONDS:
                os.unlink(path)
            return
        os.unlink(path)  # fails if another thread has taken it
        told = json.dumps(_answered(asked)).encode() + b"\n"
        if held.is_ours():
            os.pwrite(held.number, told, len(asked))
    finally:
        held.close()


def _answered(asked: bytes) -> Mapping[str, Any]:
    import json

    try:
        assert _answer is not None
        return _answer(json.loads(asked))
    except Exception as error:  # it belongs to the one who asked
        return {"error": f"{type(error).__name__}: {error}"}


def _end() -> None:
    """Wait for an answer that is being made, and make no other one."""
    lib.vrange_requests_end(int(_END_SECONDS * 1e9))
    _turn.acquire(timeout=_END_SECONDS)


def _after_fork() -> None:
    global _turn
    _turn = original("allocate_lock")()  # a thread of the parent may have held the old one


atexit.register(_end)
os.register_at_fork(after_in_child=_after_fork)
