"""`vrange run --deep`: unchanged programs whose recursion is limited by memory alone."""

from __future__ import annotations

import os
import resource
import subprocess
from pathlib import Path

import pytest
from run_support import VRANGE, alike, plain, program, run, start

from vrange.cli.memory_cgroup import MemoryCgroup

MIB = 1 << 20
HELPERS = {"PYTHONPATH": str(Path(__file__).parents[1] / "helpers")}
IMPORTS = "import json, os, sys, threading, time\nfrom deep_program import *\n"


def deep(
    directory: Path, code: str, *options: str, timeout: float = 110, **environment: str
) -> list[str]:
    """Runs a program under --deep and returns what it prints; it must end well and say no more."""
    file = program(directory, IMPORTS + code)
    done = run("--deep", *options, file, environment={**HELPERS, **environment}, timeout=timeout)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_the_same_program_fails_without_deep(tmp_path: Path) -> None:
    file = program(tmp_path, IMPORTS + "recurse(LEVELS)\n")
    assert "RecursionError" in plain(file, environment=HELPERS).stderr
    assert "RecursionError" in run(file, environment=HELPERS).stderr


def test_main_a_thread_and_an_executor_s_worker(tmp_path: Path) -> None:
    code = """
from concurrent.futures import ThreadPoolExecutor
print(recurse(LEVELS) == os.getpid(), visit(LEVELS) == LEVELS)
print(in_thread(recurse, LEVELS) == os.getpid(), in_thread(visit, LEVELS) == LEVELS)
with ThreadPoolExecutor(2) as pool:
    print(list(pool.map(visit, [LEVELS] * 3)) == [LEVELS] * 3)
print(sys.getrecursionlimit())
"""
    assert deep(tmp_path, code) == ["True True", "True True", "True", "1000"]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_of_multiprocessing(tmp_path: Path, method: str) -> None:
    code = f"""
from concurrent.futures import ProcessPoolExecutor
import multiprocessing
def work(n):
    return recurse(n) != os.getppid() and in_thread(visit, n) == n
if __name__ == "__main__":
    with ProcessPoolExecutor(1, multiprocessing.get_context("{method}")) as pool:
        print(pool.submit(work, LEVELS).result())
"""
    assert deep(tmp_path, code) == ["True"]


def test_an_interpreter_that_the_program_starts(tmp_path: Path) -> None:
    code = """
import subprocess
code = "from deep_program import *; import sys; print(recurse(LEVELS) > 0, sys.path[1:2])"
ours = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
print(ours.stdout.strip(), ours.stderr)
"""
    assert deep(tmp_path, code) == [f"True {[HELPERS['PYTHONPATH']]} "]


def test_what_a_program_sees_else(tmp_path: Path) -> None:
    code = """
import sys, traceback
print(sys.argv, __name__, __file__, sys.path[:2], "sitecustomize" in sys.modules)
def f(n): return f(n + 1)
try:
    1 / 0
except ZeroDivisionError:
    traceback.print_exc()
sys.exit(7)
"""
    file = program(tmp_path, code)
    without, within = plain(file, "a"), run("--deep", file, "a")
    assert within.stdout == without.stdout
    assert (within.stderr, within.returncode) == (without.stderr, 7)
    assert "ZeroDivisionError" in within.stderr


