"""Small values share ranges: slots are used again, and a lost slab loses exactly its keys."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import EAGER, PAGE, handle_of, lose, volatile_bytes

import vrange
from vrange._core import lib

Cache = vrange.VolatileCache[Any, Any]
SLAB_BYTES = 64 << 10


@pytest.mark.parametrize("nbytes", [0, 1, 10, 57, 200, 255, 500, 1000, 1500, 2000, 2048])
def test_slots_fit_and_waste_an_eighth_at_most(nbytes: int) -> None:
    with Cache(hot_bytes=0, arena_bytes="64MiB") as cache:
        count = 10 * SLAB_BYTES // max(16, nbytes + 7)
        for n in range(count):
            cache[n] = bytes(nbytes)
        wanted = nbytes + 7  # with its length, and what it is
        assert (
            count * wanted <= bytes_of(cache) <= count * max(16, wanted * 9 / 8 + 15) + SLAB_BYTES
        )


@given(
    st.lists(st.tuples(st.integers(0, 30), st.binary(max_size=2048) | st.none()), max_size=150),
)
def test_against_a_dict(steps: list[tuple[int, bytes | None]]) -> None:
    with Cache(hot_bytes=0, arena_bytes="64MiB") as cache:
        model: dict[int, bytes] = {}
        for key, value in steps:
            if value is None:
                assert cache.pop(key, None) == model.pop(key, None)
            else:
                cache[key] = model[key] = value
        assert {key: cache[key] for key in model} == model
        assert sorted(cache) == sorted(model)
        assert len(cache) == len(model)
        for key in list(model):
            del cache[key]
        info = cache.info()
        assert (info.entries, info.pinned_bytes + info.idle_bytes + info.offered_bytes) == (0, 0)


def bytes_of(cache: Cache) -> int:
    info = cache.info()
    return info.pinned_bytes + info.idle_bytes + info.offered_bytes + info.purged_bytes


@pytest.fixture
def _small_reserve() -> Iterator[None]:
    vrange.set_reserve("1MiB", tick=0.005)
    yield
    vrange.set_reserve("8GiB", tick=0.001)


@pytest.mark.usefixtures("_small_reserve")
def test_two_hundred_thousand_values(cache: Cache) -> None:
    count = 200_000

    def value(n: int, turn: int = 0) -> bytes:
        return b"%d:%d:" % (turn, n) + bytes(n % 200)

    for n in range(count):
        cache[n] = value(n)
    content = sum(len(value(n)) for n in range(count))
    assert len(cache) == count
    full = bytes_of(cache)
    assert content < full < content * 1.35
    order = list(range(count))
    random.Random(1).shuffle(order)
    for turn in (1, 2):
        for n in order[: count // 2]:
            cache[n] = value(n, turn)
        assert len(cache) == count
    # A value that is written anew is there twice for a moment, and slots differ by a digit.
    assert bytes_of(cache) < full * 1.05
    for n in order:
        del cache[n]
        cache[n] = value(n, 3)
    assert bytes_of(cache) < full * 1.05
    assert all(cache[n] == value(n, 3) for n in order[:20_000])
    for n in order[: count - 10]:
        del cache[n]
    assert len(cache) == 10
    assert bytes_of(cache) <= 10 * SLAB_BYTES
    assert all(cache[n] == value(n, 3) for n in order[-10:])
    assert cache.info().pinned_bytes == 0


def test_a_lost_slab_loses_exactly_its_keys(cache: Cache) -> None:
    values = {n: b"%d" % n + bytes(500) for n in range(1000)}
    cache.update(values)
    handles = sorted(cache._core.handles(None))
    assert len(handles) == 8
    handle = handles[-1]
    lost = {n for n in values if handle_of(cache, n) == handle}
    assert 100 < len(lost) < 130
    if EAGER:
        assert not lose(handle)
        assert lib.vrange_discard(handle) == lib.VRANGE_OK
    else:
        lose(handle, 3 * PAGE, PAGE)
    found = {n: cache.get(n) for n in values}
    assert {n for n, value in found.items() if value is None} == lost
    assert all(value == values[n] for n, value in found.items() if n not in lost)
    info = cache.info()
    assert (info.purged, info.misses, info.hits) == (len(lost), 0, 1000 - len(lost))
    assert info.entries == len(cache) == 1000 - len(lost)
    assert set(cache) == set(values) - lost
    for n in lost:
        cache[n] = values[n]
    assert {n: cache[n] for n in values} == values


def test_lost_slabs_are_swept_by_whoever_stores(cache: Cache) -> None:
    """Neither the keys nor the address space grow for ever, though nobody asks for them again."""
    for n in range(60_000):
        cache[n] = bytes(300)
        if n % 2000 == 0:
            cache.discard()
    account = cache._account.read()
    assert cache._core.entries < 10_000
    assert account.ranges < 100
    assert volatile_bytes(account) < 100 * SLAB_BYTES
    assert account.purged_total_bytes > 10 << 20
    assert account.reserved_bytes == 256 << 20


def test_overwriting_forever_in_a_small_arena() -> None:
    with Cache(hot_bytes=0, arena_bytes="1MiB") as cache:
        for n in range(30_000):
            cache[n % 100] = b"%d" % n + bytes(n % 1500)
        assert cache.info().evicted_bytes == 0
        assert all(
            cache[n] == b"%d" % (29_900 + n) + bytes((29_900 + n) % 1500) for n in range(100)
        )


def test_a_full_arena_lets_the_least_used_slabs_go() -> None:
    with Cache(hot_bytes=0, arena_bytes="1MiB") as cache:
        for n in range(2000):
            cache[n] = b"%d" % n + bytes(1000)
            assert cache[0][:2] == b"0\0", "asked for all the time"
        info = cache.info()
        assert 500 < info.entries < 1100
        assert info.evicted_bytes >= 15 * SLAB_BYTES
        assert info.purged == 0
        assert cache.get(100) is None
        assert cache.info().misses == 1, "the cache let it go: that is no purge"
