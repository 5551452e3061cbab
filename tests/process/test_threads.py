"""Threads that pin and read, word by word, while others make the kernel take what it may.

Each thread works until it has done enough or a bound in seconds is over; nothing depends on speed.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from support import EAGER, PAGE, RUNG, address_of, page_out, python
from workers import switching_every

import vrange
from vrange._core import ffi, lib

Cache = vrange.VolatileCache[Any, Any]

SECONDS = 1.5
AT_MOST = 40.0
WORDS = 16 * PAGE // 8


@pytest.fixture(autouse=True)
def _switch_often() -> Iterator[None]:
    with switching_every(1e-4):
        yield


def run_together(
    *workers: Callable[[int], object],
    seconds: float = SECONDS,
    enough: Callable[[], bool] = lambda: True,
) -> None:
    """Calls each with 0, 1, 2, … in a thread of its own, for some seconds and until it is enough.

    A machine that does something else too may need longer: that is no failure before `AT_MOST`.
    """
    stop = threading.Event()
    errors: list[BaseException] = []

    def loop(place: int) -> None:
        try:
            for turn in itertools.count():
                if stop.is_set():
                    return
                workers[place](turn)
        except BaseException as error:
            errors.append(error)
            stop.set()

    threads = [threading.Thread(target=loop, args=(n,), daemon=True) for n in range(len(workers))]
    for thread in threads:
        thread.start()
    stop.wait(seconds)
    deadline = time.monotonic() + AT_MOST
    while not stop.is_set() and not enough() and time.monotonic() < deadline:
        stop.wait(0.05)
    stop.set()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive(), "it hangs"
    if errors:
        raise errors[0]


def stamped(key: int) -> np.ndarray[Any, Any]:
    return np.arange(key * 1_000_000, key * 1_000_000 + WORDS, dtype=np.uint64)


def taker(cache: Cache) -> Callable[[int], None]:
    """Asks the kernel for the pages of any range, whatever its state."""

    def take(turn: int) -> None:
        handles = sorted(cache._core.handles(None))
        if not handles:
            time.sleep(0.001)
            return
        info = ffi.new("vrange_range_info *")
        for handle in random.sample(handles, min(8, len(handles))):
            address = lib.vrange_address(handle)
            if address != ffi.NULL and lib.vrange_range_read(handle, info) == lib.VRANGE_OK:
                page_out(int(ffi.cast("uintptr_t", address)) + turn % 16 * PAGE, PAGE)

    return take


def test_held_arrays_keep_every_word_while_the_kernel_takes(cache: Cache) -> None:
    keys = 60
    seen = {"purged": 0, "kept": 0}

    def read(turn: int) -> None:
        key = turn * 7 % keys
        value = cache.get(key)
        if value is None:
            seen["purged"] += 1
            value = cache.get_or_compute(key, lambda: stamped(key))
        else:
            seen["kept"] += 1
        wanted = stamped(key)
        for _ in range(3):
            assert (value == wanted).all()

    run_together(
        read,
        read,
        taker(cache),
        seconds=2.5,
        enough=lambda: seen["kept"] > 0 and (EAGER or seen["purged"] > keys),
    )
    assert seen["kept"] > 0
    if not EAGER:
        assert seen["purged"] > keys, "nothing was ever taken: this proves nothing"
        assert cache.info().purged_total_bytes > 0


def test_discarding_everything_over_and_over(cache: Cache) -> None:
    keys = 30

    def read(turn: int) -> None:
        key = turn * 7 % keys
        value = cache.get_or_compute(key, lambda: stamped(key))
        assert (value == stamped(key)).all()
        small = cache.get_or_compute(("small", key), lambda: b"%d" % key * 20)
        assert small == b"%d" % key * 20

    def discard(turn: int) -> None:
        cache.discard()

    def enough() -> bool:
        info = cache.info()
        return info.purged > 0 and info.regenerated > keys

    run_together(read, read, discard, enough=enough)
    info = cache.info()
    assert info.purged > 0
    assert info.purged + info.misses >= info.regenerated > keys


def test_overwriting_deleting_and_reading_small_values(cache: Cache) -> None:
    def write(turn: int) -> None:
        key = turn % 200
        cache[key] = b"%d:" % key + b"%d" % turn * (turn % 90)

    def delete(turn: int) -> None:
        cache.pop(turn * 3 % 200, None)

    def read(turn: int) -> None:
        key = turn * 7 % 200
        value = cache.get(key)
        assert value is None or value.startswith(b"%d:" % key), (key, value)

    run_together(write, write, delete, read, read)
    cache.clear()
    assert cache._account.read().ranges == 0


def test_a_hot_front_shared_by_threads() -> None:
    with Cache(hot_bytes="200KiB", arena_bytes="64MiB") as cache:

        def use(turn: int) -> None:
            key = turn * 7 % 40
            value = cache.get_or_compute(key, lambda: stamped(key)[: PAGE // 4])
            assert value[0] == key * 1_000_000

        def discard(turn: int) -> None:
            cache.discard(turn % 40)

        run_together(use, use, use, discard)
        info = cache.info()
        assert info.hot_bytes <= 200 << 10
        cache._core.check()


def keeping_errors(errors: list[BaseException], call: Callable[[int], None], place: int) -> None:
    try:
        call(place)
    except BaseException as error:
        errors.append(error)


def test_closing_while_others_store_and_ask() -> None:
    for _ in range(40):
        cache = Cache(arena_bytes="4MiB", hot_bytes="100KiB")
        cache["k"] = 1
        errors: list[BaseException] = []
        begin = threading.Barrier(4)

        def use(place: int, cache: Cache = cache, begin: threading.Barrier = begin) -> None:
            begin.wait()
            for n in range(1_000_000):
                cache[place, n % 5] = bytes(6000) if n % 2 else b"small"
                cache.get((place, 3))
                cache.get_or_compute(n % 7, lambda: np.zeros(PAGE))
                cache.discard((place, 1))
                len(cache)

        threads = [
            threading.Thread(target=keeping_errors, args=(errors, use, place)) for place in range(3)
        ]
        for thread in threads:
            thread.start()
        begin.wait()
        cache.close()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
        assert {type(error) for error in errors} == {ValueError}, errors
        assert all("is closed" in str(error) for error in errors)
        assert cache._account.read().ranges == 0


def test_a_full_arena_always_finds_room_where_nobody_holds_it() -> None:
    vrange.set_reserve("8GiB", tick=0.0001)
    try:
        for _ in range(30):
            with Cache(arena_bytes="4MiB", hot_bytes=0) as cache:
                held = [cache.get_or_compute(n, lambda: np.zeros(131_072)) for n in range(3)]
                for n in range(3, 60):
                    cache[n] = np.full(300_000, n, np.uint8)
                assert all(not array.any() for array in held)
    finally:
        vrange.set_reserve("8GiB", tick=0.001)


def test_ranges_are_freed_and_closed_while_the_reserve_works() -> None:
    def churn(turn: int) -> None:
        arena = vrange.Arena("2MiB")
        ranges = [arena.allocate(PAGE * (n % 5 + 1)) for n in range(40)]
        for r in ranges:
            r.buffer[:4] = b"here"
            r.mark_volatile()
        for r in ranges[::2]:
            r.free()
        for r in ranges[1::4]:
            assert r.pin() or bytes(r.buffer[:4]) == b"here"
        if turn % 2:
            arena.close()

    def close_last(turn: int) -> None:
        """The last range goes in one thread while the arena is closed in another."""
        arena = vrange.Arena("1MiB")
        view = arena.allocate(PAGE).buffer
        thread = threading.Thread(target=view.release)
        thread.start()
        arena.close()
        thread.join()

    run_together(churn, churn, close_last)


def test_pins_of_many_threads_on_one_range(arena: vrange.Arena) -> None:
    """By the native interface, where pins nest: content is whole as long as any is there."""
    ranges = [arena.allocate(WORDS * 8) for _ in range(4)]
    for n, r in enumerate(ranges):
        np.frombuffer(r.buffer, np.uint64)[:] = stamped(n)
    handles = [r._handle for r in ranges]
    for r in ranges:
        r.mark_volatile()
    locks = [threading.Lock() for _ in ranges]
    lost = [0]

    def use(turn: int) -> None:
        place = turn % 4
        handle = handles[place]
        result = lib.vrange_pin(handle)
        assert result in (lib.VRANGE_OK, lib.VRANGE_PURGED)
        words = np.frombuffer(ffi.buffer(lib.vrange_address(handle), WORDS * 8), np.uint64)
        if result == lib.VRANGE_OK:
            assert (words == stamped(place)).all()
        elif locks[place].acquire(blocking=False):
            lost[0] += 1
            if lib.vrange_pin(handle) == lib.VRANGE_PURGED:
                words[:] = stamped(place)
                assert lib.vrange_refilled(handle) == lib.VRANGE_OK
            lib.vrange_release(handle)
            locks[place].release()
        assert lib.vrange_release(handle) == lib.VRANGE_OK

    def take(turn: int) -> None:
        for handle in handles:
            page_out(address_of(handle), WORDS * 8)
        if turn % 50 == 0:
            lib.vrange_discard(handles[turn // 50 % 4])

    run_together(use, use, use, take, enough=lambda: lost[0] > 0)
    assert lost[0] > 0
    info = ffi.new("vrange_range_info *")
    for handle in handles:
        lib.vrange_range_read(handle, info)
        assert info.pins == 0


CONTROL = """
import ctypes, time
from support import *
vrange.set_reserve("1GiB", tick=0.001)
cache = vrange.VolatileCache(arena_bytes="64MiB", hot_bytes=0)
import numpy as np
for key in range(50):
    cache[key] = np.full(8 * PAGE, 7, np.uint8)
handles = sorted(cache._core.handles(None))
deadline = time.monotonic() + (0.5 if EAGER else 20)
while time.monotonic() < deadline:
    for handle in handles:
        address = address_of(handle)
        if lib.vrange_state(handle) == lib.VRANGE_STATE_OFFERED:
            take(address, 8 * PAGE)
        # A read taken for a pin, of a word that nobody keeps aside.
        word = ctypes.string_at(address + 64, 8)
        if word != bytes([7]) * 8:
            print("lost", word)
            raise SystemExit
"""


def test_the_control_sees_a_loss_where_a_read_is_taken_for_a_pin() -> None:
    """Without a pin the same harness finds content gone: so it would see it above."""
    done = python(CONTROL)
    if RUNG == "refault":
        assert done.returncode == -7, (done.stdout, done.stderr)  # SIGBUS
    elif RUNG == "sentinel":
        assert done.stdout.startswith("lost"), done.stderr
    else:
        assert (done.stdout, done.returncode) == ("", 0), "the eager rung leaves the kernel nothing"
