"""Python fills: they run where the access is explicit, and say what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from array_child import PAGE
from array_support import content_of, on_refault, python, same

import vrange


class Squares:
    """A Python fill that notes what it was asked for, and fails where it is told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []
        self.error: BaseException | None = None
        self.returns: Any = None

    def __call__(self, start: int, out: np.ndarray[Any, Any]) -> Any:
        self.asked.append((start, len(out)))
        if self.error is not None:
            raise self.error
        out[:] = np.arange(start, start + len(out)) ** 2
        return self.returns


SQUARES = np.arange(5000) ** 2
THREE_BYTES = np.dtype([("a", "u1"), ("b", "u2")])


@on_refault
def test_a_python_fill_runs_where_the_access_is_explicit() -> None:
    fill = Squares()
    a = vrange.VolatileArray(5000, "i8", fill=fill, block_bytes=PAGE, name="squares")
    assert a[600] == 360000
    assert fill.asked == [(512, 512)]
    view = a[1000:1030]
    assert fill.asked[1:] == [(1024, 512)] or fill.asked[1:] == [(512, 512), (1024, 512)]
    a.discard()
    assert same(view, SQUARES[1000:1030]), "the view is a pin"
    assert a.resident_bytes == 2 * PAGE
    del view
    a.discard()
    fill.asked.clear()
    a.fill_ahead(slice(0, 1024))
    assert fill.asked == [(0, 512), (512, 512)]
    assert same(a[4999], SQUARES[4999])
    assert fill.asked[-1] == (4608, 5000 - 4608)


@on_refault
def test_a_python_fill_refuses_what_touches_behind_its_back() -> None:
    a = vrange.VolatileArray((50, 100), "i8", fill=Squares(), name="squares")
    refusals: list[Callable[[], object]] = [
        lambda: np.asarray(a),
        lambda: np.add(a, 1),
        lambda: np.asarray(a, copy=False),
        lambda: np.sum(a),
    ]
    for refused in refusals:
        with pytest.raises(TypeError, match=r"'squares' is filled by a Python function.*pin\(\)"):
            refused()
    for index in True, False, (True, 0), ([1, 2], 0), np.ones((50, 100), bool), "field", 1.5:
        with pytest.raises(IndexError):
            a[index]
        with pytest.raises(IndexError), a.pin(index):
            pass


@on_refault
def test_an_unpinned_touch_of_a_python_fill_ends_in_words() -> None:
    code = """
    a = vrange.VolatileArray(5000, "i8", fill=lambda start, out: out.fill(1), name="squares")
    view = a[:10]
    address = address_of(view)
    del view
    a.discard()
    import ctypes
    print("so far", flush=True)
    ctypes.string_at(address, 8)
    """
    done = python(code)
    assert done.returncode == -7
    assert "block 0 of array 'squares'" in done.stderr
    assert 'pass fault="python"' in done.stderr


@on_refault
@pytest.mark.parametrize("fault", ["native", "python"])
def test_a_python_fill_that_fails_where_the_access_is_explicit(fault: Any) -> None:
    fill = Squares()
    a = vrange.VolatileArray(5000, "i8", fill=fill, block_bytes=PAGE, name="squares", fault=fault)
    accesses: list[Callable[[], Any]] = [a.fill_ahead, lambda: a.pin(700).__enter__()]
    if fault == "native":
        accesses += [lambda: a[700], lambda: bytes(a), lambda: np.array(a, copy=True)]
    for access in accesses:
        fill.error = OSError(5, "the lamp is broken")
        with pytest.raises(
            vrange.RegenerationError, match=r"fill of array 'squares' failed for block [01]$"
        ) as caught:
            access()
        assert caught.value.__cause__ is fill.error
        fill.error, fill.returns = None, 7
        with pytest.raises(vrange.RegenerationError, match=r"wrote 7 elements of 512 from (0|512)"):
            access()
        fill.returns = None
        fill.error = KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            access()
        fill.error = None
    del caught
    a.discard()
    assert a.resident_bytes == 0, "a failed pin leaves nothing pinned"
    with a.pin() as view:
        assert same(view, SQUARES)


@on_refault
def test_a_python_fill_that_forgets_some_gives_zeros() -> None:
    def half(start: int, out: np.ndarray[Any, Any]) -> None:
        out[::2] = 1

    a = vrange.VolatileArray(100000, "i8", fill=half)
    assert a[...].sum() == 50000


@on_refault
def test_a_python_fill_of_elements_over_block_edges() -> None:
    content = content_of(7777, THREE_BYTES)
    asked = []

    def fill(start: int, out: np.ndarray[Any, Any]) -> int:
        asked.append((start, len(out)))
        out[:] = content[start : start + len(out)]
        return len(out)

    a = vrange.VolatileArray(7777, THREE_BYTES, fill=fill, block_bytes=PAGE)
    for _ in range(2):
        assert same(a[...], content)
        a.discard()
    assert same(a[1365], content[1365])  # bytes 4095 to 4098
    assert asked[0] == (0, 1366)
    assert asked[1] == (1365, 1366)
