"""The names of what the native side numbers are in the order of its numbers."""

from __future__ import annotations

import subprocess
import sys

import pytest

from vrange._core import lib
from vrange._counters.names import KINDS, RUNGS


def test_kinds_are_in_the_order_of_their_numbers() -> None:
    assert [getattr(lib, f"VRANGE_KIND_{kind.upper()}") for kind in KINDS] == [*range(len(KINDS))]
    assert len(KINDS) == lib.VRANGE_KINDS


@pytest.mark.parametrize("rung", RUNGS)
def test_the_native_side_takes_the_same_name_of_a_rung(rung: str) -> None:
    number = getattr(lib, f"VRANGE_RUNG_{rung.upper()}")
    assert RUNGS[number - 1] == rung
    code = "from vrange._core import lib; print(lib.vrange_rung())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"VRANGE_RUNG": rung},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) in (number, 0), "0: this machine refuses the rung"
