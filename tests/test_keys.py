"""vrange.keys.content: one key for equal content, another for anything else."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Hashable
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vrange
from vrange.keys import content


@dataclasses.dataclass
class Point:
    x: Any
    y: Any


def frame(last: float = 3.0) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "a": [1.0, 2.0, last],
            "b": ["x", "y", None],
            "c": pd.Categorical(["u", "v", "u"]),
            "d": pd.to_datetime(["2026-01-01", "2026-01-02", "2026-01-03"], utc=True),
            "e": pd.array([1, None, 3], dtype="Int64"),
        }
    )


DIFFERENT: list[Callable[[], Any]] = [
    lambda: 1,
    lambda: "1",
    lambda: None,
    lambda: (1, 2),
    lambda: [1, 2],
    lambda: [2, 1],
    lambda: [[1], 2],
    lambda: [1, [2]],
    lambda: {1, 2},
    lambda: {"a": 1},
    lambda: {"a": 2},
    lambda: {"a": 1, "b": 2},
    lambda: {"b": 2, "a": 1},
    lambda: OrderedDict(a=1),
    lambda: MappingProxyType({"a": [1]}),
    lambda: MappingProxyType({"a": [2]}),
    lambda: bytearray(b"a"),
    lambda: b"a",
    lambda: np.arange(4),
    lambda: np.arange(4).reshape(2, 2),
    lambda: np.arange(4).reshape(2, 2).T,
    lambda: np.arange(4, dtype="u8"),
    lambda: np.arange(5),
    lambda: np.arange(4.0),
    lambda: np.arange(4).tobytes(),
    lambda: np.arange(4).tolist(),
    lambda: np.array(["a", [1]], dtype=object),
    lambda: np.array(["a", [2]], dtype=object),
    lambda: np.ma.masked_array([1, 2], [False, True]),
    lambda: np.ma.masked_array([1, 2], [True, False]),
    lambda: np.array([1, 2]),
    lambda: np.zeros(2, dtype=[("a", "i4"), ("b", "i4")]),
    lambda: np.zeros(2, dtype=[("a", "i4"), ("c", "i4")]),
    lambda: np.array(["2026-01-01"], dtype="M8[s]"),
    lambda: np.array(["2026-01-01"], dtype="M8[ns]"),
    lambda: {"a": np.arange(3), "b": [np.ones(2)]},
    lambda: {"a": np.arange(3), "b": [np.zeros(2)]},
    lambda: Point(1, [2]),
    lambda: Point(1, [3]),
    lambda: frame(),
    lambda: frame(4.0),
    lambda: frame().rename(columns={"a": "z"}),
    lambda: frame().set_index("a"),
    lambda: frame()[["b", "a"]],
    lambda: frame()["a"],
    lambda: frame()["a"].rename("z"),
    lambda: frame()["c"],
    lambda: pd.Index([1.0, 2.0, 3.0]),
    lambda: pd.MultiIndex.from_tuples([(1, "a"), (2, "b")]),
    lambda: pd.MultiIndex.from_tuples([(1, "a"), (2, "c")]),
]


@pytest.mark.parametrize("make", DIFFERENT)
def test_equal_content_is_one_key(make: Callable[[], Any]) -> None:
    assert content(make()) == content(make())
    assert hash(content(make())) == hash(content(make()))
    assert content(3, value=make()) == content(3, value=make())


def test_other_content_is_another_key() -> None:
    keys: dict[Hashable, int] = {}
    for i, make in enumerate(DIFFERENT):
        same = keys.setdefault(content(make()), i)
        assert same == i, (make(), DIFFERENT[same]())


def test_names_and_positions_are_told_apart() -> None:
    assert content(1, 2) != content(1, b=2) != content(a=1, b=2)
    assert content([1, 2]) != content(1, 2)
    assert content("b", 2) != content(b=2)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.floats(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(plain, plain)
def test_keys_are_equal_as_contents_are(one: Any, two: Any) -> None:
    if content(one) == content(two):
        assert one == two
    if repr(one) == repr(two):
        assert content(one) == content(two)


def test_strided_arrays_count_as_their_content() -> None:
    whole = np.arange(20).reshape(4, 5)
    assert content(whole[:, ::2]) == content(whole[:, ::2].copy())
    assert content(np.asfortranarray(whole)) == content(whole)


def test_a_function_of_arrays_and_frames() -> None:
    calls = []

    @vrange.cached(key=vrange.keys.content)
    def total(
        table: pd.DataFrame, weights: np.ndarray[Any, Any], *, options: dict[str, Any]
    ) -> float:
        calls.append(options)
        return float((table["a"].to_numpy() * weights).sum())

    weights = np.ones(3)
    assert total(frame(), weights, options={"deep": [1]}) == 6.0
    assert total(frame(), np.ones(3), options={"deep": [1]}) == 6.0
    assert len(calls) == 1
    weights[0] = 2
    assert total(frame(), weights, options={"deep": [1]}) == 7.0
    assert total(frame(), weights, options={"deep": [2]}) == 7.0
    assert len(calls) == 3


def test_what_can_be_no_key_is_refused() -> None:
    class Open:
        __hash__ = None  # type: ignore[assignment]

        def __reduce__(self) -> Any:
            raise TypeError("it is open")

    with pytest.raises(TypeError, match=r"Open can't be a part of a key: .*hashed.*it is open"):
        content(1, [Open()])
