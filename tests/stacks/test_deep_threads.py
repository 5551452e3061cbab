"""`vrange.deep_threads()`: threads that are started later recurse as deep as memory allows."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import vrange
from vrange._stacks import deep_threads
from vrange.cli.memory_cgroup import MemoryCgroup

MIB = 1 << 20
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "helpers")}
IMPORTS = """
import json, os, sys, threading, time, vrange
from deep_program import *
from vrange._core import deep
"""


def output_of(code: str, timeout: float = 110) -> list[str]:
    """In a process of its own, since threads stay deep."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=timeout,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_threads_from_then_on_and_no_others() -> None:
    answer = output_of(
        """
        from concurrent.futures import ThreadPoolExecutor
        go, results = threading.Event(), []
        def earlier():
            go.wait()
            results.append(is_refused(usual, LEVELS))
        before = threading.Thread(target=earlier)
        before.start()
        vrange.deep_threads()
        go.set()
        before.join()
        print(results, is_refused(usual, LEVELS))
        print(in_thread(recurse, LEVELS) > 0, in_thread(visit, LEVELS) == LEVELS)
        with ThreadPoolExecutor(2) as pool:
            print(list(pool.map(visit, [LEVELS] * 3)) == [LEVELS] * 3)
        vrange.deep_threads("64MiB")
        print(in_thread(recurse, LEVELS) > 0, in_thread(is_refused, json.loads, "[" * 2_000_000))
        """
    )
    assert answer == ["[True] True", "True True", "True", "True True"]


def test_a_child_has_them_too() -> None:
    answer = output_of(
        """
        import warnings
        warnings.simplefilter("ignore")
        vrange.deep_threads()
        def child():
            pid = os.fork()
            if pid == 0:
                os._exit(0 if in_thread(recurse, LEVELS) == os.getpid() else 1)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(child(), in_thread(child), in_thread(recurse, LEVELS) > 0)
        """
    )
    assert answer == ["0 0 True"]


def test_many_threads_leave_nothing_behind() -> None:
    answer = output_of(
        """
        vrange.deep_threads()
        def mappings():
            with open("/proc/self/maps") as file:
                return len(file.readlines())
        def some(count):
            threads = [threading.Thread(target=json.loads, args=("[" * 30_000 + "]" * 30_000,))
                       for _ in range(count)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
        some(50)
        before = mappings()
        for _ in range(10):
            some(50)
        end = time.monotonic() + 10
        while vrange.stack_info().threads and time.monotonic() < end:
            time.sleep(.01)  # join() returns a moment before the thread has ended
        print(mappings() - before < 50, len(vrange.stack_info().threads))
        """
    )
    assert answer == ["True 0"]


def test_a_thread_of_c_with_a_stack_of_its_own() -> None:
    """It has another thread state in each call of Python, and none in between."""
    answer = output_of(
        """
        import ctypes
        libc = ctypes.CDLL(None)
        vrange.deep_threads("64MiB")
        results = []
        @ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
        def called(_):
            results.append((recurse(LEVELS) > 0, is_refused(json.loads, "[" * 2_000_000)))
            return 0
        attributes = ctypes.create_string_buffer(64)
        libc.pthread_attr_init(attributes)
        for size in 64 << 20, 8 << 20:
            assert libc.pthread_attr_setstacksize(attributes, ctypes.c_size_t(size)) == 0
            thread = ctypes.c_ulong()
            if size < 16 << 20:
                @ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
                def called(_):
                    results.append((usual(900), is_refused(usual, 100_000)))
                    return 0
            assert libc.pthread_create(ctypes.byref(thread), attributes, called, None) == 0
            libc.pthread_join.argtypes = [ctypes.c_ulong, ctypes.c_void_p]
            libc.pthread_join(thread, None)
        print(results)
        """
    )
    assert answer == ["[(True, True), (900, True)]"]


def test_a_thread_s_memory_is_returned_while_it_waits() -> None:
    answer = output_of(
        """
        vrange.deep_threads()
        ready, held = threading.Event(), threading.Event()
        def work():
            json.loads("[" * 400_000 + "]" * 400_000)
            ready.set()
            held.wait()
        thread = threading.Thread(target=work)
        thread.start()
        ready.wait()
        def left():
            return sum(use.resident_bytes for use in vrange.stack_info().threads)
        def returned():
            return vrange.stack_info().returned_bytes
        # The thread's memory is gone a moment before it is counted.
        end = time.monotonic() + 10
        while (left() > 1 << 20 or returned() < 30 << 20) and time.monotonic() < end:
            time.sleep(.02)
        print(left() <= 1 << 20, returned() > 30 << 20)
        held.set()
        thread.join()
        """
    )
    assert answer == ["True True"]


def test_a_thread_that_never_went_deep_is_never_interrupted() -> None:
    answer = output_of(
        """
        vrange.deep_threads()
        held = threading.Event()
        shallow = threading.Thread(target=held.wait)
        shallow.start()
        in_thread(json.loads, "[" * 400_000 + "]" * 400_000)
        time.sleep(1.5)
        totals = vrange.stack_info()
        print(len(totals.threads), [use.high_water_bytes < 1 << 20 for use in totals.threads])
        held.set()
        shallow.join()
        """
    )
    assert answer == ["1 [True]"]


@pytest.mark.memory_cgroup
def test_runaway_recursion_in_threads_is_a_recursion_error_within_the_limit() -> None:
    code = """
    vrange.deep_threads()
    def spin(n):
        return spin(n + 1)
    def both():
        return is_refused(spin, 0), is_refused(json.loads, "[" * 3_000_000), is_refused(spin, 0)
    results = []
    threads = [threading.Thread(target=lambda: results.append(all(both()))) for _ in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    print(results)
    """
    with MemoryCgroup(96 * MIB, name="vrange-deep-threads") as cgroup:
        done = subprocess.run(
            [sys.executable, "-c", IMPORTS + textwrap.dedent(code)],
            capture_output=True,
            text=True,
            env=ENVIRONMENT,
            preexec_fn=lambda: cgroup.add(os.getpid()),
            timeout=110,
            check=False,
        )
        assert cgroup.oom_kills == 0, done
    assert (done.stdout, done.stderr) == ("[True, True, True, True]\n", "")


@pytest.mark.parametrize(
    ("stack", "error", "said"),
    [
        ("much", ValueError, "stack must be an int in bytes or a string"),
        (1.5, TypeError, "stack must be an int in bytes or a string"),
        ("1MiB", ValueError, "stack must be 16.0 MiB to 64 TiB, not '1MiB'"),
    ],
)
def test_sizes_that_are_refused(stack: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error) as raised:
        vrange.deep_threads(stack)
    assert said in str(raised.value)


def test_strict_overcommit_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deep_threads, "_overcommit_policy", lambda: 2)
    with pytest.raises(vrange.VrangeError, match=r"vm\.overcommit_memory=2"):
        vrange.deep_threads()


def test_a_limit_of_the_address_space_bounds_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    soft = {resource.RLIMIT_AS: 64 << 30}
    monkeypatch.setattr(resource, "getrlimit", lambda number: (soft.get(number, -1), -1))
    assert deep_threads.thread_bytes(4 << 30) == (64 << 20, "")
    soft[resource.RLIMIT_AS] = 8 << 30
    assert deep_threads.thread_bytes(4 << 30) == (0, "RLIMIT_AS is 8.0 GiB")
    with pytest.raises(vrange.VrangeError, match=r"RLIMIT_AS is 8\.0 GiB"):
        vrange.deep_threads()
