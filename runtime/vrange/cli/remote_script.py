"""Runs in a process that was not prepared (remote.py). Needs nothing but the standard library.

It is sent as text, because the process may have no vrange. If it has, vrange answers.
"""

from __future__ import annotations

import _thread
import gc
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

Request = Mapping[str, Any]


def begin(request: Request, answer_path: str) -> None:
    """Answer on a thread, because this runs between two instructions of the main thread."""
    _thread.start_new_thread(_write, (request, answer_path))


def _write(request: Request, answer_path: str) -> None:
    try:
        answer = _answer(request)
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    with suppress(OSError):  # the process that asked may have ended
        unfinished = answer_path + ".new"
        with open(unfinished, "w") as file:
            json.dump(answer, file)
        os.rename(unfinished, answer_path)


def _answer(request: Request) -> Mapping[str, Any]:
    if "vrange" in sys.modules:
        from vrange.heap.answer_requests import answer

        return answer(request)
    if request["what"] != "trim":
        raise LookupError(f"only vrange can tell, and it is not in this process, {os.getpid()}")
    return _trim(request)


def _trim(request: Request) -> Mapping[str, Any]:
    import ctypes

    began, before = time.perf_counter(), _rss()
    if request.get("collect"):
        gc.collect()
    returned = {}
    pyarrow = sys.modules.get("pyarrow")
    if pyarrow is not None:
        pool = pyarrow.default_memory_pool()
        returned["pyarrow"] = _measured(lambda pool: pool.release_unused(), pool)
    program = ctypes.CDLL(None)
    calls: dict[str, tuple[str, Callable[[Any], object]]] = {
        "jemalloc": ("mallctl", lambda call: call(b"arena.4096.purge", None, None, None, 0)),
        "mimalloc": ("mi_collect", lambda call: call(True)),
        "tcmalloc": ("MallocExtension_ReleaseFreeMemory", lambda call: call()),
        "glibc": ("malloc_trim", lambda call: call(0)),
    }
    for name, (function, act) in calls.items():
        if hasattr(program, function):
            returned[name] = _measured(act, getattr(program, function))
    return {
        "seconds": time.perf_counter() - began,
        "rss_before": before,
        "rss": _rss(),
        "returned": returned,
        "refused": {"pymalloc": "vrange is not in this process"},
    }


def _measured(act: Callable[[Any], object], how: Any) -> int:
    before = _rss()
    act(how)
    return max(0, before - _rss())


def _rss() -> int:
    with open("/proc/self/smaps_rollup") as file:
        for line in file:
            if line.startswith("Rss:"):
                return int(line.split()[1]) << 10
    return 0
