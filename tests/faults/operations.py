"""What is tried while a system call or an allocation fails: vrange's main operations.

Each is a function that gets a `World`, which was used before, or None where nothing of vrange was
used yet. It returns a function that checks what it got: the check runs when nothing fails any more.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import vrange

KEYS = 12
LARGE = 5000  # of int64: ten pages
ELEMENTS = 1 << 14
DEEP = 4000

Check = Callable[[], None]


def value_of(key: int) -> np.ndarray[Any, Any]:
    return np.full(LARGE, key)


def small_of(key: int) -> str:
    return f"small {key} " * 20


def expect(found: Any, wanted: Any, what: str) -> None:
    assert np.array_equal(found, wanted), f"{what} is wrong"


def nested(levels: int) -> int:
    return levels and 1 + nested(levels - 1)


class World:
    """Caches, arrays and an arena that were used before."""

    def __init__(self) -> None:
        self.file = Path(tempfile.gettempdir()) / f"vrange-faults-{os.getpid()}"
        self.cache: vrange.VolatileCache[Any, Any] = vrange.VolatileCache(
            name="faults", hot_bytes=0
        )
        self.decorated = vrange.cached(value_of)
        for key in range(KEYS):
            self.cache[key] = value_of(key)
            self.cache["s", key] = small_of(key)
            self.decorated(key)
        self.arena = vrange.Arena("8MiB", name="faults")
        self.range = self.arena.allocate(4 * 4096)
        self.range.buffer[:] = b"x" * len(self.range.buffer)
        self.array = None
        if vrange.capabilities().rung == "refault":
            self.array = vrange.VolatileArray(
                ELEMENTS, "u8", fill=vrange.fills.pattern(7), block_bytes="16KiB"
            )
            self.array.discard()
        vrange.deep_call(nested, DEEP)

    def works(self) -> None:
        """Look whether everything works now that nothing fails."""
        for key in range(KEYS + 1):
            found = self.cache.get_or_compute(key, partial(value_of, key))
            expect(found, value_of(key), f"the value of {key}")
            small = self.cache.get_or_compute(("s", key), partial(small_of, key))
            assert small == small_of(key), f"the small value of {key} is wrong"
            expect(self.decorated(key), value_of(key), f"the call of {key}")
        del found
        self.cache.discard()
        assert self.cache.info().pinned_bytes == 0, "a pin stayed"
        expect(self.cache.get_or_compute(1, lambda: value_of(1)), value_of(1), "a purged value")
        if self.array is not None:
            with self.array.pin() as view:
                expect(view, np.full(ELEMENTS, 7), "the array")
        assert vrange.deep_call(nested, DEEP) == DEEP


def first_store(world: World | None) -> Check:
    cache: vrange.VolatileCache[Any, Any] = vrange.VolatileCache(hot_bytes=0)
    cache[1] = value_of(1)
    found = cache.get(1)

    def check() -> None:
        if found is not None:
            expect(found, value_of(1), "the value")

    return check


def first_array(world: World | None) -> Check:
    array = vrange.VolatileArray(ELEMENTS, "u8", fill=vrange.fills.pattern(7))
    return lambda: expect(np.asarray(array), np.full(ELEMENTS, 7), "the array")


def first_deep_call(world: World | None) -> Check:
    found = vrange.deep_call(nested, DEEP)
    return lambda: expect(found, DEEP, "the depth")


def store(world: World) -> Check:
    world.cache[KEYS] = value_of(KEYS)
    world.cache["s", KEYS] = small_of(KEYS)
    found = world.cache.get(KEYS)

    def check() -> None:
        if found is not None:
            expect(found, value_of(KEYS), "the value")

    return check


def hit(world: World) -> Check:
    found = [world.cache.get(key) for key in range(KEYS)]
    small = [world.cache.get(("s", key)) for key in range(KEYS)]

    def check() -> None:
        for key in range(KEYS):
            if found[key] is not None:
                expect(found[key], value_of(key), f"the value of {key}")
            assert small[key] in (None, small_of(key)), f"the small value of {key} is wrong"
        found.clear()

    return check


def recompute(world: World) -> Check:
    world.cache.discard()
    found = world.cache.get_or_compute(3, lambda: value_of(3))

    def check() -> None:
        nonlocal found
        expect(found, value_of(3), "the value")
        found = None

    return check


def call(world: World) -> Check:
    found = [world.decorated(2), world.decorated(KEYS)]

    def check() -> None:
        expect(found[0], value_of(2), "the call of 2")
        expect(found[1], value_of(KEYS), "the new call")
        found.clear()

    return check


def mapping(world: World) -> Check:
    del world.cache[4]
    other = vrange.VolatileCache[Any, Any](name="another", hot_bytes=0)
    other.update({n: value_of(n) for n in range(3)})
    count = len(list(other))
    other.clear()
    other.close()
    return lambda: expect(count <= 3, True, "the count")


def ranges(world: World) -> Check:
    world.range.mark_volatile()
    lost = bool(world.range.pin())
    content = bytes(world.range.buffer)
    if lost:
        world.range.refilled()
    more = world.arena.allocate(1 << 20)
    more.free()
    return lambda: expect(lost or content == b"x" * len(content), True, "the range")


def array_pin(world: World) -> Check:
    if world.array is None:
        return lambda: None
    world.array.discard()
    with world.array.pin() as view:
        copy = view.copy()
    return lambda: expect(copy, np.full(ELEMENTS, 7), "the array")


def array_touch(world: World) -> Check:
    if world.array is None:
        return lambda: None
    world.array.discard()
    copy = np.asarray(world.array).copy()
    return lambda: expect(copy, np.full(ELEMENTS, 7), "the array")


def deep_call(world: World) -> Check:
    found = vrange.deep_call(nested, 4 * DEEP)
    return lambda: expect(found, 4 * DEEP, "the depth")


def heap(world: World) -> Check:
    vrange.heap.use_for_numpy()
    ones = np.ones(1 << 18)
    twos = ones * 2
    del ones
    vrange.heap.trim(deep=True)
    return lambda: expect(twos.sum(), 2 << 18, "the array on the heap")


def limits(world: World) -> Check:
    vrange.memory_limit()
    vrange.set_limit("8GiB", measure="rss")
    vrange.set_limit(None, measure="rss")
    vrange.set_reserve("32MiB")
    return lambda: None


def watch(world: World) -> Check:
    with vrange.pressure.watch() as watcher:
        level = watcher.level
    return lambda: expect(bool(str(level)), True, "the level")


def fork(world: World) -> Check:
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            found = world.cache.get_or_compute(3, lambda: value_of(3))
            status = 0 if np.array_equal(found, value_of(3)) else 3
        except (vrange.VrangeError, OSError, MemoryError):
            status = 0
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    # -6: the child can't tell lost content from zeros, says so and ends.
    return lambda: expect(status in (0, -6), True, f"the child's status {status}")


FRESH: dict[str, Callable[[Any], Check]] = {
    "first store": first_store,
    "first array": first_array,
    "first deep call": first_deep_call,
}
USED: dict[str, Callable[[Any], Check]] = {
    "store": store,
    "hit": hit,
    "recompute": recompute,
    "call": call,
    "mapping": mapping,
    "ranges": ranges,
    "array pin": array_pin,
    "array touch": array_touch,
    "deep call": deep_call,
    "heap": heap,
    "limits": limits,
    "watch": watch,
    "fork": fork,
}
OPERATIONS = FRESH | USED
# Those whose Python allocations are vrange's own. The first use imports modules, and NumPy 2.4
# itself crashes if memory fails while it makes an array's interface, which a pin asks for.
OF_VALUES = {
    name: USED[name] for name in ("store", "hit", "recompute", "call", "mapping", "ranges")
}
