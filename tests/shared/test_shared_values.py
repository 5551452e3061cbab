"""What one process stores, the others find: as in one dict, for all types that can be pickled."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import shared_peers as peers
from shared_peers import METHODS, Peer, reads_large_values

import vrange

VALUES = [
    None,
    True,
    12345678901234567890,
    2.5,
    "text",
    "é\ud800",
    b"",
    b"bytes" * 100,
    (1, ("a", b"b")),
    [1, {"a": {2}}],
    datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
    uuid.UUID(int=5),
    "long " * 5000,
    b"\xff" * 100_000,
    list(range(20_000)),
]


@reads_large_values
@pytest.mark.parametrize("method", METHODS)
def test_another_process_finds_what_was_stored(
    cache: Any, new_peer: Callable[..., Peer], method: str
) -> None:
    for number, value in enumerate(VALUES):
        cache[number] = value
    peer = new_peer(method)
    for number, value in enumerate(VALUES):
        found = peer.ask(peers.get, number)
        assert found == value
        assert type(found) is type(value)


@reads_large_values
def test_this_process_finds_what_another_one_stored(
    cache: Any, new_peer: Callable[..., Peer]
) -> None:
    peer = new_peer()
    for number, value in enumerate(VALUES):
        peer.ask(peers.put, number, value)
        for _ in range(4):  # read from the peer, and then from a copy of this process
            found = cache[number]
            assert found == value
            assert type(found) is type(value)
    assert cache.info().hits == 4 * len(VALUES)
    assert cache.info().misses == 0


@reads_large_values
@pytest.mark.parametrize("count", [10, 100_000])
def test_arrays_are_read_only_wherever_they_are_read(
    cache: Any, new_peer: Callable[..., Peer], count: int
) -> None:
    peer = new_peer()
    peer.ask(_put_array, "a", count)
    cache["b"] = _array(count)
    for key in "a", "b":
        for _ in range(4):
            found = cache[key]
            assert np.array_equal(found, _array(count))
            assert not found.flags.writeable
        assert peer.ask(_is_whole_array, key, count)


def _array(count: int) -> Any:
    return np.arange(count, dtype="f4").reshape(2, -1)


def _put_array(cache: Any, key: str, count: int) -> None:
    cache[key] = _array(count)


def _is_whole_array(cache: Any, key: str, count: int) -> bool:
    found = cache[key]
    return bool(np.array_equal(found, _array(count)) and not found.flags.writeable)


def test_changing_an_answer_changes_no_other_answer(
    cache: Any, new_peer: Callable[..., Peer]
) -> None:
    peer = new_peer()
    mine = [1, 2]
    cache["a"] = mine
    mine.append(3)
    for _ in range(5):
        cache["a"].append(4)
        peer.ask(_append, "a")
    assert cache["a"] == [1, 2]
    assert peer.ask(peers.get, "a") == [1, 2]


def _append(cache: Any, key: str) -> None:
    cache[key].append(5)


@reads_large_values
def test_each_caller_gets_its_own_with_copy(name: str, new_peer: Callable[..., Peer]) -> None:
    peer = new_peer(copy=True)
    peer.ask(_put_array, "a", 100_000)
    with vrange.VolatileCache[Any, Any](shared=name, copy=True) as cache:
        for _ in range(5):
            found = cache["a"]
            found[:] = 7
        assert np.array_equal(cache["a"], _array(100_000))
    assert peer.ask(_array_sum, "a") == float(_array(100_000).sum())


def _array_sum(cache: Any, key: str) -> float:
    return float(cache[key].sum())


@reads_large_values
@pytest.mark.parametrize("value", ["small", "large" * 10_000])
def test_what_is_set_or_removed_is_so_for_all(
    cache: Any, new_peer: Callable[..., Peer], value: str
) -> None:
    one, two = new_peer(), new_peer("fork")
    cache["a"] = value
    for peer in one, two:
        for _ in range(3):
            assert peer.ask(peers.get, "a") == value
    one.ask(peers.put, "a", value + "!")
    assert cache["a"] == two.ask(peers.get, "a") == one.ask(peers.get, "a") == value + "!"
    assert two.ask(peers.delete, "a")
    assert cache.get("a") is None
    assert one.ask(peers.get, "a") == "absent"
    assert not one.ask(peers.delete, "a")
    with pytest.raises(KeyError):
        cache["a"]
    one.ask(peers.put, "a", value)
    assert "a" in cache
    assert len(cache) == 1
    two.ask(peers.clear)
    assert "a" not in cache
    assert len(cache) == 0
    assert one.ask(peers.get, "a") == "absent"


def test_one_process_alone_gets_what_is_popped(cache: Any, new_peer: Callable[..., Peer]) -> None:
    others = [new_peer(), new_peer()]
    for turn in range(20):
        cache["a"] = turn
        for peer in others:
            peer.tell(peers.pop, "a")
        answers = [cache.pop("a", "absent"), *(peer.hear() for peer in others)]
        assert sorted(map(str, answers)) == sorted([str(turn), "absent", "absent"])


@reads_large_values
def test_all_list_the_same_keys(cache: Any, new_peer: Callable[..., Peer]) -> None:
    peer = new_peer()
    wanted = {1, "a", (2, "b"), None, 2.5, frozenset({1, 2})}
    for key in wanted:
        cache[key] = key
    cache["large"] = "x" * 100_000
    assert set(cache) == wanted | {"large"}
    assert set(peer.ask(peers.keys)) == wanted | {"large"}
    assert dict(cache.items())["large"] == "x" * 100_000


def test_a_ttl_holds_for_all(cache: Any, new_peer: Callable[..., Peer]) -> None:
    peer = new_peer()
    peer.ask(peers.put_for, "short", "x", 0.2)
    peer.ask(peers.put_for, "large", "x" * 100_000, 0.2)
    peer.ask(peers.put_for, "long", "x", 1000)
    assert peer.ask(_wait_until_gone, "short")
    assert peer.ask(_wait_until_gone, "large")
    assert cache.get("short") is cache.get("large") is None
    assert cache["long"] == "x"
    cache.set("own", "x" * 100_000, ttl=0.05)
    assert _wait_until_gone(cache, "own")


def _wait_until_gone(cache: Any, key: str) -> bool:
    while key in cache or cache.get(key) is not None:
        pass
    return True


def test_values_that_can_not_be_pickled_are_not_kept(cache: Any) -> None:
    with pytest.warns(vrange.NotKeptWarning, match="can't be pickled"):
        assert callable(cache.get_or_compute("a", lambda: lambda: 1))
    assert "a" not in cache
    cache["b"] = 1
    cache["b"] = lambda: 2  # told once
    assert "b" not in cache  # and what was there is gone, too


@reads_large_values
def test_two_caches_of_one_name_in_one_process_are_one(cache: Any, name: str) -> None:
    with vrange.VolatileCache[Any, Any](shared=name) as other:
        cache["a"] = "x" * 100_000
        assert other["a"] == "x" * 100_000
        del other["a"]
        assert "a" not in cache
    cache["b"] = 1  # though the other one was closed
    assert cache["b"] == 1


def test_other_names_are_other_caches(cache: Any) -> None:
    with vrange.VolatileCache[Any, Any](shared="another") as other:
        cache["a"] = 1
        assert "a" not in other


def test_a_closed_cache_refuses_to_be_used(name: str, new_peer: Callable[..., Peer]) -> None:
    peer = new_peer()
    cache = vrange.VolatileCache[Any, Any](shared=name)
    cache["a"] = 1
    assert peer.ask(peers.get, "a") == 1  # from its first use on, it takes part
    cache.close()
    for use in (
        lambda: cache["a"],
        lambda: cache.set("a", 2),
        lambda: cache.get_or_compute("a", lambda: 3),
        lambda: cache.clear(),
        lambda: len(cache),
        lambda: "a" in cache,
    ):
        with pytest.raises(ValueError, match="closed"):
            use()
    assert peer.ask(peers.get, "a") == 1


@reads_large_values
def test_a_discarded_value_is_gone_for_all(cache: Any, new_peer: Callable[..., Peer]) -> None:
    peer = new_peer()
    peer.ask(peers.put, "a", b"x" * 100_000)
    assert cache["a"] == b"x" * 100_000
    assert peer.ask(peers.discard) == 1
    assert peer.ask(peers.get, "a") == "absent"


@pytest.mark.parametrize("wrong", [True, 1, None, ""])
def test_shared_is_a_name(wrong: Any) -> None:
    with pytest.raises(TypeError, match="shared must be the name"):
        vrange.VolatileCache(shared=wrong)


def test_true_means_the_name(name: str, new_peer: Callable[..., Peer]) -> None:
    peer = new_peer()
    peer.ask(peers.put, "a", 1)
    with vrange.VolatileCache[Any, Any](shared=True, name=name) as cache:
        assert cache["a"] == 1


def test_what_belongs_to_one_process_is_refused() -> None:
    with pytest.raises(TypeError, match="on_evict belongs to a cache of one process"):
        vrange.VolatileCache(shared="a", on_evict=print)
