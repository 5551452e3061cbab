"""`vrange run --deep` beside what looks at frames, switches stacks or runs programs of its own."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest
from run_support import VRANGE, clean_environment, program, run

OTHERS_OFF = ("--no-numpy", "--no-watch", "--trim-every", "never")  # no other thread arms a handler
HELPERS = {"PYTHONPATH": str(Path(__file__).parents[1] / "helpers")}
IMPORTS = "import json, os, sys, threading, time\nfrom deep_program import *\n"
DOWN = """
def down(n, look):
    mine = [n]
    if n == 0:
        look()
    else:
        sorted([n], key=lambda _: down(n - 1, look))
    assert mine == [n]
    return n
"""


def deep(
    directory: Path, *words: object, code: str, typed: str = ""
) -> subprocess.CompletedProcess[str]:
    file = program(directory, IMPORTS + code)
    words = ("--deep", *OTHERS_OFF, *words, file)
    return run(*words, environment=HELPERS, timeout=110, input=typed, cwd=directory)


def output_of(directory: Path, code: str) -> list[str]:
    done = deep(directory, code=code)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_an_event_loop(tmp_path: Path, loop: str) -> None:
    """In tasks, in callbacks, in its executor, and while other tasks wait."""
    pytest.importorskip(loop)
    code = f"""
import asyncio, {loop}
async def work():
    here = recurse(LEVELS)
    await asyncio.sleep(.01)
    return here == recurse(LEVELS)
async def main():
    loop, called = asyncio.get_running_loop(), asyncio.Event()
    ticks = asyncio.ensure_future(asyncio.sleep(30))
    loop.call_soon(lambda: recurse(LEVELS) and called.set())
    results = await asyncio.gather(work(), work(), asyncio.to_thread(recurse, LEVELS))
    await called.wait()
    await asyncio.sleep(1.5)  # the stack is returned meanwhile, below the loop
    print(results[:2], results[2] == os.getpid(), ticks.cancel(), await work())
{loop}.run(main())
"""
    assert output_of(tmp_path, code) == ["[True, True] True True True"]


def test_greenlets_of_gevent_that_switch_while_they_are_deep(tmp_path: Path) -> None:
    """Their frames are copied away and back; the part below them is returned meanwhile."""
    code = f"""
from gevent import monkey
monkey.patch_all()
import gevent
{DOWN}
def wait():
    time.sleep(1.5)
    json.loads("[" * 50_000 + "]" * 50_000)
jobs = [gevent.spawn(down, n, wait) for n in (9_000, 20_000, 100, 30_000)]
gevent.joinall(jobs)
print([job.value for job in jobs], recurse(LEVELS) == os.getpid())
from gevent.threadpool import ThreadPool
print(ThreadPool(1).apply(recurse, (LEVELS,)) == os.getpid())
"""
    assert output_of(tmp_path, code) == ["[9000, 20000, 100, 30000] True", "True"]


@pytest.mark.parametrize(
    "enable",
    [
        "faulthandler.enable()",
        "faulthandler.enable(file=sys.stderr, all_threads=False)",
        "faulthandler.enable(); faulthandler.disable(); faulthandler.enable()",
        "signal.signal(signal.SIGSEGV, signal.SIG_DFL); faulthandler.enable()",
    ],
)
def test_faulthandler_shows_deep_frames_and_real_faults(tmp_path: Path, enable: str) -> None:
    code = f"""
import faulthandler, ctypes, signal
{DOWN}
{enable}
print(recurse(LEVELS) > 0, in_thread(recurse, LEVELS) > 0)
print(down(20_000, faulthandler.dump_traceback))
sys.stdout.flush()
down(20_000, lambda: ctypes.string_at(0))
"""
    done = deep(tmp_path, code=code)
    assert done.stdout == "True True\n20000\n"
    assert done.returncode == -signal.SIGSEGV
    assert done.stderr.count("Fatal Python error: Segmentation fault") == 1
    assert done.stderr.count("in down") > 50
    assert "vrange: " not in done.stderr


def test_a_debugger_stops_in_the_depth_and_goes_on(tmp_path: Path) -> None:
    code = f"""
import pdb
{DOWN}
def stop():
    depth = 7
    pdb.set_trace()
    depth += 1
print(down(5_000, stop), recurse(2_000) > 0)
"""
    done = deep(tmp_path, code=code, typed="up\np depth\nnext\nnext\np depth\ncontinue\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].endswith("5000 True")
    stepped = deep(tmp_path, "-m", "pdb", code="print(recurse(2_000) > 0)\n", typed="c\nq\n")
    assert "True" in stepped.stdout
    assert "RecursionError" not in stepped.stdout + stepped.stderr


@pytest.mark.parametrize("core", ["ctrace", "pytrace"])
def test_coverage_measures_deep_recursion(tmp_path: Path, core: str) -> None:
    pytest.importorskip("coverage")
    file = program(tmp_path, IMPORTS + "print(recurse(3_000) > 0, in_thread(recurse, 3_000) > 0)\n")
    environment = HELPERS | {"COVERAGE_CORE": core}
    words = ["-m", "coverage", "run", "--include", "*/deep_program.py", file]
    done = run("--deep", *OTHERS_OFF, *words, environment=environment, cwd=tmp_path, timeout=110)
    assert (done.stdout, done.stderr) == ("True True\n", "")
    lines = run("-m", "coverage", "report", cwd=tmp_path).stdout
    assert "deep_program.py" in lines


def test_pytest_runs_deep_tests_and_shows_what_failed(tmp_path: Path) -> None:
    code = """
from deep_program import *
import pytest, threading
def test_deep():
    assert recurse(LEVELS) > 0
def test_deep_in_a_thread():
    assert in_thread(recurse, LEVELS) > 0
def spin(n):
    return spin(n + 1)
def test_runaway():
    with pytest.raises(RecursionError):
        spin(0)
def fail(n):
    assert n
    fail(n - 1)
def test_that_fails_at_depth():
    fail(3_000)
"""
    program(tmp_path, code, "test_depth.py")
    command = [
        *VRANGE,
        "run",
        *OTHERS_OFF,
        "--deep=64MiB",
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run(
        [*command, "-q", "--tb=short", "test_depth.py"],
        cwd=tmp_path,
        env=clean_environment(**HELPERS),
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed, 3 passed" in done.stdout
    assert "assert 0" in done.stdout
