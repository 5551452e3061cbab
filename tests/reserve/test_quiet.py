"""A process that does nothing hardly wakes up, and survives what comes after that all the same."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from support import EAGER, MIB, succeeds

from vrange.cli.memory_cgroup import MemoryCgroup

LIMIT = 512 * MIB

PRELUDE = """
import os, sys, threading, time
sys.stdin.readline()  # in its cgroup from here on
import numpy as np
import vrange
cache = vrange.VolatileCache(hot_bytes=0)
for n in range(240):
    cache[n] = np.full(1 << 20, n, np.uint8)

def threads():
    names = {}
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/comm") as name:
            names[name.read().strip()] = task
    return names

def wakes():
    total = 0
    for name, task in threads().items():
        if name.startswith("vrange-"):
            with open(f"/proc/self/task/{task}/status") as status:
                total += int(status.read().split("\\nvoluntary_ctxt_switches:")[1].split()[0])
    return total

def rest():
    # After a second without any change, and some longer and longer sleeps, the thread is at rest.
    time.sleep(3)
"""


def in_cgroup(code: str, cgroup: MemoryCgroup) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", PRELUDE + code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    cgroup.add(child.pid)
    assert child.stdin
    child.stdin.write("go\n")
    child.stdin.flush()
    return child


def ends_well(code: str) -> str:
    with MemoryCgroup(LIMIT) as cgroup:
        output, _ = (child := in_cgroup(code, cgroup)).communicate(timeout=100)
        assert cgroup.oom_kills == 0
        assert child.returncode == 0
        return output


WAKES = """
for _ in range(12):  # a busy machine lets it come to rest later
    before = wakes()
    time.sleep(1)
    if wakes() - before <= 5:
        break
before = wakes()
time.sleep(3)
print(wakes() - before)
"""


@pytest.mark.memory_cgroup
def test_a_process_at_rest_wakes_at_most_five_times_a_second() -> None:
    assert int(ends_well(WAKES)) <= 15


def test_nor_does_it_without_a_limit() -> None:
    assert int(succeeds(PRELUDE.replace("sys.stdin.readline()", "") + WAKES)) <= 15


@pytest.mark.memory_cgroup
def test_a_store_wakes_the_thread() -> None:
    code = """
rest()
before = vrange.stats().reserve.ticks
cache["new"] = np.ones(1 << 20, np.uint8)
time.sleep(0.5)
print(vrange.stats().reserve.ticks - before)
"""
    assert int(ends_well(code)) > 5  # asleep, it would have been one


@pytest.mark.memory_cgroup
@pytest.mark.parametrize("how", ["one", "many", "threads"])
def test_a_burst_after_rest_is_survived(how: str) -> None:
    code = f"""
held = []
def take(times, megabytes):
    for _ in range(times):
        held.append(np.ones(megabytes << 20, np.uint8))
rest()
if {how!r} == "one":
    take(1, 360)
elif {how!r} == "many":
    take(36, 10)
else:
    workers = [threading.Thread(target=take, args=(9, 10)) for _ in range(4)]
    for worker in workers: worker.start()
    for worker in workers: worker.join()
assert sum(array.nbytes for array in held) == 360 << 20
"""
    ends_well(code)


@pytest.mark.memory_cgroup
def test_a_burst_is_survived_where_files_fill_the_cgroup(tmp_path: object) -> None:
    path = os.path.join(str(tmp_path), "log")
    with open(path, "wb") as file:
        file.write(bytes(400 * MIB))
    code = f"""
with open({path!r}, "rb", buffering=0) as file:
    while file.read(1 << 20): pass
rest()
held = [np.ones(10 << 20, np.uint8) for _ in range(36)]
"""
    ends_well(code)


@pytest.mark.memory_cgroup
@pytest.mark.skipif(EAGER, reason="on the eager rung nothing is offered")
def test_a_limit_that_is_lowered_wakes_the_thread() -> None:
    code = """
rest()
print(vrange.stats().reserve.offered_bytes >> 20, flush=True)
sys.stdin.readline()
deadline = time.monotonic() + 20
while vrange.stats().reserve.offered_bytes == 0:
    assert time.monotonic() < deadline, "nothing is offered"
    time.sleep(0.001)
"""
    with MemoryCgroup(1024 * MIB) as cgroup, in_cgroup(code, cgroup) as child:
        assert child.stdin
        assert child.stdout
        assert child.stdout.readline() == "0\n"
        cgroup.limit_bytes = 352 * MIB
        child.stdin.write("go\n")
        child.stdin.close()
        assert child.wait(60) == 0
        assert cgroup.oom_kills == 0


@pytest.mark.memory_cgroup
def test_waiting_for_the_kernel_takes_no_descriptor_of_the_program() -> None:
    code = """
before = sorted(os.listdir("/proc/self/fd"))
rest()
assert sorted(os.listdir("/proc/self/fd")) == before
print(*threads())
os.closerange(3, 1000)  # and closing all of them does it no harm
rest()
before = wakes()
time.sleep(3)
print(wakes() - before)
"""
    names, woken = ends_well(code).splitlines()
    assert "vrange-alarm" in names.split()
    assert int(woken) <= 15
