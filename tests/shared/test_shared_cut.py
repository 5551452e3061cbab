"""Other code cuts the file of an index while processes use it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from shared_peers import Peer

import vrange
from vrange._service.place import path_of


def use(cache: Any, first: int) -> list[str]:
    """Store and look up more than an index holds in its first pages. Return what was warned."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for key in range(first, first + 300):
            assert cache.get(key) in (None, [key])
            assert cache.get_or_compute(key, lambda key=key: [key]) == [key]
            cache[key] = [key]
        cache.pop(first, None)
        assert first not in cache
        assert set(cache) <= {*range(1000), "mine", "a"}
        assert len(cache) <= 1000
    return [str(one.message) for one in warned]


def path(name: str) -> Path:
    found = path_of(name)
    assert found is not None
    return found


@pytest.mark.parametrize("left", [0, 5000, 300_000, -1])
def test_a_file_that_is_cut_ends_no_process(
    name: str, new_peer: Callable[..., Peer], left: int
) -> None:
    peer = new_peer()
    with vrange.VolatileCache[Any, Any](shared=name) as cache:
        assert use(cache, 0) == [] == peer.ask(use, 300)
        size = path(name).stat().st_size
        os.truncate(path(name), left if left >= 0 else size - 4096)
        warned = [*use(cache, 100), *peer.ask(use, 400)]
        if left == 0:
            assert all("each process has its own" in message for message in warned)
            assert warned  # the last one may find the file unused, and make another
        cache["mine"] = 1
        assert cache["mine"] == 1
    assert peer.ask(use, 500) == []


def test_a_new_process_refuses_a_file_that_is_cut(name: str, new_peer: Callable[..., Peer]) -> None:
    peer = new_peer()
    peer.ask(use, 0)
    os.truncate(path(name), 5000)
    with vrange.VolatileCache[Any, Any](shared=name) as cache:
        with pytest.warns(RuntimeWarning, match="is not an index, or not whole"):
            assert cache.get(1) is None
        cache[1] = 2
        assert cache[1] == 2
    peer.end()
    with vrange.VolatileCache[Any, Any](shared=name) as cache:
        assert use(cache, 0) == []


def test_a_file_that_was_removed_stays_the_cache_of_those_that_have_it(
    name: str, new_peer: Callable[..., Peer]
) -> None:
    peer = new_peer()
    with vrange.VolatileCache[Any, Any](shared=name) as cache:
        cache["a"] = 1
        peer.ask(use, 0)
        path(name).unlink()
        assert cache["a"] == 1
        cache["b"] = 2
        assert peer.ask(_get, "b") == 2


def _get(cache: Any, key: str) -> Any:
    return cache.get(key)
