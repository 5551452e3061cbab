"""An index with any words in it: processes that use it find values or none, and go on."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shared_peers import Peer

import vrange

ROUNDS = 60
KEYS = 40
EDGES = (0, 1, 7, 1 << 31, (1 << 32) - 1, 1 << 62, (1 << 63) - 1, (1 << 64) - 1)


def _path(cache: Any) -> str:
    return str(cache._values.index.path)


def _fill(cache: Any) -> None:
    for n in range(KEYS):
        cache[n] = n
        cache["text", n] = "words " * n


def _use(cache: Any) -> None:
    """Every operation; what it finds is of no interest."""
    for n in range(KEYS + 2):
        cache.get(n)
        cache.get(("text", n))
        assert cache.get_or_compute(("new", n % 5), lambda: "computed") is not None
    for n in range(5):
        cache[n] = n
        cache.pop(("text", n), None)
    len(cache)
    list(cache)
    cache.info()


def _open_anew(cache: Any, name: str) -> None:
    with suppress(vrange.VrangeError), vrange.VolatileCache[Any, Any](shared=name) as other:
        _use(other)


def damage(path: Path, used: np.ndarray[Any, Any], draw: random.Random) -> None:
    """Write words where something is, as most of an index is empty; half of them in its head."""
    head = used[used < 4096]
    with path.open("r+b", buffering=0) as file:
        for _ in range(draw.choice((1, 1, 2, 8, 64))):
            file.seek(int(draw.choice(head if draw.random() < 0.5 else used)))
            word = draw.choice((draw.choice(EDGES), draw.getrandbits(64)))
            file.write(word.to_bytes(8, "little"))


@pytest.mark.parametrize("seed", range(2))
def test_any_words_of_an_index_end_no_process(
    name: str, new_peer: Callable[..., Peer], seed: int
) -> None:
    peer = new_peer()
    peer.ask(_fill)
    path = Path(peer.ask(_path))
    whole = path.read_bytes()
    used = 8 * np.flatnonzero(np.frombuffer(whole, "u8"))
    draw = random.Random(seed)
    for number in range(ROUNDS):
        damage(path, used, draw)
        try:
            peer.ask(_use)
            peer.ask(_open_anew, name)
        except (AssertionError, EOFError) as error:
            raise AssertionError(f"round {number}: {error!r}") from error
        with path.open("r+b") as file:
            file.write(whole)