def test_memory_of_stacks_is_returned(tmp_path: Path) -> None:
    """Main's and a thread's, a second after they are shallow again, without a touch of theirs."""
    code = """
import vrange
def steps():
    x = json.loads("[" * 400_000 + "]" * 400_000)
    del x
def stacks():
    return max(use.resident_bytes for use in vrange.stack_info().threads)
def used_and_left(wait):
    before = vrange.stack_info().returned_bytes
    steps()
    deadline = time.monotonic() + 10
    while stacks() > 1 << 20 and time.monotonic() < deadline:
        wait()
    return vrange.stack_info().returned_bytes - before > 30 << 20, stacks() <= 1 << 20
def busy():
    sum(range(10_000))
print(used_and_left(lambda: time.sleep(.05)), used_and_left(busy))
print(in_thread(used_and_left, lambda: time.sleep(.05)), in_thread(used_and_left, busy))
held = threading.Event()
ready = threading.Event()
def wait_afterwards():
    steps()
    ready.set()
    held.wait()
waiting = threading.Thread(target=wait_afterwards)
waiting.start()
ready.wait()
deadline = time.monotonic() + 10
while stacks() > 1 << 20 and time.monotonic() < deadline:
    time.sleep(.05)
print(stacks() <= 1 << 20, waiting.is_alive())
held.set()
waiting.join()
"""
    # A trim by `vrange run` itself would hide that nothing else returns it.
    done = deep(tmp_path, code, "--trim-every", "never", "--no-numpy")
    assert done == ["(True, True) (True, True)"] * 2 + ["True True"]


def test_a_thread_that_stays_deep_keeps_its_frames(tmp_path: Path) -> None:
    code = """
def down(n, look):
    mine = [n]
    if n == 0:
        look()
    else:
        json.loads("[1]", object_hook=None)
        sorted([n], key=lambda _: down(n - 1, look))
    assert mine == [n]
    return n
def look():
    time.sleep(1.2)
    end = time.monotonic() + 1.2
    while time.monotonic() < end:
        usual(200)
print(down(40_000, look), in_thread(down, 40_000, look))
"""
    assert deep(tmp_path, code) == ["40000 40000"]


def test_fork_in_a_thread_and_threads_in_the_child(tmp_path: Path) -> None:
    code = """
import warnings
warnings.simplefilter("ignore")
def child():
    pid = os.fork()
    if pid == 0:
        good = recurse(LEVELS) == os.getpid() and in_thread(recurse, LEVELS) == os.getpid()
        os._exit(0 if good else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
recurse(LEVELS)
print(child(), in_thread(child))
"""
    assert deep(tmp_path, code) == ["0 0"]


def test_greenlets_and_deep_calls_beside_it(tmp_path: Path) -> None:
    code = """
import greenlet, vrange
def inside():
    good = recurse(LEVELS) > 0
    greenlet.getcurrent().parent.switch(good)
    return vrange.deep_call(recurse, LEVELS) > 0
one, two = greenlet.greenlet(inside), greenlet.greenlet(inside)
print(one.switch(), two.switch(), vrange.deep_call(recurse, LEVELS) > 0, one.switch(), two.switch())
print(vrange.deep_call(recurse, LEVELS, stack="256MiB") > 0)
"""
    assert deep(tmp_path, code) == ["True True True True True", "True"]


def test_threads_of_the_program_s_own_size(tmp_path: Path) -> None:
    """A thread is as deep as its stack; a small one is left as it is."""
    code = """
from vrange._core import deep
threading.stack_size(64 << 20)
print(in_thread(recurse, LEVELS) > 0, in_thread(lambda: deep.levels_left()[0] > 100_000))
threading.stack_size(1 << 20)
print(in_thread(usual, 900), in_thread(is_refused, usual, 10_000))
"""
    assert deep(tmp_path, code) == ["True True", "900 True"]


def test_threads_of_c_have_the_stack_that_they_had(tmp_path: Path) -> None:
    code = """
import ctypes
libc = ctypes.CDLL(None)
attributes, size = ctypes.create_string_buffer(64), ctypes.c_size_t()
assert libc.pthread_getattr_default_np(attributes) == 0
libc.pthread_attr_getstacksize(attributes, ctypes.byref(size))
print(size.value)
"""
    soft = resource.getrlimit(resource.RLIMIT_STACK)[0]
    usual = 8 * MIB if soft == resource.RLIM_INFINITY else soft
    assert deep(tmp_path, code) == [str(usual)]


def limited(hard: int, *words: object) -> subprocess.CompletedProcess[str]:
    command = [*VRANGE, "run", *map(str, words)]
    limits = (min(8 * MIB, hard), hard)
    return start(
        command, HELPERS, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_STACK, limits)
    )


