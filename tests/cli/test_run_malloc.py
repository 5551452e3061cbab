"""`vrange run`: large blocks of all libraries come from the heap, in this program only."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import psutil
import pytest
from run_support import VRANGE, plain, program, run, start
from support import MIB, wait_until

import vrange.malloc
from vrange._counters.lazyfree import lazyfree_bytes

USED = """
import subprocess, sys
LOOK = '''
import os
with open("/proc/self/maps") as maps:
    print("libvrange_malloc" in maps.read(), os.environ.get("LD_PRELOAD"), flush=True)
'''
exec(LOOK)
subprocess.run([sys.executable, "-c", LOOK])
"""


def test_the_program_has_it_and_does_not_see_it(tmp_path: Path) -> None:
    for asked_for in ([], ["--malloc"]):
        assert run(*asked_for, program(tmp_path, USED)).stdout == "True None\nFalse None\n"
    assert run("--no-malloc", program(tmp_path, USED)).stdout == "False None\nFalse None\n"


def test_children_have_it_if_asked_for(tmp_path: Path) -> None:
    library = vrange.malloc.library()
    done = run("--children", program(tmp_path, USED))
    assert done.stdout == f"True {library}\nTrue {library}\n"


def test_bytes_come_from_the_heap_and_the_program_is_the_same(tmp_path: Path) -> None:
    code = """
import os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of a fork with threads, from 3.12 on
blocks = [bytes(100_000) for _ in range(200)]
if "vrange._core" in sys.modules:
    core = sys.modules["vrange._core"]
    info = core.ffi.new("vrange_heap_info *")
    core.lib.vrange_heap_read(info)
    assert info.used_bytes >= 200 * 100_000, info.used_bytes
del blocks
if (child := os.fork()) == 0:
    bytes(1 << 20)
    os._exit(3)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), sys.argv)
"""
    file = program(tmp_path, code)
    within, without = run(file, "a"), plain(file, "a")
    assert (within.stdout, within.stderr) == (without.stdout, without.stderr)
    assert within.stdout.startswith("3 ")


def test_another_allocator_serves_where_it_is_preloaded(tmp_path: Path) -> None:
    """It is left alone, the report says so, and --malloc insists."""
    file = program(tmp_path, "print('ran')")
    jemalloc = {"LD_PRELOAD": "libjemalloc.so.2"}
    refusal = "libjemalloc.so.2, and only one allocator can serve malloc"
    found = run("--report", file, environment=jemalloc)
    assert (found.returncode, found.stdout) == (0, "ran\n")
    assert re.search(f"malloc +off: LD_PRELOAD has {refusal}", found.stderr), found.stderr
    found = run("--malloc", file, environment=jemalloc)
    assert (found.returncode, found.stdout) == (2, "")
    assert refusal in found.stderr


def test_a_program_with_a_sanitizer_runs_without(tmp_path: Path) -> None:
    source, built = tmp_path / "one.c", tmp_path / "one"
    source.write_text('#include <stdio.h>\nint main(void) { puts("ran"); return 0; }\n')
    flags = ["-fsanitize=address", str(source), "-o", str(built)]
    if subprocess.run(["gcc", *flags], capture_output=True, check=False).returncode != 0:
        pytest.skip("this compiler has no sanitizer")
    assert start([str(built)], None).stdout == "ran\n"
    assert run(built).stdout == "ran\n"
    refused = run("--malloc", built)
    assert refused.returncode == 2
    assert "is built with a sanitizer" in refused.stderr


def test_the_report_says_whether_it_served(tmp_path: Path) -> None:
    file = program(tmp_path, "pass")
    assert re.search("malloc +on\n", run("--report", file).stderr)
    assert re.search("malloc +off: not asked for", run("--no-malloc", "--report", file).stderr)


@pytest.mark.parametrize("numpy", [[], ["--no-numpy"]])
def test_beside_numpy_s_handler(tmp_path: Path, numpy: list[str]) -> None:
    code = "import numpy; a = numpy.ones(1 << 20); print((a * 2 + a).sum(), bytes(1 << 20) == b'')"
    done = run(*numpy, program(tmp_path, code))
    assert (done.stdout, done.stderr) == ("3145728.0 False\n", "")


ARROW = """
import gc, subprocess, sys, threading, time
import pyarrow

