"""The limit of a process that is judged by its resident set: what the judge sees stays below it."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from support import RUNG, succeeds

import vrange
from vrange.cli.memory_cgroup import MemoryCgroup

MIB = 1 << 20
LIMIT = 240 * MIB

START = f"""
import sys, time, vrange
MIB = {MIB}
vrange.set_limit({LIMIT}, measure="rss")
"""


def resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak_of(code: str) -> tuple[int, str]:
    """The largest resident set of a process, seen from outside, and what it printed."""
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(START) + textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        text=True,
    )
    peak = 0
    while child.poll() is None:
        try:
            peak = max(peak, resident_bytes(child.pid))
        except (FileNotFoundError, IndexError):
            break
        time.sleep(0.001)
    out, _ = child.communicate()
    assert child.returncode == 0
    return peak, out


@pytest.mark.parametrize("size", [500, 30_000, 2_000_000], ids=["slabs", "ranges", "large"])
def test_a_cache_of_more_than_the_limit_stays_below_it_while_the_program_allocates(
    size: int,
) -> None:
    peak, out = peak_of(
        f"""
        cache = vrange.VolatileCache()
        held, kept = [], 0
        for n in range({600 * MIB // max(size, 2000)}):
            cache[n] = n.to_bytes(8, "little") * ({size} // 8)
            if n * {size} // (6 * MIB) > len(held) and len(held) < 50:
                held.append(b"x" * MIB)
        for n in range({600 * MIB // max(size, 2000)}):
            value = cache.get(n)
            assert value is None or value[:8] == n.to_bytes(8, "little")
            kept += value is not None
        print(kept > 0, len(held))
        """
    )
    assert peak <= LIMIT
    assert out.startswith("True")


def test_values_that_are_used_stay_and_the_others_go() -> None:
    peak, out = peak_of(
        """
        cache = vrange.VolatileCache(hot_bytes=0)
        for n in range(40):
            cache[n] = bytes([n]) * MIB
        for n in range(1000, 1400):
            cache[n] = bytes(MIB)
            for used in range(40):
                cache.get(used)
        print(sum(cache.get(n) is not None for n in range(40)) > 30)
        """
    )
    assert peak <= LIMIT
    assert out == "True\n"


def test_a_value_that_has_no_room_is_not_stored() -> None:
    peak, out = peak_of(
        """
        @vrange.cached
        def large(n):
            return b"x" * (120 * MIB)
        print(len(large(1)) // MIB, large.cache_info().refused)
        """
    )
    assert peak <= LIMIT
    assert out == "120 1\n"


@pytest.mark.skipif(RUNG != "refault", reason="only the refault rung has arrays")
def test_arrays_are_returned() -> None:
    peak, out = peak_of(
        """
        import numpy as np
        def fill(start, out):
            out[:] = np.arange(start, start + len(out))
        a = vrange.VolatileArray(60 * MIB, "i8", fill=fill)
        for start in range(0, 60 * MIB, 1 << 17):
            assert a[start] == start
            time.sleep(0.0005)
        print(vrange.stats() is not None)
        """
    )
    assert peak <= LIMIT
    assert out == "True\n"


def test_stacks_and_heap_are_returned_at_once() -> None:
    code = """
    import os, numpy as np, vrange
    def resident():
        return int(open("/proc/self/statm").read().split()[1]) * 4096 >> 20
    vrange.heap.use_for_numpy()
    def deep(n):
        return 0 if n == 0 else 1 + max((deep(n - 1) for _ in range(1)))
    vrange.set_limit("2GiB")
    before = resident()
    vrange.deep_call(deep, 20_000)
    a = np.ones(8 << 20)
    del a
    import time
    deadline = time.monotonic() + 20
    while resident() > before + 24 and time.monotonic() < deadline:
        time.sleep(0.01)
    print(resident() <= before + 24, resident(), before)
    """
    assert succeeds(code).startswith("True")


def test_deep_calls_end_before_the_limit() -> None:
    peak, out = peak_of(
        """
        import functools
        @functools.cache
        def steps(n):
            return steps(n + 1)
        try:
            vrange.deep_call(steps, 0)
        except RecursionError:
            print("RecursionError")
        """
    )
    assert out == "RecursionError\n"
    assert peak <= LIMIT


def test_the_automatic_bounds_follow() -> None:
    code = """
    import vrange
    cache = vrange.VolatileCache()
    cache[1] = bytes(100)
    before = vrange.stats().reserve.bytes
    vrange.set_limit("400MiB")
    now = vrange.memory_limit()
    print(now >> 20, now.source, vrange.stats().reserve.bytes >> 20)
    vrange.set_limit(None)
    print(vrange.memory_limit().source != "set_limit", vrange.stats().reserve.bytes == before)
    vrange.set_reserve("8MiB")
    vrange.set_limit("400MiB")
    print(vrange.stats().reserve.bytes >> 20)
    """
    assert succeeds(code) == "400 set_limit 50\nTrue True\n8\n"


def test_the_child_of_a_fork_keeps_it() -> None:
    code = f"""
    import os, vrange
    vrange.set_limit({LIMIT})
    child = os.fork()
    if child == 0:
        cache = vrange.VolatileCache()
        most = 0
        for n in range(400):
            cache[n] = bytes([n % 256]) * (1 << 20)
            most = max(most, int(open("/proc/self/statm").read().split()[1]) * 4096)
        os._exit(0 if vrange.memory_limit().source == "set_limit" and most <= {LIMIT} else 1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    assert succeeds(code) == "0\n"


@pytest.mark.parametrize("reserve", ["0", "1GiB"])
def test_a_reserve_that_was_given_does_not_turn_it_off(reserve: str) -> None:
    peak, out = peak_of(
        f"""
        vrange.set_reserve({reserve!r})
        cache = vrange.VolatileCache(hot_bytes=0)
        for n in range(500):
            cache[n] = bytes([n % 256]) * MIB
        print(sum(cache.get(n) is not None for n in range(500)) > 20)
        """
    )
    assert peak <= LIMIT
    assert out == "True\n"


def test_several_threads_that_store() -> None:
    peak, out = peak_of(
        """
        import threading
        cache = vrange.VolatileCache()
        def store(part):
            for n in range(100):
                cache[part, n] = bytes([n]) * (MIB + 4096)
        threads = [threading.Thread(target=store, args=(part,)) for part in range(6)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        print(sum(cache.get((part, n)) is not None for part in range(6) for n in range(100)) > 20)
        """
    )
    assert peak <= LIMIT
    assert out == "True\n"


def test_without_it_again_nothing_is_given_up() -> None:
    code = """
    import vrange
    vrange.set_limit("100MiB")
    vrange.set_limit(None)
    cache = vrange.VolatileCache()
    for n in range(300):
        cache[n] = bytes([n % 256]) * (1 << 20)
    print(sum(cache.get(n) is not None for n in range(300)))
    """
    assert succeeds(code) == "300\n"


def test_the_watcher_measures_it() -> None:
    code = """
    import vrange
    held = b"x" * (100 << 20)
    vrange.set_limit("120MiB")
    with vrange.pressure.watch(actions=[]) as watcher:
        print(watcher.info().source, watcher.level)
    """
    assert succeeds(code) == "set_limit critical\n"


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"bytes": 0}, ValueError, "more than 0, or None"),
        ({"bytes": -1}, ValueError, "must not be negative"),
        ({"bytes": "much"}, ValueError, 'such as "64MiB"'),
        ({"bytes": 1.5}, TypeError, 'such as "64MiB"'),
        ({"bytes": True}, TypeError, 'such as "64MiB"'),
        ({"bytes": "1GiB", "measure": "pss"}, ValueError, "measure must be \"rss\", not 'pss'"),
        ({"bytes": None, "measure": None}, ValueError, "measure must be"),
    ],
)
def test_bad_input(arguments: dict[str, object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        vrange.set_limit(**arguments)  # type: ignore[arg-type]
    assert vrange.memory_limit().source != "set_limit"


def test_the_limit_is_an_int_that_says_where_it_comes_from() -> None:
    limit = vrange.memory_limit()
    assert isinstance(limit, int)
    assert f"{limit}" == str(limit) == str(int(limit))
    assert limit.source in repr(limit)
    assert type(limit // 2) is int
    again = pickle.loads(pickle.dumps(limit))
    assert (again, again.source, again.path) == (limit, limit.source, limit.path)


@pytest.mark.memory_cgroup
def test_the_limit_of_the_cgroup() -> None:
    code = """
    import sys
    sys.stdin.readline()
    import vrange
    limit = vrange.memory_limit()
    print(limit, limit.source.startswith("cgroup"), limit.path)
    """
    with MemoryCgroup(200 * MIB) as cgroup:
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        cgroup.add(child.pid)
        out, _ = child.communicate("\n")
        assert out.split() == [str(200 * MIB), "True", cgroup.path]