def test_a_hard_limit_bounds_it_and_is_named(tmp_path: Path) -> None:
    file = program(tmp_path, IMPORTS + "print(is_refused(json.loads, '[' * 2_000_000))\n")
    done = limited(64 * MIB, "--deep", file)
    assert done.stdout == "True\n"
    assert done.stderr == (
        "vrange run: --deep: stacks have 64.0 MiB, the hard limit of RLIMIT_STACK\n"
    )


@pytest.mark.parametrize(
    ("option", "hard", "said"),
    [
        ("--deep=1GiB", 64 * MIB, "64.0 MiB (ulimit -Hs)"),
        ("--deep", 8 * MIB, "8.0 MiB (ulimit -Hs)"),
        ("--deep=1MiB", 64 * MIB, "16.0 MiB to 64 TiB"),
        ("--deep=much", 64 * MIB, "stack must be"),
    ],
)
def test_what_is_refused(tmp_path: Path, option: str, hard: int, said: str) -> None:
    done = limited(hard, option, program(tmp_path, "print('ran')"))
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stdout == ""


def test_a_size_bounds_recursion_in_c(tmp_path: Path) -> None:
    code = """
n = 2_000_000
print(is_refused(json.loads, "[" * n), recurse(LEVELS) > 0)
print(in_thread(is_refused, json.loads, "[" * n))
"""
    file = program(tmp_path, IMPORTS + code)
    done = run("--deep=64MiB", file, environment=HELPERS)
    assert (done.stdout, done.stderr) == ("True True\nTrue\n", "")


def test_address_space_that_is_limited_is_left_to_the_program(tmp_path: Path) -> None:
    code = """
print(recurse(LEVELS) > 0)
waiting = threading.Event()
threads = [threading.Thread(target=waiting.wait) for _ in range(200)]
for thread in threads:
    thread.start()
waiting.set()
for thread in threads:
    thread.join()
print(len(bytearray(4 << 30)) >> 30, in_thread(usual, 900))
"""
    file = program(tmp_path, IMPORTS + code)
    limits = (8 << 30, 8 << 30)
    done = run(
        "--deep",
        file,
        environment=HELPERS,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, limits),
    )
    assert (done.stdout, done.stderr) == ("True\n4 900\n", "")


SPIN = """
import functools
def spin(n):
    return spin(n + 1)
def spin_with_objects(n):
    held = [str(n)] * 50, {n: float(n)}
    return spin_with_objects(n + 1)
@functools.cache
def cached(n):
    return cached(n + 1)
def refusals():
    told = []
    for call in (spin, 0), (spin_with_objects, 0), (cached, 0), (json.loads, "[" * 3_000_000):
        told += [is_refused(*call), is_refused(*call)]
        cached.cache_clear()
    return all(told)
"""


@pytest.mark.memory_cgroup
@pytest.mark.parametrize("limit", [64 * MIB, 192 * MIB])
def test_runaway_recursion_is_a_recursion_error_within_the_limit(
    tmp_path: Path, limit: int
) -> None:
    """In main and in threads, beside another one that allocates."""
    code = """
stop = threading.Event()
def allocate():
    while not stop.is_set():
        held = bytearray(2 << 20)
        time.sleep(.001)
other = threading.Thread(target=allocate)
other.start()
print(refusals(), in_thread(refusals), refusals())
stop.set()
other.join()
"""
    file = program(tmp_path, IMPORTS + SPIN + code)
    with MemoryCgroup(limit, name="vrange-run-deep") as cgroup:
        done = run(
            "--deep",
            "--no-numpy",
            file,
            environment=HELPERS,
            preexec_fn=lambda: cgroup.add(os.getpid()),
            timeout=110,
        )
        assert cgroup.oom_kills == 0, done
    assert (done.stdout, done.stderr) == ("True True True\n", "")


def test_an_interpreter_without_vrange_says_so_once(tmp_path: Path) -> None:
    assert alike("-c", "print(1)").stdout == "1\n"
    done = run("--deep", "-c", "import sys; print(sys.flags.no_site)")
    assert done.stdout == "0\n"
