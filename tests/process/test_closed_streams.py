"""A process that was started with standard streams closed: no file of vrange takes their numbers.

Otherwise what the program, or a library in C, prints would go to that file, or be read from it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from run_support import plain, program, run

LOOK = """
import os, sys
def names():
    found = []
    for number in range(3):
        try:
            found.append(os.readlink(f"/proc/self/fd/{number}"))
        except OSError:
            found.append("closed")
    return found
before = names()
streams = [stream is not None for stream in (sys.stdin, sys.stdout, sys.stderr)]
"""
USE = """
import numpy as np
import vrange
cache = vrange.VolatileCache(name="tiles")
shared = vrange.VolatileCache(shared="closed streams")
for n in range(50):
    cache.get_or_compute(n, lambda: np.full(20_000, n))
    shared.get_or_compute(n, lambda: np.full(n * 100, n))
vrange.deep_call(len, [])
file = sys.argv[2]
open(file, "wb").write(bytes(1 << 16))
array = vrange.VolatileArray((1 << 16,), "u1", fill=vrange.fills.file(file), eager=True)
assert not array[:].any()
with vrange.pressure.watch():
    pass
vrange.heap.trim()
assert names() == before, (before, names())
"""
TELL = """
open(sys.argv[1], "w").write(repr(streams))
"""


@pytest.mark.parametrize("closed", [(1,), (0, 1, 2)])
def test_no_file_takes_the_number_of_a_standard_stream(
    tmp_path: Path, closed: tuple[int, ...]
) -> None:
    def close() -> None:
        for number in closed:
            os.close(number)

    seen = tmp_path / "seen"
    used = plain(program(tmp_path, LOOK + USE + TELL), seen, tmp_path / "data", preexec_fn=close)
    assert used.returncode == 0, used.stderr
    without = seen.read_text()
    assert without == repr([number not in closed for number in range(3)])
    for options in ["--deep"], ["--report"]:
        seen.unlink()
        assert run(*options, program(tmp_path, LOOK + TELL), seen, preexec_fn=close).returncode == 0
        assert seen.read_text() == without, options
