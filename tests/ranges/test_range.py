"""Ranges: pinned, volatile, purged, told from what the kernel really took."""

from __future__ import annotations

import ctypes
import gc
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from array_support import as_buffer
from support import EAGER, MIB, PAGE, RUNG, address_of, lose, python, resident_pages, wait_offered

import vrange
from vrange._core import lib

CONTENT = bytes(range(256)) * (4 * PAGE // 256)


@pytest.fixture
def r(arena: vrange.Arena) -> vrange.Range:
    """Four pages with content."""
    r = arena.allocate(4 * PAGE)
    r.buffer[:] = CONTENT
    return r


def state_of(r: vrange.Range) -> str:
    """Its state now; of `r.state` mypy believes that it stays what was last asserted."""
    return r.state


def test_fresh_range_is_pinned_zeroed_aligned_and_writable(arena: vrange.Arena) -> None:
    r = arena.allocate(10_000)
    assert (r.state, r.nbytes, len(r)) == ("pinned", 10_000, 10_000)
    view = r.buffer
    assert not view.readonly
    assert (view.nbytes, view.format) == (10_000, "B")
    assert bytes(view) == bytes(10_000)
    assert address_of(r._handle) % PAGE == 0
    view[:] = b"x" * 10_000
    assert bytes(r.buffer) == b"x" * 10_000
    assert not r.pin()


def test_content_stays_where_nobody_takes_it(r: vrange.Range) -> None:
    r.mark_volatile()
    assert r.state == "volatile"
    if not EAGER:
        wait_offered(r._handle)
        assert r.state == "volatile"
    purged = r.pin()
    assert not purged
    assert purged.blocks == ()
    assert bytes(r.buffer) == CONTENT
    assert state_of(r) == "pinned"


def test_discarded_range_is_purged_until_refilled(r: vrange.Range) -> None:
    r.mark_volatile()
    r.discard()
    assert r.state == "purged"
    assert r.resident_bytes == 0
    assert not any(resident_pages(address_of(r._handle), r.nbytes))
    purged = r.pin()
    assert purged
    assert purged.blocks == ((0, 4 * PAGE),)
    assert r.state == "purged"
    assert bytes(r.buffer) == bytes(4 * PAGE)
    assert r.pin().blocks == ((0, 4 * PAGE),)
    r.mark_volatile()
    assert r.state == "purged"
    assert r.pin().blocks == ((0, 4 * PAGE),)
    r.buffer[:] = CONTENT
    assert r.pin()
    r.refilled()
    assert state_of(r) == "pinned"
    assert not r.pin()
    r.mark_volatile()
    assert state_of(r) == "volatile"
    assert not r.pin()
    assert bytes(r.buffer) == CONTENT


def test_kernel_takes_a_page_and_the_whole_range_is_purged(r: vrange.Range) -> None:
    r.mark_volatile()
    if lose(r._handle, PAGE, PAGE):
        assert r.state == "purged"
        assert r.pin().blocks == ((0, 4 * PAGE),)
        assert bytes(r.buffer) == bytes(4 * PAGE)
    else:
        assert not r.pin()
        assert bytes(r.buffer) == CONTENT


def test_kernel_takes_some_pages_and_partial_loses_only_them(r: vrange.Range) -> None:
    r.mark_volatile(partial=True)
    if not lose(r._handle, 0, PAGE):
        assert not r.pin()
        assert bytes(r.buffer) == CONTENT
        return
    lose(r._handle, 2 * PAGE, PAGE)
    assert r.state == "purged"
    assert r.pin().blocks == ((0, PAGE), (2 * PAGE, PAGE))
    kept = bytearray(CONTENT)
    kept[:PAGE] = kept[2 * PAGE : 3 * PAGE] = bytes(PAGE)
    assert bytes(r.buffer) == bytes(kept)
    # Sticky, and further losses are added.
    r.mark_volatile(partial=True)
    lose(r._handle, 3 * PAGE, PAGE)
    assert r.pin().blocks == ((0, PAGE), (2 * PAGE, 2 * PAGE))
    kept[3 * PAGE :] = bytes(PAGE)
    assert bytes(r.buffer) == bytes(kept)
    r.buffer[:] = CONTENT
    r.refilled()
    assert not r.pin()
    # Full again: one page lost is all lost, the sticky ones and the others.
    r.mark_volatile()
    lose(r._handle, PAGE, PAGE)
    assert r.pin().blocks == ((0, 4 * PAGE),)


def test_only_lost_pages_are_counted_as_lost(arena: vrange.Arena, r: vrange.Range) -> None:
    r.mark_volatile(partial=True)
    lost = lose(r._handle, PAGE, PAGE)
    assert bool(r.pin()) == lost
    assert arena.stats().purged_total_bytes == (PAGE if lost else 0)
    r.mark_volatile(partial=True)
    r.discard()
    assert r.pin().blocks == ((0, 4 * PAGE),)
    assert arena.stats().purged_total_bytes == (5 if lost else 4) * PAGE


def test_blocks_end_with_the_bytes_that_were_asked_for(arena: vrange.Arena) -> None:
    r = arena.allocate(2 * PAGE + 5)
    r.mark_volatile()
    r.discard()
    assert r.pin().blocks == ((0, 2 * PAGE + 5),)


def test_more_lost_blocks_than_are_listed_at_once(arena: vrange.Arena) -> None:
    pages = 1400
    r = arena.allocate(pages * PAGE)
    words = np.frombuffer(r.buffer, np.uint64)
    words[:] = np.arange(words.size)
    del words
    r.mark_volatile(partial=True)
    lost = [page for page in range(0, pages, 2) if lose(r._handle, page * PAGE, PAGE)]
    assert len(lost) == (0 if EAGER else pages / 2)
    assert r.pin().blocks == tuple((page * PAGE, PAGE) for page in lost)
    per_page = PAGE // 8
    words = np.frombuffer(r.buffer, np.uint64).reshape(pages, per_page)
    whole = np.arange(pages * per_page, dtype=np.uint64).reshape(pages, per_page)
    whole[lost] = 0
    assert (words == whole).all()


def test_views_keep_it_pinned_whatever_was_made_of_them(r: vrange.Range) -> None:
    makers: list[Callable[[Any], Any]] = [
        lambda view: view,
        lambda view: view[5:6],
        lambda view: np.frombuffer(view, np.uint32)[3:4],
        lambda view: memoryview(as_buffer(np.asarray(view).view("i2")[::7])),
        lambda view: ctypes.c_char.from_buffer(view, 8),
        lambda view: np.asarray(view).reshape(2, -1).T[4:5],
    ]
    for make in makers:
        view = make(r.buffer)
        gc.collect()
        for give_up in (r.mark_volatile, r.free):
            with pytest.raises(BufferError, match="views of this range are still alive"):
                give_up()
        with pytest.raises(ValueError, match="pinned: mark_volatile"):
            r.discard()
        assert r.state == "pinned"
        del view
        gc.collect()
        r.mark_volatile()
        assert not r.pin()


def test_failed_mark_volatile_leaves_full_and_partial_as_they_were(r: vrange.Range) -> None:
    view = r.buffer
    with pytest.raises(BufferError):
        r.mark_volatile(partial=True)
    view.release()
    r.mark_volatile()
    r.discard()
    assert r.pin().blocks == ((0, 4 * PAGE),)


def test_no_buffer_while_volatile(r: vrange.Range) -> None:
    r.mark_volatile()
    with pytest.raises(BufferError, match=r"pin\(\) it before"):
        _ = r.buffer
    with pytest.raises(ValueError, match=r"pin\(\) it and put the content back"):
        r.refilled()
    r.mark_volatile()  # once more changes nothing
    assert r.state == "volatile"


def test_pins_do_not_nest(r: vrange.Range) -> None:
    for _ in range(3):
        assert not r.pin()
    r.mark_volatile()
    assert r.state == "volatile"


def test_after_free_everything_is_a_value_error(arena: vrange.Arena, r: vrange.Range) -> None:
    r.free()
    r.free()
    assert r.state == "freed"
    assert r.resident_bytes == 0
    assert "freed" in repr(r)
    for use in (r.pin, r.mark_volatile, r.refilled, r.discard, lambda: r.buffer, r.__enter__):
        with pytest.raises(ValueError, match="the range was freed, or its arena closed"):
            use()
    again = arena.allocate(4 * PAGE)  # in the same place: the old handle must not reach it
    assert address_of(again._handle) != 0
    r.free()
    assert again.state == "pinned"
    assert bytes(again.buffer) == bytes(4 * PAGE)


def test_freed_volatile_and_purged(arena: vrange.Arena) -> None:
    for discarded in (False, True):
        r = arena.allocate(PAGE)
        r.buffer[:] = b"x" * PAGE
        r.mark_volatile()
        if discarded:
            r.discard()
        r.free()
        assert r.state == "freed"
    assert arena.stats().ranges == 0
    assert bytes(arena.allocate(2 * PAGE).buffer) == bytes(2 * PAGE)


def test_as_a_context_manager(arena: vrange.Arena) -> None:
    with arena.allocate(PAGE) as r:
        assert "4.0 KiB" in repr(r)
        assert "pinned" in repr(r)
    assert r.state == "freed"
    with pytest.raises(ValueError, match="inside"), arena.allocate(PAGE) as r:
        raise ValueError("inside")
    assert r.state == "freed"


def test_range_that_died_gives_its_place_back(arena: vrange.Arena) -> None:
    r = arena.allocate(arena.size)
    view = r.buffer[100:200]
    view[:] = b"y" * 100
    del r
    gc.collect()
    with pytest.raises(vrange.ArenaFullError):
        arena.allocate(PAGE)
    assert bytes(view) == b"y" * 100
    del view
    gc.collect()
    assert arena.allocate(arena.size).state == "pinned"


def test_resident_bytes_are_those_of_the_kernel(r: vrange.Range) -> None:
    assert r.resident_bytes == 4 * PAGE
    r.mark_volatile(partial=True)
    if EAGER:
        return
    lose(r._handle, PAGE, 2 * PAGE)
    assert r.resident_bytes == 2 * PAGE
    assert resident_pages(address_of(r._handle), r.nbytes) == [True, False, False, True]


def test_pin_is_safe_from_many_threads(r: vrange.Range) -> None:
    for _ in range(200):
        r.mark_volatile()
        barrier = threading.Barrier(4)
        found: list[vrange.Purged] = []

        def pin(barrier: threading.Barrier = barrier, found: list[vrange.Purged] = found) -> None:
            barrier.wait()
            found.append(r.pin())

        threads = [threading.Thread(target=pin) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 4
        assert not any(found)
        assert bytes(r.buffer) == CONTENT


def test_the_loss_these_tests_make_is_one() -> None:
    """Without a pin the content is gone: who would read it all the same reads something else."""
    code = """
    import ctypes
    from support import *
    vrange.set_reserve("1GiB", tick=0.001)
    arena = vrange.Arena("1MiB")
    r = arena.allocate(PAGE)
    r.buffer[:] = b"x" * PAGE
    r.mark_volatile()
    if EAGER:
        page_out(address_of(r._handle), PAGE)
    else:
        lose(r._handle)
    print(ctypes.string_at(address_of(r._handle), 4))
    """
    done = python(code)
    if RUNG == "refault":
        assert done.returncode == -7, done.stderr  # SIGBUS
    else:
        assert done.stdout.strip() == {"sentinel": repr(bytes(4)), "eager": "b'xxxx'"}[RUNG]


def test_native_handles_of_nothing() -> None:
    for handle in (0, 1 << 31, (1 << 32) - 1, (1 << 64) - 1, 0xFFFFFFF << 32):
        assert lib.vrange_pin(handle) == lib.VRANGE_GONE
        assert lib.vrange_pin_whole(handle) == lib.VRANGE_GONE
        assert lib.vrange_release(handle) == lib.VRANGE_GONE
        assert lib.vrange_free(handle) == lib.VRANGE_GONE
        assert lib.vrange_discard(handle) == lib.VRANGE_GONE
        assert lib.vrange_refilled(handle) == lib.VRANGE_GONE
        assert lib.vrange_set_partial(handle, 1) == lib.VRANGE_GONE
        assert lib.vrange_state(handle) == lib.VRANGE_STATE_FREED
        assert lib.vrange_uses(handle) == 0


def ndarray_over(range_: vrange.Range) -> np.ndarray:
    """An array by NumPy's constructor, which keeps a reference and no view."""
    return np.ndarray((range_.nbytes,), "u1", buffer=range_.buffer)


def test_an_array_that_keeps_only_a_reference_is_a_view(arena: vrange.Arena) -> None:
    r = arena.allocate(MIB)
    array = ndarray_over(r)
    array[:] = 7
    for refused in (r.mark_volatile, r.free):
        with pytest.raises(BufferError, match="still alive"):
            refused()
    part = array[10:20]
    del array
    with pytest.raises(BufferError, match="still alive"):
        r.mark_volatile()
    del part
    r.mark_volatile()
    assert r.state in ("volatile", "purged")


def test_later_is_when_the_last_view_dies(arena: vrange.Arena) -> None:
    r = arena.allocate(MIB)
    array = ndarray_over(r)
    array[:] = 7
    r.mark_volatile(later=True)
    assert r.state == "pinned"
    arena.discard(MIB)
    assert (array == 7).all()
    assert not r.pin()  # once more, while the array holds its own pin
    r.mark_volatile(later=True)
    assert (array == 7).all()
    del array
    assert arena.discard(MIB) == MIB
    assert r.pin().blocks


def test_arrays_outlive_their_arena() -> None:
    with vrange.Arena("16MiB") as arena:
        array = ndarray_over(arena.allocate(MIB))
        array[:] = 7
    assert (array == 7).all()


def test_a_stored_range_has_the_parts(arena: vrange.Arena) -> None:
    parts: list[Any] = [b"ab", bytearray(b""), memoryview(bytes(100_000)), b"c"]
    r = arena.store(parts, cost=0.5)
    assert bytes(r.buffer) == b"".join(parts)
    assert r.nbytes == 100_003
    r.mark_volatile()
    assert arena.discard("1GiB") == 102_400
    assert arena.discard(1) == 0
    with pytest.raises(ValueError, match="at least 1 byte"):
        arena.store([b"", b""])
    with pytest.raises(ValueError, match="negative"):
        arena.store([b"x"], cost=-1.0)
    with pytest.raises(vrange.ArenaFullError):
        arena.store([bytes(arena.size + 1)])
    arena.close()
    with pytest.raises(ValueError, match="closed"):
        arena.store([b"x"])
    with pytest.raises(ValueError, match="closed"):
        arena.discard(1)
