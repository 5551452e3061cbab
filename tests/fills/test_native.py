"""fills.native: functions and contexts from cffi, ctypes, Numba, and as plain addresses."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from array_child import PAGE, fill_functions
from array_support import REFAULT, build_fills, on_refault

import vrange
from vrange import fills

C_TYPE = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p
)


def by_cffi() -> tuple[Any, Any]:
    build_fills()
    ffi, c = fill_functions()
    return c.count_from, ffi.new("uint64_t *", 5)


def by_cffi_address() -> tuple[Any, Any]:
    build_fills()
    ffi, c = fill_functions()
    return ffi.addressof(c, "count_from"), ffi.new("uint64_t[1]", [5])


def by_ctypes() -> tuple[Any, Any]:
    library = ctypes.CDLL(str(build_fills()))
    return library.count_from, ctypes.pointer(ctypes.c_uint64(5))


def by_ctypes_prototype() -> tuple[Any, Any]:
    function = C_TYPE(("count_from", ctypes.CDLL(str(build_fills()))))
    return function, ctypes.cast(ctypes.pointer(ctypes.c_uint64(5)), ctypes.c_void_p)


def by_ctypes_callback() -> tuple[Any, Any]:
    """Python behind a C pointer. It runs, as a touch has the GIL or takes it."""

    def count(to: int, offset: int, nbytes: int, context: int) -> int:
        start = ctypes.cast(context, ctypes.POINTER(ctypes.c_uint64))[0] + offset // 8
        words = np.arange(start, start + -(-nbytes // 8), dtype="u8").tobytes()[:nbytes]
        ctypes.memmove(to, words, nbytes)
        return 0

    return C_TYPE(count), ctypes.pointer(ctypes.c_uint64(5))


KEPT: list[Any] = []


def by_address() -> tuple[Any, Any]:
    library, start = ctypes.CDLL(str(build_fills())), ctypes.c_uint64(5)
    KEPT.append((library, start))
    address = ctypes.cast(library.count_from, ctypes.c_void_p).value
    return address, ctypes.addressof(start)


def by_numba() -> tuple[Any, Any]:
    import numba
    from numba import types

    # numba annotates itself in part, and lists no exports.
    words_at: Any = numba.carray  # type: ignore[attr-defined]
    pointer: Any = types.CPointer(types.uint64)  # type: ignore[no-untyped-call]

    @numba.cfunc(types.intc(pointer, types.uintp, types.uintp, types.voidptr))
    def count(to: Any, offset: Any, nbytes: Any, context: Any) -> int:
        words = words_at(to, nbytes // 8)
        for i in range(nbytes // 8):
            words[i] = 5 + offset // 8 + i
        return 0

    return count, None


@pytest.mark.parametrize(
    "how",
    [
        by_cffi,
        by_cffi_address,
        by_ctypes,
        by_ctypes_prototype,
        by_ctypes_callback,
        by_address,
        by_numba,
    ],
)
def test_functions_and_contexts(how: Callable[[], tuple[Any, Any]]) -> None:
    fill = fills.native(*how())
    gc.collect()  # the fill keeps both alive
    a = vrange.VolatileArray(10_001, "u8", fill=fill, block_bytes=PAGE, eager=not REFAULT)
    del fill
    gc.collect()
    expected = np.arange(5, 10_006)
    for _ in range(3):
        assert np.array_equal(np.asarray(a), expected)
        a.discard()
    with a.pin(slice(777, 9999)) as view:
        assert np.array_equal(view, expected[777:9999])


@pytest.mark.parametrize("function", ["memcpy", b"memcpy", 1.5, lambda: 0, object()])
def test_what_is_no_function(function: Any) -> None:
    with pytest.raises(TypeError, match="function must be a"):
        fills.native(function)


def test_null_functions() -> None:
    for null in 0, ctypes.c_void_p(0), C_TYPE(0), fill_functions()[0].NULL:
        with pytest.raises(ValueError, match="function must not be null"):
            fills.native(null)


def test_what_is_no_context() -> None:
    function, _ = by_cffi()
    with pytest.raises(TypeError, match="context must be an address, a cffi or ctypes pointer"):
        fills.native(function, 1.5)


def test_a_function_that_fails_at_once() -> None:
    build_fills()
    ffi, c = fill_functions()
    status = ffi.new("int *", 5)
    fill = fills.native(c.fail_with, status)
    with pytest.raises(vrange.RegenerationError, match=r"fill of array 'array' failed \(error 5\)"):
        vrange.VolatileArray(10, "u1", fill=fill, eager=True)


@on_refault
@pytest.mark.parametrize("status", [1, 5, 11, 12, 14, 17, 5000, -1, -12, -(1 << 31)])
def test_every_number_is_a_failure(status: int) -> None:
    """Those too that the kernel's calls answer with, and that are dealt with inside."""
    build_fills()
    ffi, c = fill_functions()
    number = ffi.new("int *", status)
    with vrange.VolatileArray(100_000, "u1", fill=fills.native(c.fail_with, number)) as a:
        for _ in range(3):
            with pytest.raises((vrange.RegenerationError, vrange.ArenaFullError), match="block 0"):
                a.fill_ahead()
        number[0] = 0
        a.fill_ahead()
        assert not np.asarray(a).any()
        assert a.resident_bytes >= 100_000
        a.discard()
        assert a.resident_bytes == 0, "nothing stays pinned"


def test_repr() -> None:
    assert repr(fills.native(*by_cffi())).startswith("fills.native(<cdata")
