"""Without Linux: importing works, and the cache is an ordinary bounded one.

This is Linux, so each test runs in a process that takes itself for another system's: what others
import by the system's name is imported before.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path

import other_platform
import pytest

import vrange

elsewhere = partial(
    other_platform.elsewhere, imports="asyncio, threading, numpy as np, psutil, pytest"
)


def test_every_name_is_there() -> None:
    names = [
        name for name in vrange.__all__ if name not in ("fills", "heap", "metrics", "pressure")
    ]
    told = elsewhere(f"print([name for name in {names} if not hasattr(vrange, name)])")
    assert ast.literal_eval(told) == []


def test_it_says_why() -> None:
    code = """
    found = vrange.capabilities()
    assert (found.rung, found.supported) == ("none", False)
    assert list(found.refusals) == ["refault", "sentinel", "eager"]
    assert "Linux" in found.refusals["eager"] and "Darwin" in found.refusals["eager"]
    for use in (lambda: vrange.Arena("1MiB"), lambda: vrange.deep_call(print), vrange.stats,
                lambda: vrange.VolatileArray(3, "u1"), vrange.deep_recursion(print)):
        with pytest.raises(vrange.VrangeError, match="this is Darwin"):
            use()
    for name in ("fills", "heap", "metrics", "pressure"):
        with pytest.raises(vrange.VrangeError, match="this is Darwin"):
            getattr(vrange, name)
    assert vrange.trim_stack() == vrange.trim_idle_stacks() == 0
    vrange.set_reserve("64MiB")
    """
    elsewhere(code)


def test_options_of_a_cached_function() -> None:
    code = """
    import time
    from operator import attrgetter
    calls = []
    @vrange.cached(128, ignore="log", skip=lambda value: value < 0, timeout=5)
    def half(n, log=None):
        calls.append(n)
        return n // 2
    assert half(4) == half(4, log=[]) == 2 and half(-4) == half(-4) == -2
    assert calls == [4, -4, -4]
    assert half.cache_contains(4) and half.cache_discard(4) and not half.cache_contains(4)
    assert tuple(half.cache_info()) == (1, 3, 128, 0), tuple(half.cache_info())
    try:
        half([])
    except TypeError as error:
        assert "key=vrange.keys.content" in str(error)
    by_content = vrange.cached(key=vrange.keys.content)(len)
    assert by_content([1, 2]) == by_content([1, 2]) == 2 and by_content.cache_info().hits == 1

    class Client:
        def __init__(self):
            self.cache = vrange.VolatileCache()
        @vrange.cached(cache=attrgetter("cache"))
        def get(self, path):
            calls.append(path)
            return path
        @vrange.cached
        @classmethod
        def make(cls, n):
            return n
    one, two = Client(), Client()
    assert one.get("a") == one.get("a") == two.get("a") == "a" and calls.count("a") == 2
    assert one.get.cache_discard("a") and two.get.cache_contains("a")
    assert Client.make(3) == 3 and Client.make.cache_contains(3)

    with vrange.VolatileCache(max_bytes="1M") as cache:
        cache.set("a", 1, ttl=0.01)
        cache |= {"b": 2}
        time.sleep(0.02)
        assert "a" not in cache and dict(cache | {"c": 3}) == dict(cache.copy() | {"c": 3})
        double = vrange.cached(cache=cache)(lambda n: 2 * n)
        assert double(4) == double(4) == 8 and len(cache) == 2
        double.cache_clear()
        assert len(cache) == 1
        cache._repr_html_()
    try:
        vrange.cached(lambda: (yield 1))
    except TypeError as error:
        assert "generator function" in str(error)
    else:
        raise AssertionError
    """
    elsewhere(code)


def test_a_cached_function() -> None:
    code = """
    calls = []
    @vrange.cached(max_bytes="1MiB", typed=True)
    def table(n, *, scale=1):
        "Rows."
        calls.append(n)
        return np.full(1000, n * scale)
    one, again = table(3), table(3)
    assert np.shares_memory(one, again) and not one.flags.writeable
    assert (table(3, scale=2) == 6).all() and (table(3.0) == 3).all()
    assert calls == [3, 3, 3.0]
    info = table.cache_info()
    assert (info.hits, info.misses, info.entries, info.regenerated) == (1, 3, 3, 3)
    assert (table.__doc__, table.__name__) == ("Rows.", "table")
    assert table.cache_parameters()["typed"] is True
    table.cache_clear()
    assert table.cache_info().entries == table.cache_info().hits == 0

    @vrange.cached
    async def later(n):
        calls.append(n)
        await asyncio.sleep(0.01)
        return n
    async def both():
        return await asyncio.gather(*(later(9) for _ in range(5)))
    assert asyncio.run(both()) == [9] * 5
    assert calls.count(9) == 1
    info = later.cache_info()
    assert (info.misses, info.waited, info.hits) == (1, 4, 4)

    def fails():
        raise KeyError("mine")
    failing = vrange.cached(fails)
    for _ in range(2):
        with pytest.raises(KeyError, match="mine"):
            failing()
    with pytest.raises(TypeError, match="callable"):
        vrange.cached("name")
    with pytest.raises(TypeError, match="unhashable"):
        table([])
    """
    elsewhere(code)


def test_it_is_bounded_and_the_least_recently_used_go() -> None:
    code = """
    with vrange.VolatileCache(name="c", max_bytes="1MiB") as cache:
        for n in range(20):
            cache[n] = bytes([n]) * 100_000
            assert cache.get(0) == bytes(100_000)
        info = cache.info()
        assert info.entries == 10 and info.pinned_bytes <= 1 << 20, info
        assert info.evicted_bytes > 900_000
        assert sorted(cache) == [0, *range(11, 20)]
        cache["large"] = 1
        cache["large"] = bytes(2_000_000)
        assert "large" not in cache
        large = cache.get_or_compute("large", lambda: bytes(2_000_000))
        assert len(large) == 2_000_000 and "large" not in cache
        assert cache.info().refused == 2
        table = np.ones(200_000, np.uint8)
        cache["array"] = table[::2]
        assert cache["array"].sum() == 100_000
        del cache[0]
        with pytest.raises(KeyError):
            cache[0]
        left = len(cache)
        assert (cache.discard("array"), cache.discard()) == (1, left - 1)
        assert repr(cache).startswith("<VolatileCache 'c', not volatile here")
    with pytest.raises(ValueError, match="closed"):
        cache["k"] = 1
    with vrange.VolatileCache(max_entries=3) as cache:
        for n in range(10):
            cache[n] = n
            assert cache.get(0) == 0
        assert sorted(cache) == [0, 8, 9] and cache.info().max_entries == 3
    unbounded = vrange.VolatileCache()
    unbounded["k"] = b"x"
    assert unbounded.info().max_bytes is None
    """
    elsewhere(code)


def test_expiry_and_threads() -> None:
    code = """
    import vrange._portable.cache as module
    now = 0.0
    module.time.monotonic = lambda: now
    cache = vrange.VolatileCache(ttl=5)
    cache["k"] = 1
    now = 4.9
    assert cache["k"] == 1
    now = 5.1
    assert "k" not in cache and len(cache) == 0
    gate, calls = threading.Barrier(5), []
    def compute():
        calls.append(1)
        return 7
    def ask():
        gate.wait()
        assert cache.get_or_compute("t", compute) == 7
    threads = [threading.Thread(target=ask) for _ in range(5)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(calls) == 1
    for bad in ({"ttl": 0}, {"ttl": "x"}, {"max_bytes": -1}, {"hot_bytes": "much"}):
        with pytest.raises(ValueError):
            vrange.VolatileCache(**bad)
    """
    elsewhere(code)


@pytest.mark.skipif(sys.platform != "linux", reason="it asks what is not built elsewhere")
def test_setup_builds_nothing_native_elsewhere(tmp_path: Path) -> None:
    root = Path(vrange.__file__).parents[2]
    code = f"""
    import sys
    from types import ModuleType
    told = []
    for name in "", ".command", ".command.build_ext", ".command.build_py":
        sys.modules["setuptools" + name] = ModuleType(name)  # which not every environment has
    sys.modules["setuptools"].setup = lambda **settings: told.append(settings)
    sys.modules["setuptools.command.build_ext"].build_ext = object
    sys.modules["setuptools.command.build_py"].build_py = object
    sys.platform = "darwin"
    exec(open({str(root / "setup.py")!r}).read())
    assert [list(settings["cmdclass"]) for settings in told] == [["build_py"]], told
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=60)


