"""Volatile arrays below the refault rung: ordinary ones if they fit, or refused with the reason."""

from __future__ import annotations

import os

import pytest
from array_support import RUNG, ends_well


@pytest.mark.parametrize("rung", ["sentinel", "eager"])
def test_lower_rungs_refuse_and_offer_eager(rung: str) -> None:
    code = """
    for fill in (vrange.fills.zero(), lambda start, out: out.fill(0)):
        try:
            vrange.VolatileArray(1 << 20, "u1", fill=fill, eager=False)
        except vrange.VrangeError as error:
            print(error)
    def count(start, out): out[:] = np.arange(start, start + len(out))
    a = vrange.VolatileArray((4, 5), "i8", fill=count, eager=True)
    assert np.array_equal(np.asarray(a), np.arange(20).reshape(4, 5))
    assert not np.asarray(a).flags.writeable
    a.discard()
    assert a.resident_bytes == a.nbytes == a.refilled_bytes and a.refaults == 0
    with a.pin(slice(1, 3)) as view: assert view[0, 0] == 5
    a.fill_ahead()
    def refuse(start, out): raise OSError("no such frame")
    try:
        vrange.VolatileArray(5, "i8", fill=refuse, eager=True)
    except vrange.RegenerationError as error:
        assert isinstance(error.__cause__, OSError)
    else:
        raise AssertionError
    data = np.arange(100000)
    packed = vrange.fills.compressed(data)
    b = vrange.VolatileArray(100000, "i8", fill=packed, eager=True)
    assert np.array_equal(np.asarray(b), data)
    """
    said = ends_well(code, environment={"VRANGE_RUNG": rung})
    assert said.count("needs the refault rung") == 2
    assert said.count(f"VRANGE_RUNG={rung} asks for a lower rung") == 2
    assert said.count("eager=True makes an ordinary array") == 2


@pytest.mark.parametrize("rung", ["sentinel", "eager"])
def test_a_lower_rung_makes_ordinary_arrays_and_warns_once(rung: str) -> None:
    """Most containers refuse userfaultfd. A program that uses arrays goes on there."""
    code = """
    import warnings
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        made = [
            vrange.VolatileArray((3, 1000), "i4", fill=fill)
            for fill in (vrange.fills.pattern([1, 2]), lambda start, out: out.fill(7))
        ]
    [warning] = told
    assert warning.category is RuntimeWarning and warning.filename == "<child>", warning
    print(warning.message)
    for array, first in zip(made, (1, 7)):
        for _ in range(2):
            assert array[0, 0] == first and np.asarray(array).shape == (3, 1000)
            array.discard()
        with array.pin(slice(1, 2)) as view: assert view[0, 0] == first
        assert array.resident_bytes == array.nbytes and "eager" in repr(array)
    """
    said = ends_well(code, environment={"VRANGE_RUNG": rung})
    assert "ordinary ones in this process" in said
    assert f"VRANGE_RUNG={rung} asks for a lower rung" in said


@pytest.mark.parametrize("rung", ["sentinel", "eager"])
def test_an_array_larger_than_memory_is_refused_on_a_lower_rung(rung: str) -> None:
    """As an ordinary array, it would be the reason for a kill."""
    code = """
    called = []
    def fill(start, out): called.append(start)
    with open("/proc/meminfo") as lines: memory = int(next(lines).split()[1]) << 10
    for bytes_ in (memory, 1 << 62, 1 << 66):
        try:
            vrange.VolatileArray(bytes_ // 8, "f8", fill=fill)
        except vrange.VrangeError as error:
            print(error)
    assert not called
    with vrange.VolatileArray(1000, "f8", fill=vrange.fills.pattern(2.5)) as small:
        assert small[999] == 2.5
    """
    said = ends_well(code, environment={"VRANGE_RUNG": rung, "PYTHONWARNINGS": "ignore"})
    assert said.count("do not fit into the memory that is left") == 3


def test_this_rung() -> None:
    """What the rest of this file proves depends on it."""
    assert RUNG in ("refault", "sentinel", "eager")
    assert os.environ.get("VRANGE_RUNG", RUNG) == RUNG
