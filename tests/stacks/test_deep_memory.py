"""Deep calls that said no size, where memory is short: RecursionError, and never a kill."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest
from deep_helpers import MIB, output_of

import vrange
from vrange.cli.memory_cgroup import MemoryCgroup

SPIN = """
import functools, json, os, resource, threading, time, vrange
LIMIT = int(os.environ["LIMIT"])
reached = 0
def spin(n):
    global reached
    reached = n
    return spin(n + 1)
def spin_with_objects(n):
    held = [str(n)] * 50, {n: float(n)}
    return spin_with_objects(n + 1)
def spin_with_large_objects(n):
    held = bytearray(20_000)
    return spin_with_large_objects(n + 1)
@functools.cache
def cached(n):
    return cached(n + 1)
def generated(n):
    yield from generated(n + 1)
def refused(f, *args):
    try:
        vrange.deep_call(f, *args)
    except RecursionError:
        return True
    raise AssertionError("it came back")
"""


def within(limit: int, program: str) -> subprocess.CompletedProcess[str]:
    """Runs a program in a memory cgroup of its own; it must not have been killed for memory."""
    with MemoryCgroup(limit, name="vrange-deep") as cgroup:
        done = subprocess.run(
            [sys.executable, "-c", SPIN + textwrap.dedent(program)],
            capture_output=True,
            text=True,
            timeout=110,
            env={**os.environ, "LIMIT": str(limit)},
            preexec_fn=lambda: cgroup.add(os.getpid()),
            check=False,
        )
        assert cgroup.oom_kills == 0, done
    return done


def survives(limit: int, program: str) -> str:
    done = within(limit, program)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


@pytest.mark.memory_cgroup
@pytest.mark.parametrize("limit", [64 * MIB, 192 * MIB])
@pytest.mark.parametrize(
    "call",
    [
        "spin, 0",
        "spin_with_objects, 0",
        "spin_with_large_objects, 0",
        "cached, 0",
        "lambda: list(generated(0))",
        "json.loads, '[' * 3_000_000 + ']' * 3_000_000",
        "json.loads, '{\"a\":' * 1_500_000",
    ],
)
def test_runaway_recursion_is_a_recursion_error_within_the_limit(limit: int, call: str) -> None:
    assert survives(limit, f"print(refused({call}), refused({call}))") == "True True"


@pytest.mark.memory_cgroup
def test_recursion_that_ignores_its_count_is_stopped_too() -> None:
    """CPython 3.13 does not count calls that leave out some defaults."""
    answer = survives(
        64 * MIB,
        """
        import copy
        def f(n, x=1):
            return f(n + 1)
        nested = []
        for _ in range(100_000):
            nested = [nested]
        print(refused(f, 0), refused(copy.deepcopy, nested), refused(f, 0))
        def clear():
            global nested
            del nested
        vrange.deep_call(clear)
        """,
    )
    assert answer == "True True True"


@pytest.mark.memory_cgroup
def test_errors_far_above_the_first_frames_leave_the_allocator_sound() -> None:
    """On 3.14 and later bounds that were refused raised an exception inside an allocation."""
    answer = survives(192 * MIB, "print([refused(spin_with_objects, 0) for _ in range(6)])")
    assert answer == str([True] * 6)


@pytest.mark.memory_cgroup
def test_what_fits_is_reached_and_again_after_each_error() -> None:
    answer = survives(
        512 * MIB,
        """
        assert json.loads is not None
        depths = []
        def often():
            for _ in range(4):
                try:
                    spin(0)
                except RecursionError:
                    depths.append(reached)
        vrange.deep_call(often)
        print(min(depths) > 400_000, min(depths) * 2 > max(depths), len(depths))
        """,
    )
    assert answer == "True True 4"


@pytest.mark.memory_cgroup
def test_an_error_that_nobody_catches_is_printed_and_finally_runs() -> None:
    done = within(
        128 * MIB,
        """
        left = 0
        def clean():
            global left
            left += 1
        def f(n):
            try:
                return f(n + 1)
            finally:
                clean()
        try:
            vrange.deep_call(f, 0)
        finally:
            print(left > 20_000)
        """,
    )
    assert done.stdout.strip() == "True"
    assert done.returncode == 1
    assert "RecursionError" in done.stderr


@pytest.mark.memory_cgroup
@pytest.mark.parametrize("limit", [64 * MIB, 256 * MIB])
def test_other_threads_allocate_beside_it(limit: int) -> None:
    answer = survives(
        limit,
        """
        stop = False
        def allocate():
            while not stop:
                held = bytearray(LIMIT // 8)
                del held
                time.sleep(0.001)
        beside = threading.Thread(target=allocate)
        beside.start()
        answers = [refused(spin, 0), refused(json.loads, "[" * 3_000_000), refused(spin, 0)]
        stop = True
        beside.join()
        print(answers)
        """,
    )
    assert answer == "[True, True, True]"


@pytest.mark.memory_cgroup
@pytest.mark.parametrize("call", ["spin, 0", "json.loads, '[' * 2_000_000"])
def test_threads_that_run_away_at_once_share_what_is_left(call: str) -> None:
    """The first of them finds the limits while the others are under way already."""
    answer = survives(
        128 * MIB,
        f"""
        answers = []
        def work():
            answers.append(refused({call}))
            answers.append(refused({call}))
        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        print(len(answers), all(answers))
        """,
    )
    assert answer == "12 True"


@pytest.mark.memory_cgroup
def test_a_limit_that_is_lowered_later_holds() -> None:
    with MemoryCgroup(1024 * MIB, name="vrange-deep") as cgroup:
        program = """
        print(refused(spin, 0), flush=True)
        input()
        print(refused(spin, 0), reached, flush=True)
        """
        child = subprocess.Popen(
            [sys.executable, "-c", SPIN + textwrap.dedent(program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "LIMIT": "0"},
            preexec_fn=lambda: cgroup.add(os.getpid()),
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "True\n"
        cgroup.limit_bytes = cgroup.usage_bytes + 48 * MIB
        rest, _ = child.communicate("\n", timeout=100)
        assert cgroup.oom_kills == 0
        assert rest.startswith("True")


@pytest.mark.parametrize("limit", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_limits_of_address_space(limit: str) -> None:
    program = f"""
        size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.{limit}, (size + (200 << 20),) * 2)
        print(refused(spin, 0), refused(cached, 0), refused(json.loads, "[" * 3_000_000))
        held = bytearray(100 << 20)
        """
    assert output_of("import os; os.environ['LIMIT'] = '0'" + SPIN + textwrap.dedent(program)) == (
        "True True True"
    )


def test_a_size_that_was_said_stays_what_was_said() -> None:
    answer = output_of(
        """
        import vrange
        from vrange._core import deep
        stack = vrange.DeepStack("64MiB")
        assert stack.bytes == 64 << 20 and vrange.DeepStack().bytes is None
        assert vrange.DeepStack("auto").bytes is None and "auto" in repr(vrange.DeepStack())
        # inside a call that said none, one that says how much has a stack of its own
        print(vrange.deep_call(stack.call, deep.here)[0] == 64 << 20)
        """
    )
    assert answer == "True"


def test_deep_recursion_without_arguments_asks_for_no_size() -> None:
    @vrange.deep_recursion
    def depth(n: int) -> int:
        return 0 if n == 0 else 1 + depth(n - 1)

    assert depth(50_000) == 50_000
