"""Blocks: which are pinned and filled for which bytes, and what a buffer of them keeps."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
from array_child import KIB, PAGE
from array_support import REFAULT, on_refault

import vrange
from vrange import fills
from vrange._arrays.blocks import Blocks
from vrange._core import lib
from vrange._counters.account import Account
from vrange.fills.base import Regenerator


def blocks_of(nbytes: int, block_bytes: int = PAGE, **how: Any) -> Blocks:
    account = Account("blocks", lib.VRANGE_KIND_ARRAY)
    return Blocks(nbytes, block_bytes, account, how.get("regenerator"), how.get("put"))


def threes(nbytes: int) -> Regenerator:
    return fills.pattern(3).bind(np.dtype("u1"), nbytes, PAGE)


@on_refault
@pytest.mark.parametrize("by", ["regenerator", "put"])
@pytest.mark.parametrize(
    ("low", "high", "pages"),
    [
        (0, 1, 1),
        (0, PAGE, 1),
        (0, PAGE + 1, 2),
        (PAGE - 1, PAGE + 1, 2),
        (PAGE, 2 * PAGE, 1),
        (5 * PAGE + 7, 9 * PAGE, 4),
        (0, 10 * PAGE + 5, 11),
        (10 * PAGE, 10 * PAGE + 5, 1),
    ],
)
def test_fills_the_blocks_of_some_bytes(by: str, low: int, high: int, pages: int) -> None:
    put: list[tuple[int, int]] = []

    def note(offset: int, out: np.ndarray[Any, Any]) -> None:
        put.append((offset, len(out)))
        out[:] = 3

    nbytes = 10 * PAGE + 5
    how: dict[str, Any] = {by: threes(nbytes) if by == "regenerator" else note}
    blocks = blocks_of(nbytes, **how)
    lease = blocks.pinned(low, high)
    assert len(lease) == high - low
    assert bytes(memoryview(lease)) == b"\3" * (high - low)
    assert blocks.resident_bytes == pages * PAGE
    first = low // PAGE
    if by == "put":
        assert [offset for offset, _ in put] == [(first + i) * PAGE for i in range(pages)]
        assert sum(count for _, count in put) == min(nbytes, (first + pages) * PAGE) - first * PAGE
    blocks.discard()
    assert blocks.resident_bytes == pages * PAGE
    put.clear()
    blocks.pinned(low, high)
    assert not put, "what is there is not put again"
    del lease
    blocks.discard()
    assert blocks.resident_bytes == 0
    assert blocks.refaults == 0
    assert blocks.refilled_bytes > 0


@on_refault
def test_a_buffer_keeps_them_and_they_keep_what_fills_them() -> None:
    class Kept:
        pass

    kept = Kept()
    seen = weakref.ref(kept)
    bound = threes(1000)
    regenerator = Regenerator(bound.function, bound.context, (*bound.kept, kept))
    del kept
    blocks = blocks_of(1000, regenerator=regenerator)
    del regenerator
    gone = weakref.ref(blocks)
    view = memoryview(blocks.buffer())[10:20]
    lease: Any = blocks.pinned(0, 10)  # a buffer, of which NumPy's stubs know only some types
    pinned = np.frombuffer(lease, np.uint8)[3:]
    del lease
    del blocks
    gc.collect()
    assert seen() is not None
    assert bytes(view) == b"\3" * 10
    del view
    gc.collect()
    assert gone() is not None
    assert pinned[0] == 3
    del pinned
    gc.collect()
    assert gone() is None
    assert seen() is None


@on_refault
def test_a_put_that_fails_leaves_nothing_pinned() -> None:
    fail = True

    def put(offset: int, out: np.ndarray[Any, Any]) -> None:
        if fail and offset == 3 * PAGE:
            raise LookupError("no such block")
        out[:] = 3

    blocks = blocks_of(10 * PAGE, put=put)
    with pytest.raises(
        vrange.RegenerationError, match="array 'blocks' failed for block 3"
    ) as error:
        blocks.pinned(0, 10 * PAGE)
    assert isinstance(error.value.__cause__, LookupError)
    del error
    gc.collect()
    blocks.discard()
    assert blocks.resident_bytes == 0
    fail = False
    assert bytes(memoryview(blocks.pinned(0, 10 * PAGE))) == b"\3" * 10 * PAGE


@on_refault
@pytest.mark.parametrize("nbytes", [1 << 50, 1 << 62, 1 << 63, 1 << 64, 1 << 100])
def test_more_than_there_is(nbytes: int) -> None:
    with pytest.raises(
        vrange.ArenaFullError, match="of address space for array 'blocks' is not available"
    ):
        blocks_of(nbytes)


def test_below_the_refault_rung() -> None:
    if REFAULT:
        blocks_of(PAGE)
    else:
        with pytest.raises(vrange.VrangeError, match="array 'blocks' can't be opened: "):
            blocks_of(PAGE)


@on_refault
def test_discarding_what_is_half_pinned() -> None:
    blocks = blocks_of(1024 * KIB, 64 * KIB, regenerator=threes(1024 * KIB))
    held = [blocks.pinned(i * 64 * KIB, i * 64 * KIB + 1) for i in range(0, 16, 3)]
    memoryview(blocks.buffer()).tobytes()
    blocks.discard()
    assert blocks.resident_bytes == len(held) * 64 * KIB
    held.clear()
    blocks.discard()
    assert blocks.resident_bytes == 0