def resident():
    with open("/proc/self/statm") as file: return int(file.read().split()[1]) << 12

def tables():  # freed by another thread than the one that trims
    columns = [pyarrow.array([f"row {row} of {at}" for row in range(200_000)]) for at in range(6)]
    pool = pyarrow.default_memory_pool().backend_name
    sys.stdout.write(f"{pool} {pyarrow.total_allocated_bytes()}\\n")  # whole, in two threads

pyarrow.array(["imports pandas"])
before = resident()
thread = threading.Thread(target=tables)
thread.start()
tables()
thread.join()
gc.collect()
end = time.monotonic() + 30
while resident() > before + (8 << 20) and time.monotonic() < end:
    time.sleep(0.5)
print((resident() - before) >> 20)
code = "import pyarrow; print(pyarrow.default_memory_pool().backend_name)"
subprocess.run([sys.executable, "-c", code], check=True)
"""


def test_what_arrow_has_freed_comes_back(tmp_path: Path) -> None:
    """Its own allocator keeps what one thread has freed, and no other thread can return it."""
    pytest.importorskip("pyarrow")
    file = program(tmp_path, ARROW)
    done = run("--report", file)
    pool, again, kept, of_child = done.stdout.splitlines()
    assert pool.split()[0] == again.split()[0] == "system"
    assert int(kept) <= 8, done.stdout
    assert of_child != "system", "the children of the program do not have vrange's malloc"
    assert re.search("arrow +on\n", done.stderr), done.stderr


def test_a_choice_of_arrow_s_pool_stays(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    code = "import os, pyarrow; print(pyarrow.default_memory_pool().backend_name, dict(os.environ))"
    file = program(tmp_path, code)
    done = run("--report", file, environment={"ARROW_DEFAULT_MEMORY_POOL": "mimalloc"})
    assert done.stdout.startswith("mimalloc ")
    assert "'ARROW_DEFAULT_MEMORY_POOL': 'mimalloc'" in done.stdout
    assert "off: ARROW_DEFAULT_MEMORY_POOL is 'mimalloc'" in done.stderr
    assert run("--no-malloc", file).stdout == plain(file).stdout


RESIDENT = """
import os, resource, sys, time
blocks = [bytearray(b"x") * (100 << 10) for _ in range(1000)]
kept = blocks[::8]
del blocks
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
bytearray(b"x") * (16 << 20)
before = faults()
for _ in range(4):
    time.sleep(0.2)
    bytearray(b"x") * (16 << 20)
print(faults() - before, flush=True)
sys.stdin.readline()
assert all(one == b"x" * (100 << 10) for one in kept)
"""


@pytest.mark.parametrize("options", [["--rss"], []], ids=["returned", "offered"])
def test_rss_returns_what_is_idle_and_a_loop_meets_no_fault(
    tmp_path: Path, options: list[str]
) -> None:
    file = str(program(tmp_path, RESIDENT))
    started = [*VRANGE, "run", "--trim-every", "never", *options, file]
    with subprocess.Popen(
        started, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        process = psutil.Process(child.pid)
        assert int(child.stdout.readline()) < 12_000  # of 16,384 pages: not each time
        if options:
            wait_until(lambda: process.memory_info().rss < 70 * MIB, "it is not returned")
        else:
            wait_until(lambda: (lazyfree_bytes(child.pid) or 0) > 80 * MIB, "it is not offered")
            assert process.memory_info().rss > 120 * MIB
        child.communicate("\n", timeout=30)
        assert child.returncode == 0
