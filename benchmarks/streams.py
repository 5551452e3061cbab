"""Streams of requests for caches of `ROOM` equal values. The same on every machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ROOM = 480
REQUESTS = 24_000
WARM_UP = 8_000  # requests that are not counted

_KEYS = 1600
_PAGE = 4096
_MS = 1_000_000


@dataclass(frozen=True)
class Stream:
    """Requests, and what each key's value costs.

    Attributes
    ----------
    keys : list[int]
        The keys in the order of the requests.
    room_bytes : int
        The bytes of the cache.
    bytes_of, cost_ns : Callable[[int], int]
        Of a key's value: its size, and the time that computing it takes.

    """

    keys: list[int]
    room_bytes: int = ROOM * _PAGE
    bytes_of: Callable[[int], int] = lambda key: _PAGE
    cost_ns: Callable[[int], int] = lambda key: _MS


def _zipf(rng: np.random.Generator, exponent: float, count: int) -> NDArray[np.int64]:
    weights = 1 / np.arange(1, _KEYS + 1) ** exponent
    cumulated = np.cumsum(weights / weights.sum())
    return np.minimum(np.searchsorted(cumulated, rng.random(count)), _KEYS - 1)


def zipf(exponent: float) -> Stream:
    """Popularity that lasts: request `k` is for the k-th most popular key with p ~ k**-exponent."""
    return Stream(_zipf(np.random.default_rng(1), exponent, REQUESTS).tolist())


def scan() -> Stream:
    """Every other request is for a key that is never requested again."""
    keys = _zipf(np.random.default_rng(1), 1.0, REQUESTS)
    keys[1::2] = np.arange(REQUESTS // 2) + 10_000
    return Stream(keys.tolist())


def shift(every: int = 3000) -> Stream:
    """Popularity that is dealt out again after `every` requests."""
    rng = np.random.default_rng(1)
    parts = [
        rng.permutation(_KEYS)[_zipf(rng, 1.0, every)] for _ in range((REQUESTS - 1) // every + 1)
    ]
    return Stream(np.concatenate(parts)[:REQUESTS].tolist())


def front(pace: int = 10) -> Stream:
    """Keys near a front that moves on by one key each `pace` requests."""
    ahead = np.random.default_rng(1).exponential(200, REQUESTS).astype(int)
    return Stream((np.arange(REQUESTS) // pace + ahead).tolist())


def window() -> Stream:
    """Any of 400 keys, of which each tenth request replaces one."""
    ahead = np.random.default_rng(1).integers(0, 400, REQUESTS)
    return Stream((np.arange(REQUESTS) // 10 + ahead).tolist())


def loop() -> Stream:
    """The same 700 keys over and over, in order: more than there is room for."""
    return Stream([number % 700 for number in range(REQUESTS)])


def epochs() -> Stream:
    """The same 700 keys over and over, each time in another order: training on a data set."""
    rng = np.random.default_rng(1)
    parts = [rng.permutation(700) for _ in range(REQUESTS // 700 + 1)]
    return Stream(np.concatenate(parts)[:REQUESTS].tolist())


def phases() -> Stream:
    """Four phases: lasting popularity, a moving front, and both once more."""
    lasting, moving = zipf(1.0).keys, front().keys
    quarter = REQUESTS // 4
    parts = [lasting[:quarter], [key + 20_000 for key in moving[quarter : 2 * quarter]]]
    parts += [lasting[2 * quarter : 3 * quarter], [key + 20_000 for key in moving[3 * quarter :]]]
    return Stream([key for part in parts for key in part])


def _mixed(keys: list[int]) -> Stream:
    """Values of 1 to 16 pages, which take 1 to 256 ms to compute."""
    rng = np.random.default_rng(2)
    count = max(keys) + 1
    sizes = (_PAGE << rng.integers(0, 5, count)).tolist()
    costs = (_MS * 2 ** rng.uniform(0, 8, count)).astype(int).tolist()
    return Stream(keys, 6 * ROOM * _PAGE, sizes.__getitem__, costs.__getitem__)


def mixed() -> Stream:
    """Lasting popularity of values that differ in size and cost."""
    rng = np.random.default_rng(1)
    return _mixed(rng.permutation(_KEYS)[_zipf(rng, 0.9, REQUESTS)].tolist())


def mixed_front() -> Stream:
    """A moving front of values that differ in size and cost."""
    return _mixed(front().keys)


STREAMS: dict[str, Callable[[], Stream]] = {
    "Zipf 0.8": lambda: zipf(0.8),
    "Zipf 1.0": lambda: zipf(1.0),
    "Zipf 1.2": lambda: zipf(1.2),
    "scan": scan,
    "moving front": front,
    "fast front": lambda: front(3),
    "moving window": window,
    "shift": shift,
    "slow shift": lambda: shift(12_000),
    "phases": phases,
    "loop": loop,
    "epochs": epochs,
    "mixed": mixed,
    "mixed front": mixed_front,
}
