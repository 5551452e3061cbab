"""A program under `vrange run --deep` that limits itself later, as judges and test runners do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from run_support import clean_environment, program, run

OTHERS_OFF = ("--no-numpy", "--no-watch", "--trim-every", "never")
HELPERS = {"PYTHONPATH": str(Path(__file__).parents[1] / "helpers")}
IMPORTS = """
import ctypes, json, os, resource, sys, threading, time
from deep_program import *
GIB = 1 << 30
def limit(bytes_=2 * GIB):
    resource.setrlimit(resource.RLIMIT_AS, (bytes_, resource.RLIM_INFINITY))
def half_is_there():
    return len(bytearray(GIB)) == GIB
def becomes_true(what):  # a thread ends a moment after it was joined; its stack counts until then
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            return what()
        except MemoryError:
            time.sleep(.02)
def size():
    was = threading.stack_size()  # which also sets it to 0
    threading.stack_size(was)
    return was
def threads(count):
    go = threading.Event()
    started = [threading.Thread(target=go.wait) for _ in range(count)]
    for thread in started: thread.start()
    go.set()
    for thread in started: thread.join()
    return len(started)
"""


def deep(directory: Path, code: str) -> list[str]:
    file = program(directory, IMPORTS + code)
    done = run("--deep", *OTHERS_OFF, file, environment=HELPERS, timeout=110)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    "call",
    [
        "limit()",
        "resource.prlimit(0, resource.RLIMIT_AS, (2 * GIB, resource.RLIM_INFINITY))",
        "in_thread(limit)",
    ],
)
def test_what_is_reserved_for_stacks_is_returned_at_once(tmp_path: Path, call: str) -> None:
    """A program gets what it would get without --deep, and stays as deep as there is room."""
    in_thread = "in_thread" in call
    code = f"""
{call}
print(becomes_true(half_is_there) if {in_thread} else half_is_there())
print(threads(60), usual(900), recurse(LEVELS) > 0)
print(is_refused(json.loads, "[" * 3_000_000), size())
"""
    assert deep(tmp_path, code) == ["True", "60 900 True", "True 0"]


def test_while_main_is_deep_its_frames_stay(tmp_path: Path) -> None:
    code = """
def down(n):
    mine = [n]
    if n == 0:
        limit()
        print(half_is_there())
    else:
        sorted([n], key=lambda _: down(n - 1))
    assert mine == [n]
    return n
print(down(60_000))
time.sleep(1.5)
limit()
print(half_is_there(), recurse(LEVELS) > 0)
"""
    assert deep(tmp_path, code) == ["True", "60000", "True True"]


def test_a_limit_that_a_library_or_another_process_sets(tmp_path: Path) -> None:
    code = """
class Pair(ctypes.Structure):
    _fields_ = [("soft", ctypes.c_ulong), ("hard", ctypes.c_ulong)]
time.sleep(.1)  # the first look is over
assert ctypes.CDLL(None).setrlimit(resource.RLIMIT_AS, ctypes.byref(Pair(2 * GIB, 2 * GIB))) == 0
print(becomes_true(half_is_there), usual(900))
"""
    assert deep(tmp_path, code) == ["True 900"]


def test_a_higher_limit_makes_threads_deep_again_and_an_own_size_stays(tmp_path: Path) -> None:
    code = """
before = size()
limit()
within = size()
limit(resource.RLIM_INFINITY)
print(before > 1 << 24, within, size() == before, in_thread(recurse, LEVELS) > 0)
threading.stack_size(1 << 20)
limit()
limit(resource.RLIM_INFINITY)
print(size())
"""
    assert deep(tmp_path, code) == ["True 0 True True", str(1 << 20)]


def test_a_limit_that_can_t_be_set_is_refused_as_without_vrange(tmp_path: Path) -> None:
    code = """
for arguments in (99, (1, 1)), (resource.RLIMIT_AS, (2, 1)), (resource.RLIMIT_AS, 3):
    try:
        resource.setrlimit(*arguments)
    except Exception as error:
        print(type(error).__name__, error)
print(resource.setrlimit, resource.setrlimit.__text_signature__)
"""
    file = program(tmp_path, IMPORTS + code)
    plain = subprocess.run(
        [sys.executable, file], capture_output=True, text=True, env=clean_environment(**HELPERS)
    )
    assert deep(tmp_path, code) == plain.stdout.splitlines()


def test_a_child_that_is_limited_before_it_begins(tmp_path: Path) -> None:
    """`preexec_fn` runs in the child of the fork: the parent's limits stay, and the program's.

    Between fork and exec the child's own trimmer may run out of memory, and then CPython says so.
    """
    code = """
import subprocess
code = "from deep_program import *; print(len(bytearray(1 << 30)) >> 30, usual(900))"
words = [sys.executable, "-c", code]
child = subprocess.run(words, preexec_fn=limit, capture_output=True, text=True)
print(child.returncode, child.stdout.strip(), resource.getrlimit(resource.RLIMIT_AS)[0] == -1)
print(size() > 1 << 24, recurse(LEVELS) > 0)
"""
    assert deep(tmp_path, code) == ["0 1 900 True", "True True"]


def test_deep_threads_fit_a_later_limit_too(tmp_path: Path) -> None:
    code = """
import vrange
vrange.deep_threads()
print(in_thread(recurse, LEVELS) > 0)
limit()
print(becomes_true(half_is_there), threads(60), vrange.deep_call(recurse, LEVELS) > 0)
"""
    done = subprocess.run(
        [sys.executable, program(tmp_path, IMPORTS + code)],
        capture_output=True,
        text=True,
        env=clean_environment(**HELPERS),
    )
    assert (done.stdout, done.stderr) == ("True\nTrue 60 True\n", "")
