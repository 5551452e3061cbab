"""The address space that vrange reserves: one budget, and what it leaves to the program."""

from __future__ import annotations

import resource
from collections.abc import Callable

import pytest
from support import succeeds

GIB = 1 << 30

MEASURE = """
import functools, mmap, os, resource, sys
import numpy as np, vrange
from vrange._core import ffi, lib

def space():
    now = ffi.new("vrange_address_space *")
    lib.vrange_address_space_read(now)
    return now

def size():
    return int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()

def mappings():
    return len(open("/proc/self/maps").read().splitlines())

def fits(nbytes):
    mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()

def flags_at(address):
    inside = False
    for line in open("/proc/self/smaps"):
        if line[0] in "0123456789abcdef" and "-" in line.split()[0]:
            low, high = (int(text, 16) for text in line.split()[0].split("-"))
            inside = low <= address < high
        elif inside and line.startswith("VmFlags:"):
            return line.split()[1:]

def address_of(array):
    return array.__array_interface__["data"][0]
"""


def limited(name: int, nbytes: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(name, (nbytes, nbytes))


def test_thousands_of_caches_reserve_what_they_use() -> None:
    succeeds(
        MEASURE
        + """
before, maps_before, size_before = space().own_bytes, mappings(), size()
caches = [vrange.VolatileCache(hot_bytes=0) for _ in range(3000)]
for number, cache in enumerate(caches):
    cache["key"] = number
assert sum(cache.get("key") == number for number, cache in enumerate(caches)) > 2000
assert size() - size_before < 3 << 30, size() - size_before
assert mappings() - maps_before < 1500, mappings() - maps_before
assert space().own_bytes - before >= 3000 * (64 << 10)
kept = space().own_bytes
for cache in caches:
    cache.close()
assert kept - space().own_bytes >= 3000 * (64 << 10)
"""
    )


def test_a_cache_grows_in_steps() -> None:
    succeeds(
        MEASURE
        + """
with vrange.VolatileCache(hot_bytes=0) as cache:
    cache["small"] = 1
    assert cache._account.read().reserved_bytes <= 1 << 20
    for number in range(200):
        cache[number] = np.full(250_000, number % 251, np.uint8)
    reserved = cache._account.read().reserved_bytes
    assert 50_000_000 <= reserved <= 200_000_000, reserved
    for number in range(200):
        found = cache.get(number)
        assert found is None or (found == number % 251).all()
    del found
    cache["large"] = np.ones(100_000_000, np.uint8)
    assert cache["large"].all()
"""
    )


@pytest.mark.parametrize("limit", [GIB, 4 * GIB])
def test_under_a_limit_all_of_vrange_has_an_eighth(limit: int) -> None:
    told = succeeds(
        MEASURE
        + """
limit = resource.getrlimit(resource.RLIMIT_AS)[0]
# Below the refault rung, vrange's thread allocates: glibc reserves 64 MiB for it.
more = (16 if vrange.capabilities().rung == "refault" else 80) << 20
start = size()
def check(what, besides=0):
    assert space().own_bytes <= limit // 8, (what, space().own_bytes)
    assert size() - start - besides < limit // 8 + more, (what, size() - start)
    fits(limit // 2)

functions = [vrange.cached(lambda x: x) for _ in range(50)]
for function in functions:
    assert function(1) == 1
check("small caches")
cache = vrange.VolatileCache(hot_bytes=0)
for number in range(limit // 100_000 // 4):
    value = np.full(100_000, number % 251, np.uint8)
    assert (cache.get_or_compute(number, lambda: value) == value).all()
check("a cache that is full")
entries = len(cache)
assert entries > 10 and cache.info().evicted_bytes > 0 and cache.info().refused == 0
large = np.ones(limit // 10, np.uint8)
assert cache.get_or_compute("large", lambda: large).all()
assert cache.info().refused == 1 and len(cache) >= entries - 1, "others went for it"
del large
check("a value that finds no place")

@functools.cache
def deep(n):
    return 0 if n == 0 else 1 + deep(n - 1)
assert vrange.deep_call(deep, 10_000) == 10_000
deep.cache_clear()
vrange.heap.use_for_numpy()
arrays = [np.ones(100_000) for _ in range(20)]
assert all(array.all() for array in arrays)
del arrays
is_eager = vrange.capabilities().rung != "refault"
array = vrange.VolatileArray((1000,), "u1", fill=vrange.fills.zero(), eager=is_eager)
assert array[5] == 0
fresh = vrange.VolatileCache(hot_bytes=0)
fresh["key"] = b"v" * 50_000
assert fresh["key"] == b"v" * 50_000, "another cache can begin"
check("all of it", besides=32 << 20)
cache.close()
assert space().own_bytes < limit // 8
try:
    vrange.Arena("1TiB", name="large")
except vrange.ArenaFullError as error:
    print(error)
""",
        prepare=limited(resource.RLIMIT_AS, limit),
    )
    assert (
        "1.0 TiB of address space for 'large' can't be reserved: RLIMIT_AS (ulimit -v) is" in told
    )
    assert "GiB, of which" in told
    assert "are left" in told


def test_under_a_limit_of_data_too() -> None:
    succeeds(
        MEASURE
        + """
limit = resource.getrlimit(resource.RLIMIT_DATA)[0]
cache = vrange.VolatileCache(hot_bytes=0)
for number in range(3000):
    value = np.full(100_000, number % 251, np.uint8)
    assert (cache.get_or_compute(number, lambda: value) == value).all()
assert len(cache) > 10 and space().own_bytes <= limit // 8
assert np.ones(limit // 2, np.uint8).all()
""",
        prepare=limited(resource.RLIMIT_DATA, GIB),
    )


def test_a_limit_that_is_set_later_counts() -> None:
    succeeds(
        MEASURE
        + """
cache = vrange.VolatileCache(hot_bytes=0)
cache["key"] = b"v" * 50_000
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
for number in range(10_000):
    cache.get_or_compute(number, lambda: np.ones(100_000, np.uint8))
fits(2 << 30)
"""
    )


def test_what_an_emptied_cache_reserved_serves_another() -> None:
    succeeds(
        MEASURE
        + """
first, second = vrange.VolatileCache(hot_bytes=0), vrange.VolatileCache(hot_bytes=0)
def fill(cache):
    for number in range(1500):
        cache[number] = np.ones(100_000, np.uint8)
    return cache._account.read().reserved_bytes
most = fill(first)
assert most > 64 << 20
first.clear()
for _ in range(1000):
    if not first._core.bury(1000): break
assert fill(second) > most // 2
""",
        prepare=limited(resource.RLIMIT_AS, GIB),
    )


def test_the_child_of_a_fork_keeps_the_count() -> None:
    succeeds(
        MEASURE
        + """
cache = vrange.VolatileCache(hot_bytes=0)
cache["key"] = b"v" * 50_000
before = space().own_bytes
pid = os.fork()
if pid == 0:
    same = space().own_bytes == before > 0
    cache.close()
    os._exit(not (same and space().own_bytes < before))
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""
    )


@pytest.mark.parametrize("asked", [False, True])
def test_core_dumps_leave_volatile_memory_out_unless_asked(asked: bool) -> None:
    succeeds(
        MEASURE
        + """
asked = os.environ.get("VRANGE_DUMP") == "1"
cache = vrange.VolatileCache(hot_bytes=0)
cache["key"] = np.ones(100_000)
with vrange.Arena("1GiB") as arena:
    view = np.frombuffer(arena.allocate("1MiB").buffer, np.uint8)
    for address in (address_of(cache["key"]), address_of(view)):
        assert ("dd" in flags_at(address)) is not asked, flags_at(address)
    assert "dd" in flags_at(address_of(view) + (512 << 20)), "what was never used"
    del view
vrange.heap.use_for_numpy()
assert "dd" not in flags_at(address_of(np.ones(100_000))), "array data is ordinary memory"
def flags_of_stack():
    return flags_at(int(open("/proc/thread-self/syscall").read().split()[-2], 16))
assert "dd" not in vrange.deep_call(flags_of_stack), "a deep call's frames"
""",
        environment={"VRANGE_DUMP": "1"} if asked else {},
    )
