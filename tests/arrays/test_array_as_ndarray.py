"""Operators, ufuncs and NumPy's functions over an array: right, or refused in words."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from array_support import content_of, on_refault, same

import vrange
from vrange import fills

BINARY = [
    operator.eq,
    operator.ne,
    operator.lt,
    operator.le,
    operator.gt,
    operator.ge,
    operator.add,
    operator.sub,
    operator.mul,
    operator.truediv,
    operator.floordiv,
    operator.mod,
    divmod,
]
COUNT = np.arange(1, 5001, dtype="i8")


@pytest.fixture
def counted(make: Callable[..., Any]) -> Any:
    return make(COUNT)


def lost(a: Any) -> Any:
    a.discard()
    return a


WHOLE = ["native", "python in a touch", "eager"]
readable_only = pytest.mark.parametrize("make", WHOLE, indirect=True)
python_only = pytest.mark.parametrize("make", ["python"], indirect=True)


@readable_only
@pytest.mark.parametrize("operation", BINARY)
def test_binary_operators(counted: Any, operation: Callable[..., Any]) -> None:
    for other in (3, 2.5, COUNT[::-1], np.int64(2)):
        for wanted, got in (
            (operation(COUNT, other), operation(lost(counted), other)),
            (operation(other, COUNT), operation(other, lost(counted))),
        ):
            assert type(got) is type(wanted)
            assert np.array_equal(np.asarray(got), np.asarray(wanted))
    assert same(operation(lost(counted), counted), operation(COUNT, COUNT))


@readable_only
def test_other_operators(counted: Any) -> None:
    assert same(-counted, -COUNT)
    assert same(abs(-counted), COUNT)
    assert same(~counted, ~COUNT)
    assert same(counted**2, COUNT**2)
    assert same(2.0 ** (counted % 7), 2.0 ** (COUNT % 7))
    assert same(counted << 2, COUNT << 2)
    assert same(counted & 6 | 1 ^ counted, COUNT & 6 | 1 ^ COUNT)
    assert counted @ counted == COUNT @ COUNT
    assert counted @ COUNT == COUNT @ counted == COUNT @ COUNT


@readable_only
def test_a_mask_selects(counted: Any) -> None:
    assert COUNT[lost(counted) == 5].tolist() == [5]
    assert COUNT[counted > 4998].tolist() == [4999, 5000]
    assert not np.any(counted == "text")
    assert not np.any(counted == None)  # noqa: E711 - by element, as for an ndarray


@readable_only
def test_structures_are_compared(make: Callable[..., Any]) -> None:
    content = np.zeros(3000, [("x", "i4"), ("y", "f4")])
    content["x"] = np.arange(3000)
    a = make(content)
    assert np.flatnonzero(lost(a) == content[7]).tolist() == [7]
    assert not np.any(lost(a) != content)


@readable_only
def test_ufuncs_and_functions(counted: Any) -> None:
    content = COUNT
    for function in (np.sqrt, np.sum, np.mean, np.sort, np.unique, np.max, np.flip, np.diff):
        lost(counted)
        assert same(function(counted), function(content)), function
    assert np.add.reduce(counted) == content.sum()
    assert same(np.multiply.outer(counted[:3], counted), np.multiply.outer(content[:3], content))
    assert same(np.concatenate([counted, counted]), np.concatenate([content, content]))
    assert same(np.where(counted > 3, counted, 0), np.where(content > 3, content, 0))
    assert np.array_equal(counted, content)
    assert np.allclose(content, counted)
    out = np.zeros(len(content), "i8")
    assert np.add(counted, 1, out=out, where=counted > 3) is out
    assert out[-1] == 5001
    out += counted
    assert out[-1] == 10001


@readable_only
def test_it_is_an_operand_of_pandas(counted: Any) -> None:
    series = pd.Series(COUNT)
    for got in (series + counted, counted + series):
        assert type(got) is pd.Series
        assert got.tolist() == (2 * COUNT).tolist()


@python_only
def test_a_python_fill_refuses(counted: Any) -> None:
    """What would touch memory that nobody pinned: never a wrong answer instead."""
    uses: list[Callable[[], object]] = [
        lambda: counted == 5,
        lambda: counted + 1,
        lambda: 1 + counted,
        lambda: counted > COUNT,
        lambda: np.sum(counted),
        lambda: np.concatenate([counted, counted]),
        lambda: np.array_equal(counted, COUNT),
        lambda: np.savez("never made", counted),
    ]
    if counted._eager is not None:
        return  # below the refault rung all are eager
    for use in uses:
        with pytest.raises(TypeError, match=r"array 'array' is filled by a Python function"):
            use()


def test_what_reads_no_content(make: Callable[..., Any]) -> None:
    a = make(content_of((7, 5), "f4"))
    assert (np.shape(a), np.ndim(a), np.size(a)) == ((7, 5), 2, 35)
    assert same(np.zeros_like(a), np.zeros((7, 5), "f4"))
    assert same(np.ones_like(a, dtype="i2"), np.ones((7, 5), "i2"))
    assert np.isrealobj(a)


def test_it_is_not_written_to(make: Callable[..., Any]) -> None:
    a = make(COUNT)
    in_place: list[Any] = [operator.iadd, operator.imul, operator.ior, operator.itruediv]
    for operation in in_place:
        with pytest.raises(TypeError, match=r"'array' is read-only.*from its fill: np\.\w+ can't"):
            operation(a, 1)
    with pytest.raises(TypeError, match=r"np\.add can't write"):
        np.add(COUNT, 1, out=a)
    with pytest.raises(TypeError, match=r"np\.add can't write"):
        np.add.at(a, [0], 1)
    with pytest.raises(TypeError, match="an item can't be assigned"):
        a[0] = 1
    with pytest.raises(TypeError, match="an item can't be deleted"):
        del a[0]
    with pytest.raises((TypeError, ValueError)):
        np.copyto(a, 1)
    assert a[0] == 1


def test_as_a_sequence(make: Callable[..., Any]) -> None:
    a = make(COUNT)
    assert (len(a), list(a)[-1], next(reversed(a))) == (5000, 5000, 5000)
    assert 5000 in lost(a)
    assert 0 not in lost(a)
    with pytest.raises(TypeError, match="unhashable type: 'VolatileArray'"):
        hash(a)
    table = make(COUNT.reshape(50, 100))
    assert 4321 in table
    assert 0 not in table
    single = make(np.array(7))
    with pytest.raises(TypeError, match="no dimensions"):
        iter(single)
    with pytest.raises(TypeError, match="no dimensions"):
        len(single)
    assert 7 in single


def test_as_a_number(make: Callable[..., Any]) -> None:
    seven = make(np.array(7))
    assert (int(seven), float(seven), complex(seven), bool(seven)) == (7, 7.0, 7 + 0j, True)
    assert range(10)[seven] == 7
    assert not make(np.zeros(1))
    many = make(COUNT)
    with pytest.raises(ValueError, match=r"of 5000 elements is ambiguous: use np.any"):
        bool(many)
    with pytest.raises(ValueError, match=r"of 0 elements is ambiguous"):
        bool(make(np.zeros(0)))
    for number in (int, float, complex):
        with pytest.raises(TypeError, match="only an array of one element"):
            number(many)
    with pytest.raises(TypeError, match="is an index"):
        operator.index(many)


def test_the_array_protocol(make: Callable[..., Any], request: pytest.FixtureRequest) -> None:
    a = make(COUNT)
    copy = a.__array__(copy=True)
    copy[0] = 9
    assert a[0] == 1
    assert same(a.__array__(dtype="f4", copy=True), COUNT.astype("f4"))
    if request.node.callspec.params["make"] == "python" and a._eager is None:
        with pytest.raises(TypeError, match="Python function"):
            a.__array__(copy=False)
        return
    assert np.shares_memory(a.__array__(), a.__array__(copy=False))
    with pytest.raises(ValueError, match="needs a copy, but copy is False"):
        a.__array__(dtype="f4", copy=False)


@on_refault
def test_np_asarray_pins_nothing() -> None:
    """NumPy asks for a buffer before it calls __array__."""
    a = vrange.VolatileArray(1 << 20, "u1", fill=fills.pattern(1))
    whole = np.asarray(a)
    assert np.stack([a[:10], np.array(a)[:10]]).sum() == 20
    assert whole[-1] == 1
    a.discard()
    assert a.resident_bytes == 0
