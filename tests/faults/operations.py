"""What is tried while a system call or an allocation fails: vrange's main operations.

Each is a function that gets a `World`, which was used before, or None where nothing of vrange was
used yet. It returns a function that checks what it got: the check runs when nothing fails any more.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import tempfile
import threading
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


def shared_name() -> str:
    return f"faults-{os.getpid()}"


class Peer:
    """A forked child that shares a cache with the world, and lives as long as the world."""

    def __init__(self, name: str) -> None:
        ready, self._ends = os.pipe(), os.pipe()
        if os.fork() == 0:
            os.close(self._ends[1])
            cache: vrange.VolatileCache[Any, Any] = vrange.VolatileCache(shared=name)
            for key in range(KEYS):
                cache["p", key] = value_of(key)
            os.write(ready[1], b"x")
            os.read(self._ends[0], 1)
            os._exit(0)
        os.close(self._ends[0])
        os.close(ready[1])
        os.read(ready[0], 1)
        os.close(ready[0])


class World:
    """Caches, arrays and an arena that were used before."""

    def __init__(self, name: str = "") -> None:
        self.shared: vrange.VolatileCache[Any, Any] | None = None
        if "shared" in name:
            self.peer = Peer(shared_name())
            self.shared = vrange.VolatileCache(shared=shared_name())
            for key in range(KEYS):
                self.shared[key] = value_of(key)
                self.shared["s", key] = small_of(key)
        self.directory = None
        if "below" in name:
            self.directory = tempfile.mkdtemp()
            self.below = vrange.VolatileCache[Any, Any](
                name="below", below=self.directory, hot_bytes=0
            )
            for key in range(KEYS):
                self.below[key] = small_of(key)
        self.file = Path(tempfile.gettempdir()) / f"vrange-faults-{os.getpid()}"
        self.cache: vrange.VolatileCache[Any, Any] = vrange.VolatileCache(
            name="faults", hot_bytes=0
        )
        self.decorated = vrange.cached(hot_bytes=0)(value_of)
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
        # Modules are imported before anything fails: import itself may then never return.
        if "invalidate" in name:
            self.tagged = vrange.VolatileCache[Any, Any](tags=True, hot_bytes=0)
            self.tagged.set("of a tag", value_of(1), tags="tag")
            self.tagged.discard_tag("tag")
        if "resize" in name:
            vrange.heap.use_for_numpy()
        self.registry: Any = None
        if "scrape" in name and importlib.util.find_spec("prometheus_client"):
            from prometheus_client import CollectorRegistry, generate_latest

            self.registry, self.generate = CollectorRegistry(), generate_latest
            vrange.metrics.register(self.registry)
            self.generate(self.registry)
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
        assert self.decorated.cache_info().pinned_bytes == 0, "a pin of a call stayed"
        expect(self.cache.get_or_compute(1, lambda: value_of(1)), value_of(1), "a purged value")
        if self.array is not None:
            with self.array.pin() as view:
                expect(view, np.full(ELEMENTS, 7), "the array")
        assert vrange.deep_call(nested, DEEP) == DEEP
        if self.shared is not None:
            for key in range(KEYS + 1):
                found = self.shared.get_or_compute(key, partial(value_of, key))
                expect(found, value_of(key), f"the shared value of {key}")
                small = self.shared.get_or_compute(("s", key), partial(small_of, key))
                assert small == small_of(key), f"the small shared value of {key} is wrong"
        if self.directory is not None:
            for key in range(KEYS + 1):
                small = self.below.get_or_compute(key, partial(small_of, key))
                assert small == small_of(key), f"the value of {key} below is wrong"


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


def first_shared(world: World | None) -> Check:
    cache: vrange.VolatileCache[Any, Any] = vrange.VolatileCache(shared=shared_name())
    cache[1] = value_of(1)
    found = cache.get(1)
    cache.close()

    def check() -> None:
        if found is not None:
            expect(found, value_of(1), "the value")

    return check


def shared_hit(world: World) -> Check:
    assert world.shared is not None
    found: dict[Any, Any] = {key: world.shared.get(key) for key in range(KEYS)}
    found |= {("p", key): world.shared.get(("p", key)) for key in range(KEYS)}
    small = [world.shared.get(("s", key)) for key in range(KEYS)]

    def check() -> None:
        for key, value in found.items():
            if value is not None:
                wanted = value_of(key[1] if isinstance(key, tuple) else key)
                expect(value, wanted, f"the shared value of {key}")
        for key in range(KEYS):
            assert small[key] in (None, small_of(key)), f"the shared small {key} is wrong"
        found.clear()

    return check


def shared_store(world: World) -> Check:
    assert world.shared is not None
    world.shared[KEYS] = value_of(KEYS)
    world.shared["s", KEYS] = small_of(KEYS)
    computed = world.shared.get_or_compute("new", lambda: value_of(99))
    world.shared.pop(3, None)
    gone = world.shared.get(3)

    def check() -> None:
        expect(computed, value_of(99), "the computed value")
        assert gone is None, "a removed key is found"

    return check


def below_hit(world: World) -> Check:
    world.below.discard()
    found = [world.below.get(key) for key in range(KEYS)]

    def check() -> None:
        for key in range(KEYS):
            assert found[key] in (None, small_of(key)), f"the value of {key} below is wrong"

    return check


def below_store(world: World) -> Check:
    world.below[KEYS] = small_of(KEYS)
    computed = world.below.get_or_compute("new", lambda: small_of(99))
    return lambda: expect(computed, small_of(99), "the computed value")


def in_a_task(world: World) -> Check:
    async def compute() -> Any:
        await asyncio.sleep(0)
        return value_of(KEYS)

    async def use() -> Any:
        return await world.cache.get_or_compute_async("task", compute)

    found = asyncio.run(use())
    return lambda: expect(found, value_of(KEYS), "the value of a task")


def clear(world: World) -> Check:
    world.cache.clear()
    world.decorated.cache_clear()
    left = len(world.cache)
    return lambda: expect(left, 0, "the count")


def another_array(world: World) -> Check:
    if world.array is None:
        return lambda: None
    other = vrange.VolatileArray(ELEMENTS, "u8", fill=vrange.fills.zero())
    with other.pin() as view:
        zeros = view.copy()
    other.close()
    return lambda: expect(zeros, np.zeros(ELEMENTS), "the new array")


def arena(world: World) -> Check:
    with vrange.Arena("4MiB", name="one more") as one:
        part = one.allocate(64 << 10)
        part.buffer[:8] = b"whatever"
        part.mark_volatile()
        part.discard()
        lost = bool(part.pin())
        part.refilled()
        part.free()
    return lambda: expect(lost, True, "what was discarded")


def stacks(world: World) -> Check:
    def in_thread() -> None:
        vrange.deep_call(nested, DEEP)
        vrange.trim_stack()
        found.append(nested(10))

    found: list[int] = []
    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    vrange.trim_idle_stacks()
    return lambda: expect(found in ([], [10]), True, "the depth")


def figures(world: World) -> Check:
    told = (str(vrange.stats()), repr(world.cache.info()), str(vrange.capabilities()))
    return lambda: expect(all(told), True, "the figures")


def pins(world: World) -> Check:
    held = [world.decorated(2), world.cache.get(3), world.cache.get_or_compute(4, lambda: None)]
    parts = [array[10:] for array in held if array is not None]
    del held

    def check() -> None:
        for part in parts:
            assert part[0] in (2, 3, 4), "what is held is wrong"
            expect(part, np.full(LARGE - 10, part[0]), "what is held")
        world.cache.discard()
        for part in parts:
            expect(part, np.full(LARGE - 10, part[0]), "what is held while others go")
        parts.clear()

    return check


def invalidate(world: World) -> Check:
    world.decorated.cache_discard(5)
    popped = world.cache.pop(5, None)
    world.tagged.set("of a tag", value_of(1), tags="tag")
    world.tagged.discard_tag("tag")
    left = world.tagged.get("of a tag")

    def check() -> None:
        nonlocal popped
        if popped is not None:
            expect(popped, value_of(5), "the popped value")
        popped = None
        assert left is None, "a value stayed when its tag went"

    return check


def resize(world: World) -> Check:
    grown, shrunk = np.ones(1 << 15), np.ones(1 << 15)
    grown.resize(1 << 17, refcheck=False)
    shrunk.resize(1 << 14, refcheck=False)
    return lambda: expect([grown.sum(), shrunk.sum()], [1 << 15, 1 << 14], "the resized arrays")


def scrape(world: World) -> Check:
    text = b"".join(vrange_text(world))
    return lambda: expect(b"vrange_bytes" in text, True, "what Prometheus reads")


def vrange_text(world: World) -> list[bytes]:
    return [world.generate(world.registry)] if world.registry else [b"vrange_bytes"]


FRESH: dict[str, Callable[[Any], Check]] = {
    "first store": first_store,
    "first array": first_array,
    "first deep call": first_deep_call,
    "first shared": first_shared,
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
    "shared hit": shared_hit,
    "shared store": shared_store,
    "below hit": below_hit,
    "below store": below_store,
    "in a task": in_a_task,
    "clear": clear,
    "another array": another_array,
    "arena": arena,
    "stacks": stacks,
    "figures": figures,
    "pins": pins,
    "invalidate": invalidate,
    "resize": resize,
    "scrape": scrape,
}
OPERATIONS = FRESH | USED
# Those whose Python allocations are vrange's own. The first use imports modules, and NumPy 2.4
# itself crashes if memory fails while it makes an array's interface, which a pin asks for. NumPy's
# dtype.__reduce__, asyncio and enum end in SystemError or keep the answer, so a shared store, a
# watcher and a task are left out, too. fork ends the child in CPython's words where its locks get
# no memory, and a scrape has as many places as the Prometheus client allocates.
OF_VALUES = {
    name: USED[name] for name in ("store", "hit", "recompute", "call", "mapping", "ranges")
}
ALLOCATING = OF_VALUES | {
    name: USED[name]
    for name in (
        *("shared hit", "below hit", "below store", "stacks", "arena", "clear", "another array"),
        *("figures", "limits", "pins", "invalidate", "resize", "deep call"),
    )
}
