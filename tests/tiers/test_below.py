"""A lower tier: what is cached outlives the process, and what was removed never comes back."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from other_platform import elsewhere
from tier_support import Remembering, run

import vrange

Cache = vrange.VolatileCache[Any, Any]
Make = Callable[..., Cache]

PROGRAM = """
import asyncio, sys
import numpy as np
import vrange

@vrange.cached(below=sys.argv[1])
def table(n, *, of=1):
    print("computed", n)
    return {"squares": np.arange(n) * of, "name": "x" * n}

@vrange.cached(below=sys.argv[1], ttl=3600)
async def page(path):
    print("computed", path)
    return [path, 1.5, None]

class Model:
    @vrange.cached(below=sys.argv[1], key=lambda self, x: x)
    def predict(self, x):
        print("computed", x)
        return x + 0.5

print(table(3)["squares"].tolist(), table(3, of=2)["squares"].tolist(), len(table(50_000)["name"]))
print(asyncio.run(page("/a")), Model().predict(1))
"""


@pytest.fixture(params=["own", "shared"])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Make a cache as another process or a later one would: with the same name, and empty."""
    made: list[Cache] = []

    def new(below: Any, **parameters: Any) -> Cache:
        if request.param == "shared":
            parameters["shared"] = f"test-{uuid.uuid4().hex[:12]}"  # a service of its own
        made.append(Cache(name="thumbs", below=below, **parameters))
        return made[-1]

    yield new
    for cache in made:
        cache.close()


def test_a_restarted_program_is_not_cold(tmp_path: Path) -> None:
    first = run(PROGRAM, tmp_path)
    assert [line for line in first if line.startswith("computed")]
    second = run(PROGRAM, tmp_path)
    assert second == [line for line in first if not line.startswith("computed")]


def test_functions_of_one_name_do_not_answer_for_each_other(tmp_path: Path) -> None:
    """`name=` is the label of a metric, which functions may have in common."""
    code = """
        import sys, vrange

        @vrange.cached(name="db", below=sys.argv[1])
        def user(n):
            print("computed")
            return ["user", n]

        @vrange.cached(name="db", below=sys.argv[1])
        def order(n):
            print("computed")
            return ["order", n]

        cache = vrange.VolatileCache(name="db", below=sys.argv[1])
        print(user(1), user.cache.flush(), order(1), order.cache.flush())
        print(cache.get((1,)), cache.get(1))
    """
    answers = ["['user', 1] True ['order', 1] True", "None None"]
    assert run(code, tmp_path) == ["computed", "computed", *answers]
    assert run(code, tmp_path) == answers


def test_a_changed_function_does_not_find_the_old_results(tmp_path: Path) -> None:
    run(PROGRAM, tmp_path)
    assert "computed 3" in run(PROGRAM.replace("* of,", "* of + 1,"), tmp_path)


def test_on_another_platform(tmp_path: Path) -> None:
    code = f"""
        for expected in [1], []:
            computed = []
            cache = vrange.VolatileCache(name="x", below={str(tmp_path)!r}, ttl=60, tags=True)
            value = cache.get_or_compute("a", lambda: computed.append(1) or [1, 2], tags="t")
            assert value == [1, 2] and computed == expected, computed
            assert cache.get("b") is None
            cache.close()
        cache = vrange.VolatileCache(name="x", below={str(tmp_path)!r})
        assert cache["a"] == [1, 2] and cache.info().below_hits == 1
        cache.discard_tag("t")
        assert "a" not in cache
        function = vrange.cached(below={str(tmp_path)!r}, name="len")(len)
        assert function("abc") == function("abc") == 3
        cache.close()
        print("good")
    """
    assert elsewhere(code, imports="prometheus_client, psutil") == "good\n"


# ---- values --------------------------------------------------------------------------------------


def test_values_are_found_by_a_later_cache(make: Make) -> None:
    tier = Remembering()
    one = make(tier)
    one["a"] = np.arange(20_000)
    one.set(("b", 2.0), {"x": [1, 2]}, ttl=3600)
    assert one.get_or_compute("c", lambda: "computed") == "computed"
    assert one.flush()
    two = make(tier)
    assert int(two["a"].sum()) == 199990000
    assert not two["a"].flags.writeable
    assert two["b", 2] == {"x": [1, 2]}
    assert two.get_or_compute("c", lambda: "again") == "computed"
    assert "a" in two
    assert two.get("d", 7) == 7
    info = two.info()
    assert (info.below_hits, info.below_errors, info.regenerated) == (3, 0, 0)
    assert info.below_read_bytes > 160_000
    assert one.info().below_written == 3


