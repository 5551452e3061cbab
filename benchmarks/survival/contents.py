"""The values: arrays whose bytes follow from their key, so that a wrong one shows."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np

PAGE = 4096
_RECENT = 400  # of the newest keys an old one is drawn


def maker(value_bytes: int) -> Callable[[int], np.ndarray]:
    """Return what computes the value of a key. It costs no more than the memory that it writes."""
    return lambda key: np.full(value_bytes // 8, key, np.uint64)


def is_good(key: int, value: np.ndarray) -> bool:
    """Look at a word of each page: a page that was lost unnoticed would show."""
    return bool((value[:: PAGE // 8] == key).all()) and int(value[-1]) == key


class Requests:
    """A stream of keys, half of them new, and half asked for lately."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)
        self._newest = 0

    def next(self) -> int:
        if self._newest and self._draw.random() < 0.5:
            # The newest keys most often, older ones now and then.
            back = int(_RECENT * self._draw.random() ** 3)
            return max(1, self._newest - back)
        self._newest += 1
        return self._newest
