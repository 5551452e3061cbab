"""A repeated trim, run by a thread that the program's garbage collector doesn't notice.

The collector counts the containers that any thread creates (tuples, dicts, bound methods …), and
runs when there are many. A freed container that the interpreter keeps for reuse stays counted. A
trim that reports its figures makes dozens. Every few milliseconds, that would collect the program's
garbage too early, and `gc.get_count()` would show containers of vrange. So everything that a sweep
needs is made at the beginning, and the sweep itself makes no container: methods are called where
they are looked up, native functions take one argument at most, and loops count, because an iterator
would be a container.
"""

from __future__ import annotations

import sys
import time

from vrange._core import lib
from vrange.heap import allocators, interpreter, pools, trim_lock
from vrange.heap.trim import Deep

__all__ = ["Sweep"]

# Bound to names here, because cffi creates a function when it is looked up for the first time.
_trim_stacks, _trim_arrays = lib.vrange_stacks_trim, lib.vrange_heap_trim
_release, _resident_bytes = lib.vrange_allocator_release, lib.vrange_resident_bytes
_count_trim, _perf_counter_ns = lib.vrange_heap_trimmed, time.perf_counter_ns

# malloc_trim holds an arena's lock while it goes through all its freed blocks, 100 ms if they are a
# million, and threads that allocate wait. An allocator whose trim took longer than this and did not
# return a byte a nanosecond is left out of sweeps: of 1, then 3, then up to 7 in a row.
_QUICK_NS = 2_000_000
_BYTES_A_NS = 1
_LEFT_OUT_MOST = 7


class Sweep:
    """Do the same as `vrange.heap.trim(deep, collect=False)`, again and again, and sum the figures.

    Parameters
    ----------
    deep : bool or "holes"
        As for `vrange.heap.trim`.

    Attributes
    ----------
    by_source : dict[str, int]
        The bytes that each source has returned so far.
    refused : dict[str, str]
        Why a source returned nothing the last time.

    Notes
    -----
    The pools of libraries create containers of their own.

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
        self._left_out = [0] * len(self._numbers)  # in how many sweeps, once it did not pay
        self._still_out = [0] * len(self._numbers)
        self._libraries = list(pools.KNOWN)
        self.refused: dict[str, str] = {}
        names = ["stacks", "arrays", *(["pymalloc"] if deep else []), *self._allocators]
        self.by_source = dict.fromkeys(names, 0)

    def once(self, spares: bool = False) -> None:
        """Ask each source once. If another trim is running, wait for it.

        With `spares`, allocators whose trims did not pay lately are left out.
        """
        lock = trim_lock.lock
        lock.acquire()  # not `with`, which holds a bound method until it ends
        try:
            began = _perf_counter_ns()
            if self._ask_each(spares):
                _count_trim(_perf_counter_ns() - began)
        finally:
            lock.release()

    def left_alone(self) -> dict[str, str]:
        """Return what sources refused, and what the others left alone."""
        left = interpreter.left_alone() if self._deep and "pymalloc" not in self.refused else None
        return {**self.refused, **({} if left is None else {"pymalloc": left})}

    def forget(self) -> None:
        """Reset all sums to zero."""
        for name in self.by_source:
            self.by_source[name] = 0

    def _ask_each(self, spares: bool) -> int:
        stacks, arrays = _trim_stacks(), _trim_arrays()
        self.by_source["stacks"] += stacks
        self.by_source["arrays"] += arrays
        # In the order of vrange.heap.trim: libraries return memory to the allocator behind malloc.
        given = stacks + arrays + self._ask_libraries()
        if self._deep:
            given += self._ask_interpreter()
        at = 0
        while at < len(self._numbers):
            if spares and self._still_out[at]:
                self._still_out[at] -= 1
            else:
                given += self._ask_allocator(at)
            at += 1
        return int(given)

    def _ask_allocator(self, at: int) -> int:
        began = _perf_counter_ns()
        given = int(_release(self._numbers[at]))
        took = _perf_counter_ns() - began
        self.by_source[self._allocators[at]] += given
        pays = took < _QUICK_NS or given >= took * _BYTES_A_NS
        longer = 2 * self._left_out[at] + 1
        self._left_out[at] = 0 if pays else longer if longer < _LEFT_OUT_MOST else _LEFT_OUT_MOST
        self._still_out[at] = self._left_out[at]
        return given

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
        except Exception as error:  # foreign code must not stop the other sources
            self.refused[name] = repr(error)
            return 0
        given = int(max(0, before - _resident_bytes()))
        self.by_source[name] = self.by_source.get(name, 0) + given
        return given
