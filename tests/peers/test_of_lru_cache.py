"""CPython's own tests of functools.lru_cache and cache, with vrange.cached in their place."""

from __future__ import annotations

import functools
import unittest
from types import SimpleNamespace
from typing import Any, ClassVar

from test import test_functools

import vrange


def lru_cache(maxsize: Any = 128, typed: bool = False) -> Any:
    return vrange.cached(maxsize, typed=typed)


@vrange.cached
def cached_func(x: Any, y: Any) -> Any:
    return 3 * x + y


class TestLRU(test_functools.TestLRU, unittest.TestCase):  # type: ignore[misc]
    module: ClassVar[Any] = SimpleNamespace(
        **{**vars(functools), "lru_cache": lru_cache, "cache": vrange.cached}
    )
    cached_func: ClassVar[Any] = (cached_func,)  # in a tuple, or it would be a method

    @vrange.cached
    def cached_meth(self, x: Any, y: Any) -> Any:
        return 3 * x + y

    @staticmethod
    @vrange.cached
    def cached_staticmeth(x: Any, y: Any) -> Any:
        return 3 * x + y
