"""NumPy's handler beside vrange's: what grows across the border, and somebody else's set since."""

from __future__ import annotations

import contextvars
import ctypes
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import succeeds

import vrange
import vrange.heap
from vrange._core import ffi, lib, numpy_handler
from vrange._counters import segment
from vrange.heap import use_for_numpy

MIB = 1 << 20


def handler_name() -> str:
    core: Any = np._core  # type: ignore[attr-defined]  # private: not in the stubs
    return str(core.multiarray.get_handler_name())


class Foreign:
    """Somebody else's handler: libc, by ctypes. Arrays keep pointers to it, so it must stay."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None)
        word, size = ctypes.c_void_p, ctypes.c_size_t
        libc.malloc.restype = libc.calloc.restype = libc.realloc.restype = word
        libc.malloc.argtypes, libc.calloc.argtypes = [size], [size, size]
        libc.realloc.argtypes, libc.free.argtypes = [word, size], [word]
        self.kept = (
            ctypes.CFUNCTYPE(word, word, size)(lambda _, size: libc.malloc(size)),
            ctypes.CFUNCTYPE(word, word, size, size)(lambda _, n, each: libc.calloc(n, each)),
            ctypes.CFUNCTYPE(word, word, word, size)(lambda _, old, size: libc.realloc(old, size)),
            ctypes.CFUNCTYPE(None, word, word, size)(lambda _, old, size: libc.free(old)),
        )
        functions = [ctypes.cast(function, word).value or 0 for function in self.kept]
        words = b"".join(value.to_bytes(8, sys.byteorder) for value in (0, *functions))
        self.memory = ctypes.create_string_buffer(b"somebody".ljust(127, b"\0") + b"\1" + words)
        make = ctypes.pythonapi.PyCapsule_New
        make.restype = ctypes.py_object
        make.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        self.name = b"mem_handler"
        self.capsule = make(ctypes.addressof(self.memory), self.name, None)


FOREIGN: list[Foreign] = []


def test_somebody_elses_handler_before_and_after() -> None:
    FOREIGN.append(foreign := Foreign())
    use_for_numpy().close()  # connects
    before = numpy_handler.set(foreign.capsule)
    try:
        theirs = np.arange(MIB)
        with pytest.raises(vrange.VrangeError, match="'somebody'"):
            use_for_numpy()
        with use_for_numpy(replace=True):
            ours = np.arange(MIB)
        assert handler_name() == "somebody"
        assert (theirs == ours).all()
        del theirs, ours
    finally:
        numpy_handler.set(before)


def test_a_handler_set_since_is_left_alone() -> None:
    FOREIGN.append(foreign := Foreign())
    switch = use_for_numpy()
    ours = numpy_handler.set(foreign.capsule)
    with pytest.raises(RuntimeError, match="'somebody'"):
        switch.close()
    assert handler_name() == "somebody"
    numpy_handler.set(ours)
    with pytest.raises(RuntimeError, match="context is not that"):
        contextvars.Context().run(switch.close)
    switch.close()
    assert handler_name() == "default_allocator"


def test_an_array_that_grows_step_by_step_becomes_the_heaps() -> None:
    with use_for_numpy():
        blocks = vrange.heap.info().blocks
        array = np.fromiter((n for n in range(100_000)), np.int64)
        assert (array == np.arange(100_000)).all()
        assert vrange.heap.info().blocks == blocks + 1


def test_what_shrinks_leaves_its_huge_pages() -> None:
    with use_for_numpy():
        used = vrange.heap.info().used_bytes
        array = np.arange(MIB)
        array.resize(10_000, refcheck=False)
        assert (array == np.arange(10_000)).all()
        # A block that another test has freed may serve it, of up to twice the size.
        assert vrange.heap.info().used_bytes - used < 200_000


def test_a_trim_is_counted_once() -> None:
    own = Path(ffi.string(lib.vrange_segment_path()).decode())
    vrange.heap.trim()  # stacks that other tests have left count as well
    with use_for_numpy():
        np.ones(MIB)
    before = segment.read(own).trims
    assert vrange.heap.trim().by_source["arrays"] >= 8 * MIB
    assert segment.read(own).trims == before + 1


def test_numpy_from_before_handlers_is_refused_and_left_as_it_is() -> None:
    """NumPy 1.21 as an extension module sees it: a table whose version says so."""
    told = succeeds(
        """
        import ctypes, sys, types

        version = ctypes.CFUNCTYPE(ctypes.c_uint)(lambda: 0x0E)
        table = (ctypes.c_void_p * 308)()
        table[211] = ctypes.cast(version, ctypes.c_void_p).value
        make = ctypes.pythonapi.PyCapsule_New
        make.restype = ctypes.py_object
        make.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        for name in ("numpy", "numpy.core", "numpy.core._multiarray_umath"):
            sys.modules[name] = types.ModuleType(name)
        sys.modules["numpy"].__version__ = "1.21.6"
        core = sys.modules["numpy.core._multiarray_umath"]
        core._ARRAY_API = make(ctypes.addressof(table), None, None)

        import vrange, vrange.heap

        for _ in range(2):
            try:
                vrange.heap.use_for_numpy()
            except vrange.VrangeError as error:
                print(error)
        assert vrange.heap.info().reserved_bytes == 0
        """
    )
    assert (
        told.count("NumPy 1.21.6 can't be used: NumPy before 1.22 accepts no other allocator") == 2
    )
