"""Heavy graphs of objects: one caller unpickles at a time, and callers share the object.

A dict of a million entries takes a second to unpickle and a hundred megabytes as objects. If each
caller unpickled its own, eight requests at once would take a gigabyte. So while one thread
unpickles a value, other threads wait for it, and this module keeps the object as long as a caller
holds it. A dict can't have weak references. So a thread checks the reference counts of the objects
that are kept, and drops those that no caller holds. It runs only while objects are kept.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from vrange._core import hit
from vrange._paused_thread import PausedThread
from vrange._working_child import when_working

_LOOK_SECONDS = 0.25  # the first interval; it doubles after each look that dropped nothing
_LOOK_SECONDS_MOST = 2.0
# The references to a value that no caller holds: the attribute, and getrefcount's own argument.
_UNHELD = 2


class SharedGraph:
    """Decodes a graph of objects, one caller at a time, and shares it while a caller holds it."""

    __slots__ = ("_decode", "_lock", "_maker", "_value", "seconds")

    def __init__(self, decode: Callable[[Any], Any]) -> None:
        self._decode = decode
        self._lock = threading.Lock()
        self._maker: int | None = None  # the thread that decodes it now
        self._value: Any = None
        self.seconds = 0.0  # how long decoding took the last time

    @property
    def copies(self) -> int:
        """The bytes that decoding it allocates, roughly."""
        return getattr(self._decode, "copies", 0)

    @copies.setter
    def copies(self, nbytes: int) -> None:
        self._decode.copies = nbytes  # type: ignore[attr-defined]

    def __call__(self, stored: Any) -> Any:
        if self._maker == threading.get_ident():
            # Unpickling looked the value up again, or a greenlet switched: a wait would never end.
            return self._decode(stored)
        with self._lock:
            if self._value is None or _keeper.is_late:
                _keeper.add(self)  # first, because a signal handler may raise at any point
            if self._value is None:
                self._value = self._make(stored)
            return self._value

    def _make(self, stored: Any) -> Any:
        try:
            self._maker = threading.get_ident()
            began = time.perf_counter()
            value = self._decode(stored)
            self.seconds = time.perf_counter() - began
            return value
        finally:
            self._maker = None

    def let_go(self) -> bool:
        """Drop the value if no caller holds it. Return whether no value is kept."""
        # Callers take the value under the lock, so the count is exact under the lock.
        if not self._lock.acquire(blocking=False):
            return False
        try:
            if self._value is not None and sys.getrefcount(self._value) <= _UNHELD:
                self._value = None
            return self._value is None
        finally:
            self._lock.release()

    def is_empty(self) -> bool:
        """Return whether no value is kept, and none is being made."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            return self._value is None
        finally:
            self._lock.release()

    def in_child(self) -> None:
        """Reset the lock in the child of a fork, where the decoding thread does not exist."""
        self._lock, self._maker = threading.Lock(), None


class _Keeper:
    """The graphs that are kept, and the thread that drops them."""

    def __init__(self) -> None:
        self._graphs: set[SharedGraph] = set()
        self._lock = threading.Lock()
        self._thread: PausedThread | None = None
        self._has_thread = False
        self.is_late = False  # the thread should run, and does not: the next hit starts it

    def add(self, graph: SharedGraph) -> None:
        with self._lock:
            self._graphs.add(graph)
            self._start()

    def _start(self) -> None:
        self.is_late = False
        if not self._graphs or self._has_thread:
            return
        # Another one each time: the last one may not be through its last lines. Nothing else
        # refers to a thread that pauses.
        self._thread = PausedThread("vrange-shared", self._run)
        try:
            self._thread.start()
        except (RuntimeError, MemoryError):  # the process has all threads that it may have, or ends
            self.is_late = True
        else:
            self._has_thread = True

    def _run(self, thread: PausedThread) -> bool:
        wait = _LOOK_SECONDS
        while True:
            hit.rest(wait)
            if thread.is_paused:
                return False
            with self._lock:
                graphs = list(self._graphs)
            gone = {graph for graph in graphs if graph.let_go()}
            with self._lock:
                is_new = not self._graphs.issubset(graphs)
                # A caller may have made the value again. It added the graph under the graph's lock.
                self._graphs -= {graph for graph in gone if graph.is_empty()}
                if not self._graphs:
                    self._has_thread = False
                    return True
            wait = _LOOK_SECONDS if gone or is_new else min(2 * wait, _LOOK_SECONDS_MOST)

    def in_child(self) -> None:
        """Do without the thread in the child of a fork, until the child works or has a hit."""
        self._lock = threading.Lock()
        self._has_thread, self.is_late = False, bool(self._graphs)
        for graph in self._graphs:
            graph.in_child()
        if self._graphs:
            when_working(self._start_late)

    def _start_late(self) -> None:
        with self._lock:
            self._start()


_keeper = _Keeper()
os.register_at_fork(after_in_child=_keeper.in_child)
