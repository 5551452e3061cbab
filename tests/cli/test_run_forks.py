"""A program under `vrange run` forks as it does without: no thread of vrange is in the way."""

from __future__ import annotations

from pathlib import Path

import pytest
from run_support import program, run

UNSHARE = """
import ctypes, os, subprocess, sys
CLONE_NEWUSER = 0x10000000
libc = ctypes.CDLL(None, use_errno=True)

def leave():
    if libc.unshare(CLONE_NEWUSER) < 0:
        os.write(2, os.strerror(ctypes.get_errno()).encode())
        os._exit(9)
"""
OPTIONS = [[], ["--deep"], ["--trim-every", "1ms"]]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("collects", [True, False])
def test_a_child_may_leave_its_user_namespace(
    options: list[str], collects: bool, tmp_path: Path
) -> None:
    """The kernel refuses it to a process with threads."""
    code = (
        UNSHARE
        + f"""
import gc
{"" if collects else "gc.disable()"}
for _ in range(5):
    subprocess.run([sys.executable, "-S", "-c", ""], preexec_fn=leave, check=True)
print("left")
"""
    )
    assert run(*options, program(tmp_path, code)).stdout == "left\n"


@pytest.mark.parametrize("options", OPTIONS)
def test_a_fork_does_not_warn_of_vrange_s_threads(options: list[str], tmp_path: Path) -> None:
    """CPython 3.12 and later count the kernel's threads."""
    code = """
import os, threading, warnings
warnings.simplefilter("error")
for _ in range(50):
    if (child := os.fork()) == 0:
        os._exit(0)
    os.waitpid(child, 0)
print("forked")
"""
    done = run(*options, program(tmp_path, code))
    assert (done.stdout, done.stderr) == ("forked\n", "")


def test_trims_go_on_between_forks(tmp_path: Path) -> None:
    code = """
import os, time
from vrange import _autostart
until = time.monotonic() + 20
while _autostart.trims() < 3 and time.monotonic() < until:
    if (child := os.fork()) == 0:
        os._exit(0)
    os.waitpid(child, 0)
    time.sleep(0.02)
print(_autostart.trims() >= 3)
"""
    assert run("--trim-every", "300ms", program(tmp_path, code)).stdout == "True\n"


THREADS = """
import os, time
from pathlib import Path

def threads():
    found = []
    for name in Path("/proc/self/task").glob("*/comm"):
        try:
            found.append(name.read_text().strip())
        except OSError:  # it has ended meanwhile
            pass
    return found

def await_threads():
    until = time.monotonic() + 20
    while not {"vrange-trim", "vrange-pressure"} <= set(threads()) and time.monotonic() < until:
        time.sleep(0.01)
    return {"vrange-trim", "vrange-pressure"} <= set(threads())
"""


def test_threads_of_a_child_start_when_it_works(tmp_path: Path) -> None:
    code = (
        THREADS
        + """
assert await_threads()
for begin in (lambda: [[] for _ in range(100_000)], __import__("gc").collect):
    read, write = os.pipe()
    if os.fork() == 0:
        before = len(threads())
        begin()
        os.write(write, f"{before} {await_threads()}\\n".encode())
        os._exit(0)
    os.wait()
    print(os.read(read, 100).decode(), end="")
"""
    )
    done = run(program(tmp_path, code))
    assert done.stdout == "1 True\n" * 2


def test_a_worker_of_multiprocessing_has_them_at_once(tmp_path: Path) -> None:
    code = (
        THREADS
        + """
import multiprocessing

def work(told):
    told.send(await_threads())

if __name__ == "__main__":
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe()
    worker = fork.Process(target=work, args=(there,))
    worker.start()
    there.close()  # recv() would wait for ever for a worker that has failed
    print(here.recv())
    worker.join()
"""
    )
    assert run(program(tmp_path, code)).stdout == "True\n"
