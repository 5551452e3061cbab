"""Native fills: everybody has the array's memory itself, and what is lost of it grows back."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from array_child import KIB, PAGE, address_of, lose_pages, resident_pages
from array_support import Counting, as_buffer, counts, on_refault, same

import vrange


@on_refault
def test_asarray_is_the_memory_itself(counting: Counting) -> None:
    a = counting(10)
    whole = np.asarray(a)
    assert address_of(whole) == address_of(np.asarray(a)) == address_of(a[...])
    assert a.resident_bytes == 0
    assert same(np.asarray(a, dtype="f4"), np.arange(a.size, dtype="f4"))
    with pytest.raises(ValueError, match="needs a copy"):
        np.asarray(a, dtype="f4", copy=False)
    assert address_of(np.asarray(a, copy=False)) == address_of(whole)


@on_refault
@pytest.mark.parametrize("block_bytes", [1 << n for n in range(12, 22)])
def test_every_block_size(counting: Counting, block_bytes: int) -> None:
    a = counting(3.7, block_bytes)
    whole = np.asarray(a)
    for start in a.size - 1, a.size // 2, 0:  # no two in sequence
        a.discard()
        refaults = a.refaults
        assert whole[start] == start
        assert a.refaults == refaults + 1
        block = start * 8 // block_bytes
        expected = min(a.nbytes, (block + 1) * block_bytes) - block * block_bytes
        assert a.resident_bytes == -(-expected // PAGE) * PAGE
    assert counts(whole)
    assert a.resident_bytes == -(-a.nbytes // PAGE) * PAGE


@on_refault
def test_partly_present_blocks(counting: Counting) -> None:
    """The kernel takes pages, not blocks: a touch puts back what is missing and no more."""
    a = counting(4)
    whole = np.asarray(a)
    pages = a.nbytes // PAGE
    for lost in [(0, 1), (15, 1), (3, 9), (14, 4), (5, 40), (0, pages), (pages - 1, 1)]:
        assert counts(whole)
        lose_pages(whole, *lost)
        assert sum(resident_pages(whole)) == pages - lost[1]
        assert counts(whole)
        assert all(resident_pages(whole))
    # Every other page, so that no two of a block are found missing in a row.
    for page in range(1, pages, 2):
        lose_pages(whole, page, 1)
    assert sum(resident_pages(whole)) == pages // 2
    refaults = a.refaults
    assert counts(whole)
    assert a.refaults > refaults
    for page in range(0, pages, 3):
        lose_pages(whole, page, 1)
    with a.pin() as pinned:
        assert counts(pinned)


@on_refault
def test_larger_than_the_machine(counting: Counting) -> None:
    elements = 1 << 40
    a = counting(elements * 8 // (64 * KIB))
    assert a.nbytes == 8 << 40
    whole = np.asarray(a)
    places = np.random.default_rng(2).integers(0, elements, 200)
    for _ in range(2):
        for place in places:
            assert whole[place] == place
        assert a.refaults >= 200
    with a.pin(slice(elements - 10, elements)) as view:
        assert counts(view)
        assert view[-1] == elements - 1


@on_refault
def test_counters(counting: Counting) -> None:
    a = counting(8, name="counted")
    assert (a.refaults, a.refilled_bytes, a.resident_bytes) == (0, 0, 0)
    np.asarray(a)[0]
    assert (a.refaults, a.refilled_bytes, a.resident_bytes) == (1, 64 * KIB, 64 * KIB)
    a.fill_ahead(slice(0, 3 * 8192))
    assert (a.refaults, a.refilled_bytes, a.resident_bytes) == (1, 192 * KIB, 192 * KIB)
    a.discard()
    assert (a.refaults, a.refilled_bytes, a.resident_bytes) == (1, 192 * KIB, 0)
    [counted] = [s for s in vrange.stats().accounts if s.name == "counted"]
    assert counted.refaults == 1
    assert counted.reserved_bytes == a.nbytes


@on_refault
def test_into_a_cache(counting: Counting) -> None:
    """The cache copies what is being lost."""
    small, large = counting(1), counting(64)
    with vrange.VolatileCache[Any, Any](name="test", hot_bytes=0, arena_bytes="64MiB") as cache:
        for a in small, large:
            for _ in range(3):
                a.discard()
                cache["k"] = np.asarray(a)
                assert counts(cache["k"])
                assert cache["k"].nbytes == a.nbytes


@on_refault
def test_as_an_ordinary_array(counting: Counting) -> None:
    a = counting(16)
    ordinary = np.arange(a.size, dtype="u8")
    for use in (
        lambda x: np.add(x, 1).sum(),
        lambda x: hashlib.sha256(as_buffer(np.asarray(x))).hexdigest(),
        lambda x: np.asarray(x).tobytes(),
        lambda x: np.sort(x)[::-1][:5].tolist(),
        lambda x: np.concatenate([x, x]).sum(),
        lambda x: np.asarray(x)[[5, 1, 99999]].tolist(),
        lambda x: np.asarray(x)[np.asarray(x) % 9999 == 3].tolist(),
        lambda x: bytes(memoryview(as_buffer(np.asarray(x)))[7:9]),
        lambda x: np.searchsorted(x, [5, 70000]).tolist(),
        lambda x: np.frombuffer(np.asarray(x), "u1").sum(),
    ):
        a.discard()
        assert use(a) == use(ordinary)
