"""CPython 3.12 and later warn of a fork in a process with threads: vrange's are none then."""

from __future__ import annotations

from support import succeeds

# OpenBLAS starts threads of its own, of which the interpreter rightly warns.
ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

CHILD = """
import os, threading, time, warnings
import numpy as np
import vrange

cache = vrange.VolatileCache()
cache["before"] = np.ones(1 << 17)

def ends_well(child):
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

def fork():
    child = os.fork()
    if child:
        return ends_well(child)
    cache["child's"] = np.ones(1 << 17)
    assert vrange.stats().reserve.running
    os._exit(0)

with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    for _ in range(10):
        fork()
        time.sleep(0)
        deadline = time.monotonic() + 20
        while not vrange.stats().reserve.running:
            assert time.monotonic() < deadline, "nobody keeps the reserve"
        cache["after"] = np.ones(1 << 17)
print([str(warning.message) for warning in told])

import multiprocessing
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    process = multiprocessing.get_context("fork").Process(target=print, args=("in a process",))
    process.start()
    process.join()
print([str(warning.message) for warning in told])
"""


def test_a_fork_is_not_warned_of_and_the_reserve_is_kept_after_it() -> None:
    assert succeeds(CHILD, environment=ENVIRONMENT).splitlines() == ["[]", "in a process", "[]"]
