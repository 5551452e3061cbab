"""Where the memory of freed arrays is, as somebody else sees it, and that others get it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from heap.outside import Child
from support import EAGER, MIB

from vrange.cli.memory_cgroup import MemoryCgroup

PRELUDE = """
import os
os.environ["NUMPY_MADVISE_HUGEPAGE"] = str(int(HUGE))
import numpy as np, vrange, vrange.heap
vrange.heap.use_for_numpy()
"""


def field_mib(pid: int, name: str) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) / 1024
    raise KeyError(name)


def wait_for(true: Callable[[], bool], why: str) -> None:
    until = time.monotonic() + 20
    while not true():
        assert time.monotonic() < until, why
        time.sleep(0.005)


@pytest.mark.parametrize("huge", [False, True])
def test_what_was_freed_is_offered_and_a_trim_gives_it_back(huge: bool) -> None:
    code = PRELUDE.replace("HUGE", str(huge)) + textwrap.dedent("""
    kept = np.full(20 << 20, 5, np.uint8)
    arrays = [np.ones(size << 20, np.uint8) for size in (1, 3, 8, 40, 64)]
    stop("full")
    arrays.clear()
    stop("freed")
    trimmed = vrange.heap.trim().by_source["arrays"]
    info = vrange.heap.info()
    stop(trimmed, info.trimmed_bytes, info.resident_bytes, info.used_bytes)
    assert (kept == 5).all()
    assert not np.zeros(64 << 20, np.uint8).any()
    """)
    with Child(code) as child:
        child.next_stop()
        pid = child.process.pid
        full = child.anonymous_mib()
        assert field_mib(pid, "LazyFree") < 10
        child.next_stop()
        if EAGER:  # nothing is left to the kernel: what is idle goes
            wait_for(lambda: child.anonymous_mib() < full - 110, "what is idle does not go")
        else:
            wait_for(lambda: field_mib(pid, "LazyFree") >= 114, "it is not offered")
        told = [int(word) for word in child.next_stop().split()]
        assert full - child.anonymous_mib() > 110
        assert told[0] == told[1]
        if not EAGER:
            assert told[0] >= 115 * MIB
        assert told[2] == told[3], "nothing but what arrays use has memory behind it"
        child.finish()


@pytest.mark.skipif(EAGER, reason="on the eager rung it is given back, not offered")
def test_what_is_used_again_is_not_offered() -> None:
    code = PRELUDE.replace("HUGE", "False") + textwrap.dedent("""
    import resource, time
    first = np.ones(32 << 20, np.uint8)
    del first
    begun = time.monotonic()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for n in range(40):
        again = np.ones(32 << 20, np.uint8)
        del again
    stop(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults)
    """)
    with Child(code) as child:
        # 8192 for one turn, had the memory not been kept.
        assert int(child.next_stop()) < 4000
        child.finish()


HOLDER = """
import sys
import os
os.environ["NUMPY_MADVISE_HUGEPAGE"] = str(int(HUGE))
import numpy as np, vrange, vrange.heap
vrange.heap.use_for_numpy()
sys.stdin.readline()
kept = np.full(16 << 20, 7, np.uint8)
arrays = [np.ones(n, np.uint8) for n in [4 << 20] * 20 + [64 << 20] + [1 << 20] * 16]
arrays.clear()
print("freed", flush=True)
sys.stdin.readline()
info = vrange.heap.info()
print(info.resident_bytes - info.used_bytes, flush=True)
sys.stdin.readline()
assert (kept == 7).all()
a = np.arange(1 << 21)
assert ((a * 2 + a) == 3 * np.arange(1 << 21)).all()
print("content is right", flush=True)
"""
TAKER = """
import mmap, sys
sys.stdin.readline()
memory = mmap.mmap(-1, int(sys.argv[1]), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for at in range(0, len(memory), 4096):
    memory[at] = 1
print("has it", flush=True)
sys.stdin.readline()
"""


@pytest.mark.memory_cgroup
@pytest.mark.parametrize("huge", [False, True])
def test_another_process_gets_what_was_freed(huge: bool) -> None:
    """160 MiB are freed, and another process in the same small cgroup needs them."""
    freed = 160 * MIB
    with MemoryCgroup(512 * MIB) as cgroup:
        children = [
            subprocess.Popen(
                [sys.executable, "-c", code.replace("HUGE", str(huge)), str(int(freed * 0.97))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for code in (HOLDER, TAKER)
        ]
        holder, taker = children

        def tell(child: subprocess.Popen[str]) -> str:
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write("go\n")
            child.stdin.flush()
            return child.stdout.readline()

        try:
            for child in children:
                cgroup.add(child.pid)
            assert tell(holder) == "freed\n"
            if not EAGER:
                wait_for(lambda: field_mib(holder.pid, "LazyFree") >= 158, "it is not offered")
            else:
                wait_for(lambda: field_mib(holder.pid, "Anonymous") < 100, "it does not go")
            usage = cgroup.usage_bytes
            # From here on there is nothing to be had but what was freed.
            cgroup.limit_bytes = usage + (2 * MIB if not EAGER else freed)
            assert tell(taker) == "has it\n"
            left = tell(holder)
            assert int(left) <= 0.05 * freed, left
            assert cgroup.oom_kills == 0
            taker.kill()
            taker.wait()  # until then its memory is its own
            assert tell(holder) == "content is right\n"
            assert holder.wait(20) == 0
        finally:
            for child in children:
                child.kill()
                child.wait()
                for stream in (child.stdin, child.stdout):
                    assert stream is not None
                    stream.close()


@pytest.mark.memory_cgroup
def test_the_memory_limit_is_known_to_whoever_offers() -> None:
    """Near it what is freed is offered at once. The reserve is an eighth of the limit it knows."""
    code = """
import sys
sys.stdin.readline()
import vrange.heap
from vrange._core import ffi, lib
vrange.heap.use_for_numpy()
told = ffi.new("vrange_reserve_info *")
lib.vrange_reserve_read(told)
print(told.bytes)
"""
    with MemoryCgroup(256 * MIB) as cgroup:
        child = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        cgroup.add(child.pid)
        assert child.communicate("go\n", timeout=60)[0] == f"{32 * MIB}\n"
