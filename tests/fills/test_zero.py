"""fills.zero."""

from __future__ import annotations

import numpy as np
from array_support import on_refault

import vrange
from vrange import fills


def test_repr() -> None:
    assert repr(fills.zero()) == "fills.zero()"


@on_refault
def test_zeros_that_are_there() -> None:
    """Not the zeros of a page that nobody filled: those would not be counted as resident."""
    with vrange.VolatileArray((1000, 1000), "f4", fill=fills.zero()) as a:
        for _ in range(2):
            a.discard()
            assert a.resident_bytes == 0
            assert not np.asarray(a).any()
            assert a.resident_bytes >= a.nbytes
