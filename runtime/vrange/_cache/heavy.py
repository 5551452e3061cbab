"""Heavy graphs of objects: one is made at a time, and callers share it while one of them holds it.

A dict of a million entries takes a second to be unpickled and a hundred megabytes as objects. With
one for each caller, eight requests at once would take a gigabyte. So a thread that asks for the
value while another one makes it waits for that one, and what was made is kept for as long as some
caller holds it. A dict can't be referred to weakly. So a thread of this module looks at the counts
of references, while there is something to look at, and lets go of what nobody else holds.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

_LOOK_SECONDS = 0.25  # at first, and twice as long after each look that found nothing
_LOOK_SECONDS_MOST = 2.0
# The references to a value that nobody else holds: the attribute's and getrefcount's own argument.
_UNHELD = 2


class SharedGraph:
    """Makes a value, or returns the one that it made before, while somebody holds that."""

    __slots__ = ("_decode", "_lock", "_maker", "_value", "seconds")

    def __init__(self, decode: Callable[[Any], Any]) -> None:
        self._decode = decode
        self._lock = threading.Lock()
        self._maker: int | None = None  # the thread that makes it now
        self._value: Any = None
        self.seconds = 0.0  # what making it took the last time

    @property
    def copies(self) -> int:
        """The bytes that making it allocates, roughly."""
        return getattr(self._decode, "copies", 0)

    @copies.setter
    def copies(self, nbytes: int) -> None:
        self._decode.copies = nbytes  # type: ignore[attr-defined]

    def __call__(self, stored: Any) -> Any:
        if self._maker == threading.get_ident():
            # Unpickling asked for the value itself, or a greenlet switched: a wait would never end.
            return self._decode(stored)
        with self._lock:
            if self._value is None:
                _keeper.add(self)  # first: an interrupt may come at any point
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
        """Let go of the value if nobody else holds it. Return whether nothing is kept."""
        # A caller takes the value with the lock, so with the lock the count is exact.
        if not self._lock.acquire(blocking=False):
            return False
        try:
            if self._value is not None and sys.getrefcount(self._value) <= _UNHELD:
                self._value = None
            return self._value is None
        finally:
            self._lock.release()

    def in_child(self) -> None:
        """Be as new in the child of a fork, where the thread that makes it does not exist."""
        self._lock, self._maker = threading.Lock(), None


class _Keeper:
    """The graphs that are kept, and the thread that lets them go."""

    def __init__(self) -> None:
        self._graphs: set[SharedGraph] = set()
        self._lock = threading.Lock()
        self._ends = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, graph: SharedGraph) -> None:
        with self._lock:
            self._graphs.add(graph)
            self._start()

    def _start(self) -> None:
        if self._graphs and self._thread is None:
            self._ends.clear()
            self._thread = threading.Thread(target=self._run, name="vrange-shared", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        wait = _LOOK_SECONDS
        while not self._ends.wait(wait):
            with self._lock:
                graphs = list(self._graphs)
            gone = {graph for graph in graphs if graph.let_go()}
            with self._lock:
                is_new = not self._graphs.issubset(graphs)
                self._graphs -= gone
                if not self._graphs:
                    self._thread = None
                    return
            wait = _LOOK_SECONDS if gone or is_new else min(2 * wait, _LOOK_SECONDS_MOST)

    def before_fork(self) -> None:
        """Stop the thread: os.fork() warns of every thread that Python knows."""
        self._lock.acquire()
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            self._ends.set()
            self._lock.release()
            thread.join()
            self._lock.acquire()

    def after_fork(self) -> None:
        """Go on, in the parent."""
        self._start()
        self._lock.release()

    def in_child(self) -> None:
        """Go on, in the child."""
        self._lock = threading.Lock()
        for graph in self._graphs:
            graph.in_child()
        self._start()


_keeper = _Keeper()
os.register_at_fork(
    before=_keeper.before_fork,
    after_in_parent=_keeper.after_fork,
    after_in_child=_keeper.in_child,
)
