"""Keys: equal ones are one key in all processes, and what can't be compared there is refused."""

from __future__ import annotations

import datetime
import enum
import os
import pathlib
import subprocess
import sys
import uuid
from collections import namedtuple
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vrange
from vrange._stable_keys import form_of, key_of

Point = namedtuple("Point", "x y")


class Colour(enum.Enum):
    RED = 1


class Number(enum.IntEnum):
    ONE = 1


@dataclass(frozen=True)
class Frozen:
    a: int
    b: Any


class Text(str):
    __slots__ = ()


KEYS = [
    None,
    0,
    1,
    -1,
    10**40,
    0.5,
    1e300,
    float("inf"),
    1j,
    "",
    "a",
    "é\ud800",
    b"a",
    (),
    (1,),
    ((1,), "a"),
    frozenset({1, "a", (2,)}),
    Decimal("0.1"),
    Fraction(1, 3),
    datetime.date(2026, 1, 2),
    datetime.datetime(2026, 1, 2),
    datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
    datetime.time(1, 2),
    datetime.timedelta(1, 2),
    uuid.UUID(int=3),
    pathlib.Path("/tmp"),
    Colour.RED,
    Frozen(1, (2, "x")),
    int,
]
EQUAL = [
    (1, True),
    (1, 1.0),
    (1, np.int64(1)),
    (1, np.bool_(True)),
    (1, Decimal(1)),
    (1, Decimal("1.0")),
    (1, Fraction(1)),
    (1, 1 + 0j),
    (1, Number.ONE),
    (0, -0.0),
    (0.5, Decimal("0.5")),
    (0.5, Fraction(1, 2)),
    (0.5, np.float32(0.5)),
    (10**300, Decimal(10**300)),
    (float("inf"), Decimal("Infinity")),
    ("a", Text("a")),
    ("a", np.str_("a")),
    ((1, 2), Point(1, 2.0)),
    ((1, (True,)), (1.0, (1,))),
    (frozenset({1, 2}), frozenset({2.0, True})),
    (pathlib.Path("a/b"), pathlib.PurePosixPath("a/b")),
    (Frozen(1, 2), Frozen(True, 2.0)),
    (
        datetime.datetime(2026, 1, 2, 12, tzinfo=datetime.UTC),
        datetime.datetime(2026, 1, 2, 14, tzinfo=datetime.timezone(datetime.timedelta(hours=2))),
    ),
]


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_keys_that_a_dict_takes_for_one_are_one(one: Any, other: Any) -> None:
    assert one == other
    assert hash(one) == hash(other)
    assert form_of(one) == form_of(other)


def test_other_keys_are_other_keys() -> None:
    assert len({form_of(key) for key in KEYS}) == len(KEYS)
    for key in KEYS:
        assert key_of(form_of(key)) == key


numbers = (
    st.integers()
    | st.floats(allow_nan=False)
    | st.booleans()
    | st.fractions()
    | st.decimals(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
)
plain = numbers | st.text() | st.binary() | st.none()
nested = st.recursive(
    plain, lambda of: st.tuples(of, of) | st.frozensets(of, max_size=3), max_leaves=5
)


@given(nested, nested)
def test_forms_are_equal_where_keys_are(one: Any, other: Any) -> None:
    assert (form_of(one) == form_of(other)) == (one == other)
    assert key_of(form_of(one)) == one


@given(numbers, numbers)
def test_forms_are_equal_where_numbers_are(one: Any, other: Any) -> None:
    assert (form_of(one) == form_of(other)) == (one == other)


def test_forms_do_not_depend_on_the_hash_seed() -> None:
    program = (
        "from vrange._stable_keys import form_of\n"
        "print(form_of((frozenset({'a', 'b', 'c', 1, 2.5, (3, 'x')}), 'k', b'b', None)).hex())"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(printed) == 1


class Plain:
    pass


@dataclass(eq=True, unsafe_hash=True)
class NotFrozen:
    a: int


@pytest.mark.parametrize(
    "key", [Plain(), print, lambda: 1, NotFrozen(1), (1, Plain()), object(), np.datetime64(1, "s")]
)
def test_what_other_processes_can_not_compare_is_refused(cache: Any, key: Any) -> None:
    hash(key)
    with pytest.raises(TypeError, match="key="):
        cache[key] = 1
    with pytest.raises(TypeError, match="key="):
        cache.get_or_compute(key, lambda: 1)


def test_a_class_without_a_name_is_refused(cache: Any) -> None:
    class Local:
        pass

    with pytest.raises(TypeError, match="no name in other processes"):
        cache[Local] = 1


def test_what_can_not_be_hashed_is_refused(cache: Any) -> None:
    with pytest.raises(TypeError, match="unhashable"):
        cache[[1]] = 1


def test_contents_are_keys(cache: Any) -> None:
    one = vrange.keys.content(np.ones(1000), {"a": [1, 2]})
    other = vrange.keys.content(np.ones(1000), {"a": [1, 2]})
    cache[one] = 1
    assert cache[other] == 1
    assert vrange.keys.content(np.zeros(1000), {"a": [1, 2]}) not in cache


def test_a_long_key_is_compared(cache: Any) -> None:
    cache["x" * 3000] = 1
    cache["x" * 100_000] = b"2" * 100_000
    assert cache["x" * 3000] == 1
    assert cache["x" * 100_000] == b"2" * 100_000
    assert "x" * 3001 not in cache
