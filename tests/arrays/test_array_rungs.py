"""Volatile arrays below the refault rung: refused with the reason, and ordinary ones offered."""

from __future__ import annotations

import os

import pytest
from array_support import RUNG, ends_well


@pytest.mark.parametrize("rung", ["sentinel", "eager"])
def test_lower_rungs_refuse_and_offer_eager(rung: str) -> None:
    code = """
    for fill in (vrange.fills.zero(), lambda start, out: out.fill(0)):
        try:
            vrange.VolatileArray(1 << 20, "u1", fill=fill)
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


def test_this_rung() -> None:
    """What the rest of this file proves depends on it."""
    assert RUNG in ("refault", "sentinel", "eager")
    assert os.environ.get("VRANGE_RUNG", RUNG) == RUNG
