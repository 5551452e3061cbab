"""Arrays that were computed: stored without Python where they can be, and no different for it."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import numpy as np
import pytest
from moody import Moody
from profiled import functions_called
from support import giving, whenever

from vrange import VolatileCache

SHAPE = (100, 300)
RANGE_BYTES = 30 * 4096


def like_before(n: int) -> np.ndarray[Any, Any]:
    return np.full(SHAPE, n, np.float32)


@pytest.mark.parametrize("options", [{}, {"max_bytes": "16MiB"}])
def test_an_array_like_those_before_is_stored_without_python(options: Any) -> None:
    made = [like_before(n) for n in range(3)]
    with VolatileCache[int, Any](**options) as cache:
        cache[1] = made[1]
        assert functions_called(lambda: cache.__setitem__(2, made[2])) == [
            "<lambda>",
            "__setitem__",
        ]
        for n in (1, 2):
            assert (cache[n] == n).all()
        assert len(cache) == 2


def test_what_is_returned_is_what_is_stored() -> None:
    with VolatileCache[int, Any](hot_bytes=0) as cache:
        for n in range(3):
            made = like_before(n)
            kept = cache.get_or_compute(n, giving(made))
            assert kept is not made
            assert not np.shares_memory(kept, made)
            assert np.shares_memory(kept, cache[n])
            assert not kept.flags.writeable
            assert made.flags.writeable
            with pytest.raises(ValueError, match="WRITEABLE"):
                kept.flags.writeable = True
            before = cache.info().pinned_bytes
            del kept
            assert cache.info().pinned_bytes == before - RANGE_BYTES


class Marked(np.ndarray[Any, Any]):
    """A subclass, which is not to come back as its base."""


@pytest.mark.parametrize(
    "other",
    [
        np.asfortranarray(like_before(7)),
        like_before(7)[:, ::-1],
        np.full((300, 100), 7, np.float32),
        np.full(SHAPE, 7, np.int32),
        np.full(SHAPE, 7, ">f4"),
        np.full((*SHAPE, 1), 7, np.float32),
        np.float32(7),
        like_before(7).view(Marked),
        np.full(SHAPE, 7, np.dtype("f4", metadata={"of": "its own"})),
        np.full((512, 1024), 7, np.float32),
        np.full(SHAPE, 7, object),
        np.zeros((0, 300), np.float32),
        like_before(7).tolist(),
    ],
    ids=lambda value: f"{type(value).__name__} {getattr(value, 'dtype', '')}",
)
def test_what_is_not_like_those_before_comes_back_as_itself(other: Any) -> None:
    with VolatileCache[str, Any](hot_bytes=0) as cache:
        for key in "ab":
            cache[key] = like_before(1)
        for key in "cd":
            cache[key] = other
        cache["e"] = like_before(2)
        assert all((cache[key] == 1).all() for key in "ab")
        for key in "cd":
            back = cache[key]
            assert type(back) is type(other)
            if isinstance(other, np.ndarray):
                assert (back.dtype, back.shape) == (other.dtype, other.shape)
                assert back.dtype.metadata == other.dtype.metadata
                assert back.flags.f_contiguous == other.flags.f_contiguous or not other.size
            assert np.array_equal(back, other)
        assert (cache["e"] == 2).all()


def test_a_key_that_has_a_value_gets_the_new_one() -> None:
    with VolatileCache[str, Any]() as cache:
        for n in range(5):
            cache["k"] = like_before(n)
            assert (cache["k"] == n).all()
            assert (cache["k"] == n).all(), "and so is what is hot"
        assert cache.info().entries == 1
        assert cache._core.bytes == cache.info().pinned_bytes


def test_how_often_it_was_used_outlives_a_purge() -> None:
    # With a bound its uses age alone, and not by what else this process has asked for.
    with VolatileCache[str, Any](hot_bytes=0, max_bytes="1GiB") as cache:
        cache["other"] = like_before(0)
        cache["k"] = like_before(1)
        for _ in range(20):
            cache["k"]
        used = cache._core.uses("k")
        cache.discard()
        assert cache.get_or_compute("k", lambda: like_before(2))[0, 0] == 2
        assert cache._core.uses("k") > used / 2 >= 16
        assert cache.info().purged == 1
        del cache["k"]
        assert cache.get_or_compute("k", lambda: like_before(3))[0, 0] == 3
        assert cache.info().purged == 1, "it was not the kernel this time"


def test_keys_of_what_was_lost_go_as_others_come() -> None:
    with VolatileCache[int, Any](hot_bytes=0) as cache:
        for n in range(200):
            cache[n] = like_before(n)
        cache.discard()
        for n in range(1000, 1010):
            cache[n] = like_before(n)
        assert cache._core.entries == 10


def test_max_bytes_hold() -> None:
    with VolatileCache[int, Any](max_bytes=10 * RANGE_BYTES, hot_bytes=0) as cache:
        for n in range(40):
            kept = cache.get_or_compute(n, partial(like_before, n))
            assert (kept == n).all()
            assert cache._core.bytes <= 10 * RANGE_BYTES
            assert n in cache, "what somebody holds is not let go for it"
        assert len(cache) == 10
        held = [cache.get_or_compute(n, partial(like_before, n)) for n in range(100, 112)]
        assert [array[0, 0] for array in held] == list(range(100, 112))


@pytest.mark.parametrize("computes", ["closes", "clears", "sets"])
def test_a_computation_that_changes_the_cache_itself(computes: str) -> None:
    cache = VolatileCache[str, Any](hot_bytes=0)
    cache["other"] = like_before(0)

    def compute() -> Any:
        if computes == "closes":
            cache.close()
        elif computes == "clears":
            cache.clear()
        else:
            cache["k"] = like_before(5)
        return like_before(1)

    assert (cache.get_or_compute("k", compute) == 1).all()
    if computes == "clears":
        assert "k" not in cache, "it was forgotten after its computation began"
        assert len(cache) == 0
    elif computes == "sets":
        assert (cache["k"] == 5).all(), "what was set is newer than the computation"
        assert len(cache) == 2
    cache.close()


def test_unhashable_keys_are_refused_before_anything_is_stored() -> None:
    with VolatileCache[Any, Any](hot_bytes=0) as cache:
        cache["k"] = like_before(0)
        before = whenever(cache.info())
        with pytest.raises(TypeError, match="unhashable"):
            cache[[]] = like_before(1)
        assert whenever(cache.info()) == before


def test_keys_that_can_not_be_compared_leave_nothing_behind() -> None:
    with VolatileCache[Any, Any](hot_bytes=0) as cache:
        cache[Moody()] = like_before(0)
        before = whenever(cache.info())
        Moody.fails = True
        with pytest.raises(RuntimeError, match="not today"):
            cache[Moody()] = like_before(1)
        Moody.fails = False
        assert whenever(cache.info()) == before


def test_threads_that_store_under_the_same_keys() -> None:
    with VolatileCache[int, Any](hot_bytes="1MiB") as cache:
        cache[-1] = like_before(-1)
        failures: list[object] = []

        def work(seed: int) -> None:
            for turn in range(150):
                n = (turn * 7 + seed) % 40
                cache[n] = like_before(n)
                value = cache.get_or_compute((n + 1) % 40, partial(like_before, (n + 1) % 40))
                if not (value == (n + 1) % 40).all():
                    failures.append(n)
                if turn % 10 == 0:
                    cache.pop((n + 2) % 40, None)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not failures
        del threads
        info = cache.info()
        held = info.pinned_bytes + info.idle_bytes + info.offered_bytes
        assert cache._core.bytes == held == info.entries * RANGE_BYTES
