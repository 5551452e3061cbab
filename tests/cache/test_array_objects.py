"""No two callers get one array object: its shape and dtype can be set, though its content can't."""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import vrange

FIELDS = [("a", "i4"), ("b", "f8")]
OPTIONS: dict[str, Callable[[], dict[str, Any]]] = {
    "hot": dict,
    "never hot": lambda: {"hot_bytes": 0},
    "ttl": lambda: {"ttl": 1000},
    "tags": lambda: {"tags": lambda: "t"},
    "copy": lambda: {"copy": True},
    "shared": lambda: {"shared": f"test-{uuid.uuid4().hex[:12]}"},
}
VALUES: dict[str, Callable[[], Any]] = {
    "large": lambda: np.arange(5000.0),
    "small": lambda: np.arange(6.0),
    "large in Fortran order": lambda: np.asfortranarray(np.ones((50, 60))),
    "times": lambda: np.arange("2020-01", "2030-01", dtype="M8[D]"),
    "structured": lambda: np.zeros(3000, FIELDS),
    "small structured": lambda: np.zeros(3, FIELDS),
    "tuple": lambda: (np.arange(5000.0), "a", np.arange(6)),
    "long tuple": lambda: tuple(np.arange(n + 1) for n in range(40)),
    "structured in a tuple": lambda: (np.arange(5000.0), np.arange(6), np.zeros(3, FIELDS)),
    "nested": lambda: (1, (np.arange(5000.0), [np.zeros(3, FIELDS)])),
}


def arrays_in(value: Any) -> list[Any]:
    if isinstance(value, np.ndarray):
        return [value]
    return [a for item in value for a in arrays_in(item)] if isinstance(value, tuple | list) else []


def looks(value: Any) -> list[Any]:
    return [(a.shape, a.dtype.str, a.dtype.names, a.tolist()) for a in arrays_in(value)]


def deform(value: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of NumPy 2.5
        for array in arrays_in(value):
            if array.dtype.names:
                array.dtype.names = tuple("xy")
            array.shape = (-1, 1) if array.ndim == 1 else (*array.shape, 1)


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("options", OPTIONS)
def test_a_caller_that_changes_an_array_object_changes_nobody_else_s(
    options: str, value: str
) -> None:
    made: list[Any] = []

    @vrange.cached(**OPTIONS[options]())
    def function() -> Any:
        made.append(VALUES[value]())
        return made[-1]

    expected = looks(VALUES[value]())
    kept: list[Any] = []
    for turn in range(8):
        answer = function()
        assert looks(answer) == expected
        if turn % 2:  # another caller holds one meanwhile, and sees no change
            deform(answer)
            deform(function())
        else:
            kept.append(answer)
    assert [looks(answer) for answer in kept] == [expected] * len(kept)
    deform(made[0])
    assert looks(function()) == expected


def test_the_memory_is_shared() -> None:
    cache = vrange.VolatileCache[str, Any](name="memory")
    cache["a"] = np.arange(5000.0)
    views = [cache["a"] for _ in range(4)]
    assert all(np.shares_memory(views[0], view) for view in views)
    assert not any(view.flags.writeable for view in views)
    cache["t"] = np.arange("2020-01", "2030-01", dtype="M8[D]")
    assert np.shares_memory(cache["t"], cache["t"])
    cache.close()
    assert [float(view[4999]) for view in views] == [4999.0] * 4


def test_an_array_that_is_two_items_is_one_object_in_each_answer() -> None:
    cache = vrange.VolatileCache[str, Any](name="twice")
    array = np.arange(5000.0)
    cache["a"] = (array, 1, array, array[5:])
    for _ in range(6):
        answer = cache["a"]
        assert answer[0] is answer[2]
        assert np.shares_memory(answer[0], answer[3])
        assert answer[3].tolist() == list(range(5, 5000))
    cache.close()