def test_what_the_caller_changes_later_is_not_written(make: Make) -> None:
    tier = Remembering()
    one = make(tier)
    mine = [1, 2]
    one["a"] = mine
    mine.append(3)
    one.flush()
    assert make(tier)["a"] == [1, 2]


def test_a_purged_value_is_read_instead_of_computed() -> None:
    with Cache(name="thumbs", below=Remembering()) as cache:
        calls: list[int] = []

        def compute() -> Any:
            calls.append(1)
            time.sleep(0.01)
            return np.arange(100_000)

        cache.get_or_compute("a", compute)
        cache.flush()
        if cache.discard("a"):
            assert int(cache.get_or_compute("a", compute)[5]) == 5
            assert len(calls) == 1


def test_one_caller_reads_for_all(make: Make) -> None:
    tier = Remembering()
    make(tier)["a"] = 1
    time.sleep(0.1)
    one = make(tier)
    tier.gets.clear()
    threads = [threading.Thread(target=one.get_or_compute, args=("a", int)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([name for name in tier.gets if "/values/" in name]) == 1


def test_a_value_expires_when_it_would_have(make: Make) -> None:
    tier = Remembering()
    one = make(tier, ttl=3600)
    one.set("a", 1, ttl=1.2)
    one.set("b", 2, ttl=1.2)
    one.flush()
    two = make(tier, ttl=3600)
    assert two["a"] == 1
    assert two.get_or_compute("b", lambda: 0) == 2
    time.sleep(1.3)
    assert "a" not in two
    assert two.get_or_compute("b", lambda: 7) == 7
    assert "a" not in make(tier)


def test_coroutine_functions(make: Make) -> None:
    tier = Remembering()

    async def compute() -> int:
        return 7

    async def never() -> int:
        raise AssertionError

    one = make(tier, ttl=3600)
    assert asyncio.run(one.get_or_compute_async("a", compute)) == 7
    one.flush()
    assert asyncio.run(make(tier).get_or_compute_async("a", never)) == 7


def test_skipped_results_and_exceptions_are_not_kept() -> None:
    tier = Remembering()

    @vrange.cached(below=tier, name="f", skip=lambda value: value is None)
    def f(x: int) -> Any:
        if x == 2:
            raise ValueError(x)
        return None if x == 1 else x

    assert f(1) is None
    assert f(3) == 3
    with pytest.raises(ValueError, match="2"):
        f(2)
    f.cache.flush()
    assert len(tier.values()) == 1


def test_a_function_that_is_cheaper_than_the_tier_does_without() -> None:
    class Slow(Remembering):
        def get(self, name: str) -> bytes | None:
            time.sleep(0.005)
            return super().get(name)

    tier = Slow()

    @vrange.cached(below=tier, name="f")
    def f(x: int) -> int:
        return x

    assert [f(x) for x in range(40)] == list(range(40))
    f.cache.flush()
    assert len([name for name in tier.gets if "/values/" in name]) < 15
    assert len(tier.values()) < 15


def test_keys_that_no_other_process_knows() -> None:
    class Thing:
        pass

    thing, tier = Thing(), Remembering()
    with Cache(name="x", below=tier) as cache:
        with pytest.warns(vrange.NotKeptWarning, match="not kept below"):
            cache[thing] = 1
        assert cache[thing] == 1
        assert cache.get_or_compute((thing,), lambda: 2) == 2
        cache.flush()
        assert not tier.values()
        with pytest.raises(TypeError, match="unhashable"):
            cache[[]] = 1


# ---- removing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["del", "pop", "set", "clear", "tag"])
def test_what_was_removed_is_gone_for_later_caches(make: Make, how: str) -> None:
    tier = Remembering()
    one = make(tier)
    one.set("a", 1, tags=["t", "u"])
    one.flush()
    two = make(tier)
    assert two.get("a") == 1
    if how == "del":
        del two["a"]
    elif how == "pop":
        assert two.pop("a") == 1
    elif how == "set":
        two["a"] = 2
    elif how == "clear":
        two.clear()
    else:
        two.discard_tag("u")
    expected = 2 if how == "set" else None
    assert two.get("a") == expected
    two.flush()
    assert make(tier).get("a") == expected


def test_what_is_only_below_can_be_removed(make: Make) -> None:
    tier = Remembering()
    make(tier)["a"] = 1
    time.sleep(0.1)
    two = make(tier)
    del two["a"]
    with pytest.raises(KeyError):
        del two["a"]
    assert make(tier).get("a") is None


@pytest.mark.parametrize(
    "how", ["del cache['a']", "cache['a'] = 2", "cache.clear()", "cache.discard_tag('t')"]
)
def test_a_process_that_is_killed_leaves_no_old_value(tmp_path: Path, how: str) -> None:
    run(
        f"""
        import os, signal, sys, vrange
        cache = vrange.VolatileCache(name="x", below=sys.argv[1])
        cache.set("a", 1, tags="t")
        assert cache.flush() and cache.info().below_written == 1
        {how}
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        tmp_path,
        killed=True,
    )
    with Cache(name="x", below=tmp_path) as cache:
        assert cache.get("a") in ((None, 2) if "=" in how else (None,))


@pytest.mark.parametrize("how", ["del", "clear", "tag"])
def test_a_computation_that_began_before_a_removal_leaves_nothing(make: Make, how: str) -> None:
    """As in a slow process, whose result arrives after another one has removed the key."""
    tier = Remembering()
    slow, other = make(tier, tags=True), make(tier, tags=True)
    slow.set("a", 0, tags="t")
    slow.clear()
    tier.arrived.clear()
    tier.passes.clear()
    assert slow.get_or_compute("a", lambda: "old", tags="t") == "old"
    assert tier.arrived.wait(60)
    if how == "del":
        with pytest.raises(KeyError):
            del other["a"]
    elif how == "clear":
        other.clear()
    else:
        other.discard_tag("t")
    tier.passes.set()
    assert slow.flush()
    assert other.get("a") is None
    assert make(tier).get("a") is None


def test_a_removal_beside_a_lookup_that_reads_below(make: Make) -> None:
    class Watched(Remembering):
        then: Callable[[], object] | None = None

        def get(self, name: str) -> bytes | None:
            found = super().get(name)
            if "/values/" in name and self.then is not None:
                then, self.then = self.then, None
                then()
            return found

    tier = Watched()
    make(tier)["a"] = 1
    time.sleep(0.1)
    one = make(tier)

    def remove() -> None:
        thread = threading.Thread(target=one.clear)
        thread.start()
        thread.join()

    tier.then = remove
    assert one.get("a") == 1  # it began earlier
    assert "a" not in one
    assert one.get("a") is None


# ---- processes -----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of a fork beside a thread
def test_the_child_of_a_fork_does_not_write_what_its_parent_queued() -> None:
    tier = Remembering()
    with Cache(name="x", below=tier) as cache:
        tier.passes.clear()
        cache["a"] = 1
        assert tier.arrived.wait(60)
        cache["b"] = 2
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                tier.passes = threading.Event()
                tier.passes.set()
                assert cache.flush()
                assert not tier.values()
                cache["c"] = 3
                assert cache.flush()
                assert len(tier.values()) == 1
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0
        tier.passes.set()
        assert cache.flush()
        assert len(tier.values()) == 2


def test_values_are_written_at_the_end_of_the_process(tmp_path: Path) -> None:
    code = "import sys, vrange\nvrange.VolatileCache(name='x', below=sys.argv[1])\n"
    run(
        code + "cache = vrange.VolatileCache(name='x', below=sys.argv[1])\ncache['a'] = 1\n",
        tmp_path,
    )
    with Cache(name="x", below=tmp_path) as cache:
        assert cache["a"] == 1


def test_a_tier_that_hangs_holds_up_neither_callers_nor_the_end() -> None:
    tier = Remembering()
    cache = Cache(name="x", below=tier)
    tier.passes.clear()
    assert cache.get_or_compute("a", lambda: 1) == 1
    assert cache.get_or_compute("b", lambda: 2) == 2
    assert cache["a"] == 1
    assert not cache.flush(0.05)
    tier.passes.set()
    cache.close()


def test_metrics() -> None:
    import prometheus_client

    import vrange.metrics

    registry = prometheus_client.CollectorRegistry()
    vrange.metrics.register(registry)
    name, tier = f"test-{uuid.uuid4().hex[:12]}", Remembering()
    for _ in range(2):
        with Cache(name=name, below=tier) as cache:
            cache.get_or_compute("a", lambda: bytes(1000))
            cache.flush()
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.labels.get("name") == name
    }
    assert found["vrange_below_requests_total", name, "hit"] >= 1
    assert found["vrange_below_requests_total", name, "miss"] == 1
    assert found["vrange_below_requests_total", name, "error"] == 0
    assert found["vrange_below_bytes_total", name, "read"] > 1000
    assert found["vrange_below_bytes_total", name, "written"] > 1000
