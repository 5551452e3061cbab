"""The same trim over and over, by a thread that the program's garbage collector doesn't notice.

The collector counts the containers that are made (tuples, dicts, bound methods …), by whichever
thread, and runs when there are many; those that an interpreter keeps spare when they are freed stay
counted. A trim that is told makes dozens. Every few milliseconds, that would have the program's
garbage collected early, and `gc.get_count()` show it what is ours. So all that a sweep needs is
made at the beginning. It makes no container: methods are called where they are looked up, native
functions take one argument at most, and loops count, as an iterator would be one.
"""

from __future__ import annotations

import sys
import time

from vrange._core import lib
from vrange.heap import allocators, interpreter, pools, turns
from vrange.heap.trim import Deep

__all__ = ["Sweep"]

# By names of their own: cffi makes a function when it is looked up for the first time.
_trim_stacks, _trim_arrays = lib.vrange_stacks_trim, lib.vrange_heap_trim
_release, _resident_bytes = lib.vrange_allocator_release, lib.vrange_resident_bytes
_count_trim, _perf_counter_ns = lib.vrange_heap_trimmed, time.perf_counter_ns


class Sweep:
    """As `vrange.heap.trim(deep, collect=False)`, again and again; its figures are sums.

    `by_source` has the bytes that each source gave back so far, `refused` why one gave nothing the
    last time. Libraries' pools make containers of their own.

    Examples
    --------
    >>> sweep = Sweep(deep=False)
    >>> sweep.once()
    >>> sorted(sweep.by_source)[:2]
    ['arrays', 'glibc']

    """

    def __init__(self, deep: Deep) -> None:
        self._deep = bool(deep)
        self._holes = deep == "holes"
        self._allocators = list(allocators.numbers())
        self._numbers = list(allocators.numbers().values())
        self._libraries = list(pools.KNOWN)
        self.refused: dict[str, str] = {}
        names = ["stacks", "arrays", *(["pymalloc"] if deep else []), *self._allocators]
        self.by_source = dict.fromkeys(names, 0)

    def once(self) -> None:
        """Ask each source. Waits for whoever trims at the moment."""
        lock = turns.lock
        lock.acquire()  # not by `with`, which keeps a bound method until it ends
        try:
            began = _perf_counter_ns()
            if self._ask_each():
                _count_trim(_perf_counter_ns() - began)
        finally:
            lock.release()

    def left_alone(self) -> dict[str, str]:
        """What sources refused, and what was left alone of those that didn't."""
        left = interpreter.left_alone() if self._deep and "pymalloc" not in self.refused else None
        return {**self.refused, **({} if left is None else {"pymalloc": left})}

    def forget(self) -> None:
        """Begin at nothing."""
        for name in self.by_source:
            self.by_source[name] = 0

    def _ask_each(self) -> int:
        stacks, arrays = _trim_stacks(), _trim_arrays()
        self.by_source["stacks"] += stacks
        self.by_source["arrays"] += arrays
        # In the order of vrange.heap.trim: libraries give to what stands behind malloc.
        given = stacks + arrays + self._ask_libraries()
        if self._deep:
            given += self._ask_interpreter()
        at = 0
        while at < len(self._numbers):
            nbytes = _release(self._numbers[at])
            self.by_source[self._allocators[at]] += nbytes
            given += nbytes
            at += 1
        return int(given)

    def _ask_interpreter(self) -> int:
        interpreter.clear_caches()
        given = interpreter.sweep(self._holes)
        if isinstance(given, str):
            self.refused["pymalloc"] = given
            return 0
        self.by_source["pymalloc"] += given
        return given

    def _ask_libraries(self) -> int:
        given, at = 0, 0
        while at < len(self._libraries):
            name = self._libraries[at]
            if name in sys.modules:
                given += self._ask_library(name)
            at += 1
        return given

    def _ask_library(self, name: str) -> int:
        before = _resident_bytes()
        try:
            pools.KNOWN[name](sys.modules[name])
        except Exception as error:  # somebody else's code: it must not stop the others
            self.refused[name] = repr(error)
            return 0
        given = int(max(0, before - _resident_bytes()))
        self.by_source[name] = self.by_source.get(name, 0) + given
        return given