def test_what_is_forgotten_meanwhile_is_not_stored() -> None:
    code = """
    from vrange._portable import flight
    from vrange._portable.singleflight import Flight
    assert Flight is flight.Flight
    for act in ("c['k'] = 'new'", "c.pop('k', None)", "c.clear()"):
        c = vrange.VolatileCache()
        started, go, true = threading.Event(), threading.Event(), ["old"]
        def compute():
            read = true[0]
            if not started.is_set():
                started.set()
                assert go.wait(20)
            return read
        got = []
        early = threading.Thread(target=lambda: got.append(c.get_or_compute("k", compute)))
        early.start()
        assert started.wait(20)
        true[0] = "new"
        exec(act)
        assert c.get_or_compute("k", compute) == "new", act
        go.set()
        early.join()
        assert got == ["old"] and c["k"] == "new", act
        del c["k"]
        late = threading.Thread(target=lambda: got.append(c.get_or_compute("k", lambda: "late")))
        late.start()
        late.join(20)
        assert got == ["old", "late"], "nothing is under way that it would wait for"
    """
    elsewhere(code)


def test_a_computation_on_a_loop_that_stopped_is_called_off() -> None:
    code = """
    import vrange._cache.patience
    vrange._cache.patience.LOOK_SECONDS = 0.01
    c, loop = vrange.VolatileCache(), asyncio.new_event_loop()
    go = loop.create_future()
    async def compute():
        return await go
    task = loop.create_task(c.get_or_compute_async("k", compute))
    loop.run_until_complete(asyncio.sleep(0.01))
    got = []
    asking = threading.Thread(target=lambda: got.append(c.get_or_compute("k", lambda: "new")))
    asking.start()
    asking.join(20)
    assert got == ["new"]
    go.set_result("old")
    assert loop.run_until_complete(task) == "old"
    assert c["k"] == "new", "a computation that began earlier replaced it"
    loop.close()
    """
    elsewhere(code)


def test_failures_are_shared_and_tasks_wait() -> None:
    code = """
    c = vrange.VolatileCache()
    calls = []
    async def fails():
        calls.append(1)
        await asyncio.sleep(0.01)
        raise ValueError("once")
    async def main():
        asked = [c.get_or_compute_async("k", fails) for _ in range(3)]
        return await asyncio.gather(*asked, return_exceptions=True)
    assert [str(e) for e in asyncio.run(main())] == ["once"] * 3
    assert calls == [1]
    assert c.get_or_compute("k", lambda: c.get_or_compute("k", lambda: 3)) == 3
    got = []
    del c["k"]
    late = threading.Thread(target=lambda: got.append(c.get_or_compute("k", lambda: "late")))
    late.start()
    late.join(20)
    assert got == ["late"], "nothing is under way that it would wait for"
    """
    elsewhere(code)
