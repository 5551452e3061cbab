"""The figures of one process of the program, in a file that outlives the process.

They are written at exit, and at times before that, because a killed process has no exit. The parent
that reports (`vrange run --report`) reads them; without such a parent nothing is written.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from vrange._counters.lazyfree import lazyfree_bytes
from vrange.heap.repeated_trim import Sweep

__all__ = ["Record"]

_WRITE_SECONDS = 0.5  # the least time between two writes: trims may run every few milliseconds
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Record:
    """The figures of this process. If `directory` is None, they are not written."""

    def __init__(self, directory: str | None) -> None:
        self._directory = directory
        self._written = 0.0
        self.parts: dict[str, str] = {}
        self.watcher: Any = None
        self.sweep: Sweep | None = None
        self._reset()

    def _reset(self) -> None:
        self.pid = os.getpid()
        self.trims = 0
        self.trim_seconds = 0.0
        self.longest_trim_seconds = 0.0
        if self.sweep is not None:
            self.sweep.forget()
        self.registered_threads = 0

    def trimmed(self, seconds: float) -> None:
        """Count one trim and its duration."""
        self.trims += 1
        self.trim_seconds += seconds
        self.longest_trim_seconds = max(self.longest_trim_seconds, seconds)
        if time.monotonic() - self._written > _WRITE_SECONDS:
            self.write()

    def after_fork(self) -> None:
        """Reset the figures in the child."""
        self._reset()
        self.write()

    def at_exit(self) -> None:
        """Write the last time, with the memory that the interpreter holds before it ends."""
        self.write(ended=True)

    def write(self, *, ended: bool = False) -> None:
        """Write the figures where the parent finds them. Never raise."""
        if self._directory is None:
            return
        self._written = time.monotonic()
        with suppress(Exception):
            text = json.dumps(self._figures(ended), default=str)
            # Write to another name, then rename: a reader sees either all of it or the old content.
            path = Path(self._directory, f"{self.pid}.json")
            unfinished = path.with_suffix(".new")
            unfinished.write_text(text)
            unfinished.replace(path)

    def _figures(self, ended: bool) -> dict[str, Any]:
        figures: dict[str, Any] = {
            "pid": self.pid,
            "python": sys.executable,
            "version": ".".join(map(str, sys.version_info[:3])),
            "command": list(getattr(sys, "orig_argv", [])),
            "parts": self.parts,
            "trims": self.trims,
            "trim_seconds": self.trim_seconds,
            "longest_trim_seconds": self.longest_trim_seconds,
            "returned_bytes": {} if self.sweep is None else self.sweep.by_source,
            "refused": {} if self.sweep is None else self.sweep.left_alone(),
            "executor_threads": self.registered_threads,
            "ended": ended,
        }
        for name, read in (
            ("pressure", self._pressure),
            ("caches", _caches),
            ("stacks", _stacks),
            ("arrays", _numpy),
        ):
            try:
                figures[name] = read()
            except Exception as error:
                figures[name] = {"unknown": str(error)}
        if ended:
            figures["rss_bytes"] = int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
            figures["lazyfree_bytes"] = lazyfree_bytes(self.pid)
        return figures

    def _pressure(self) -> dict[str, Any]:
        if self.watcher is None:
            return {}
        info = self.watcher.info()
        as_dict = getattr(info, "_asdict", None)
        told = as_dict() if as_dict else vars(info)
        return {str(name): _plain(value) for name, value in told.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, (dict,)):
        return {str(name): _plain(one) for name, one in value.items()}
    return value if isinstance(value, (int, float, str, bool, list, type(None))) else str(value)


def _caches() -> dict[str, Any]:
    from vrange._counters.stats import stats

    caches = [one for one in stats().accounts if one.kind == "cache"]
    return {
        "hits": sum(one.hot_hits + one.resident_hits + one.peer_hits for one in caches),
        "purged": sum(one.purged for one in caches),
        "misses": sum(one.misses for one in caches),
    }


def _stacks() -> dict[str, Any]:
    from vrange._core import ffi, lib

    totals = ffi.new("vrange_stack_totals *")
    lib.vrange_stack_totals_read(totals)
    return {"returned_bytes": int(totals.returned_bytes), "trims": int(totals.trims)}


def _numpy() -> dict[str, Any]:
    from vrange._core import ffi, lib

    read = getattr(lib, "vrange_heap_read", None)
    if read is None:
        return {}
    info = ffi.new("vrange_heap_info *")
    read(info)
    return {name: int(getattr(info, name)) for name in dir(info)}
