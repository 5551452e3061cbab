"""`vrange run` where CPython's objects are in mimalloc's heap, which no call trims."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from run_support import plain, program, run

from vrange.cli.run.mimalloc import mimalloc_options

MIMALLOC = {"PYTHONMALLOC": "mimalloc"}
FREES = """
import os, time
def mebibytes(what):
    with open("/proc/self/smaps_rollup") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith(what)) // 1024
objects = [{i: str(i)} for i in range(400_000)]
held = mebibytes("Rss")
del objects
for _ in range(40):  # the allocator looks at its pages when it is used, and not at each use
    time.sleep(0.05)
    del [bytearray(100) for _ in range(1000)][:]
    if mebibytes("LazyFree") > held // 3 or mebibytes("Rss") < held // 2:
        break
print(held, mebibytes("Rss"), mebibytes("LazyFree"), os.environ.get("MIMALLOC_PURGE_DELAY"))
"""


def test_only_where_it_serves_and_nobody_has_set_an_option() -> None:
    assert mimalloc_options({}, returns=False) == {}
    assert mimalloc_options({"PYTHONMALLOC": "malloc"}, returns=True) == {}
    for name in ("mimalloc", "mimalloc_debug"):
        told = mimalloc_options({"PYTHONMALLOC": name}, returns=False)
        assert told == {
            "MIMALLOC_PURGE_DELAY": "1",
            "MIMALLOC_ARENA_PURGE_MULT": "1",
            "MIMALLOC_PURGE_DECOMMITS": "0",
        }
    assert mimalloc_options(MIMALLOC, returns=True)["MIMALLOC_PURGE_DECOMMITS"] == "1"
    for name in told:
        assert mimalloc_options({**MIMALLOC, name: "100"}, returns=False) == {}


@pytest.mark.skipif(sys.version_info < (3, 13), reason="CPython has mimalloc from 3.13 on")
def test_what_is_freed_is_the_kernel_s(tmp_path: Path) -> None:
    file = program(tmp_path, FREES)
    held, _, lazyfree, _ = plain(file, environment=MIMALLOC).stdout.split()
    assert int(lazyfree) < int(held) // 8, "by itself it does not offer anything"
    done = run("--report", file, environment=MIMALLOC)
    held, resident, lazyfree, seen = done.stdout.split()
    assert int(lazyfree) > int(held) // 3
    assert int(resident) > int(held) // 2, "nothing was returned"
    assert seen == "None", "the program's own environment is as it was"
    assert re.search("interpreter +mimalloc, which offers freed pages", done.stderr), done.stderr
    assert re.search("malloc +on\n", done.stderr), "it serves NumPy and the libraries in C"

    returned = run("--rss", file, environment=MIMALLOC).stdout.split()
    assert int(returned[1]) - int(returned[2]) < int(held) * 3 // 4
    assert int(returned[2]) < int(held) // 8
