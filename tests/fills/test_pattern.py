"""fills.pattern: periods that fit nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from array_child import KIB, PAGE
from array_support import REFAULT, on_refault
from hypothesis import example, given
from hypothesis import strategies as st

import vrange
from vrange import fills


def repeated(data: bytes, nbytes: int) -> bytes:
    return (data * (nbytes // len(data) + 1))[:nbytes]


@on_refault
@given(
    period=st.integers(1, 40_000),
    nbytes=st.integers(1, 300_000),
    block=st.sampled_from([PAGE, 64 * KIB, 2048 * KIB]),
)
@example(period=1, nbytes=PAGE, block=PAGE)
@example(period=PAGE, nbytes=9 * PAGE, block=PAGE)
@example(period=PAGE - 1, nbytes=9 * PAGE + 1, block=PAGE)
@example(period=40_000, nbytes=300_000, block=PAGE)
def test_any_period(period: int, nbytes: int, block: int) -> None:
    data = np.random.default_rng(period).bytes(period)
    with vrange.VolatileArray(nbytes, "u1", fill=fills.pattern(data), block_bytes=block) as a:
        expected = np.frombuffer(repeated(data, nbytes), "u1")
        for place in nbytes - 1, nbytes // 2:  # blocks by themselves, from the back
            assert np.asarray(a)[place] == expected[place]
        assert np.array_equal(np.asarray(a), expected)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (7, "u1"),
        (-0.5, "f4"),
        (True, "?"),
        ([1, 2, 3], "i2"),
        (np.arange(1000), "i8"),
        (float("nan"), "f8"),
        ([float("nan"), 1], "f2"),
        (1 + 2j, "c16"),
        (np.datetime64("2020-02-02"), "M8[D]"),
        ([b"ab", b"c"], "S3"),
        ((1, 2.5), [("a", "u1"), ("b", "f4")]),
        (4.0, "i4"),
    ],
    ids=str,
)
def test_values_of_a_dtype(values: Any, dtype: Any) -> None:
    a = vrange.VolatileArray(
        5000, dtype, fill=fills.pattern(values), block_bytes=PAGE, eager=not REFAULT
    )
    pattern = np.atleast_1d(np.asarray(values, dtype))
    expected = np.resize(pattern, 5000)
    assert np.asarray(a).dtype == expected.dtype
    assert np.asarray(a).tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("values", "dtype", "words"),
    [
        ([], "i4", "at least one value"),
        (b"", "i4", "at least one value"),
        (300, "u1", "can't be repeated as uint8"),
        (-1, "u1", "can't be repeated as uint8"),
        (0.5, "i4", "can't be repeated as int32: it does not fit"),
        ([1, 1 << 40], "i4", "can't be repeated as int32"),
        (2, "?", "can't be repeated as bool: it does not fit"),
        ("word", "f4", "can't be repeated as float32"),
        (object(), "f4", "can't be repeated as float32"),
    ],
    ids=str,
)
def test_what_does_not_fit(values: Any, dtype: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        vrange.VolatileArray(10, dtype, fill=fills.pattern(values), eager=not REFAULT)


def test_repr() -> None:
    assert repr(fills.pattern(0.5)) == "fills.pattern(0.5)"
