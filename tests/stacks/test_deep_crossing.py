"""What crosses a deep call's bounds: frames, signals, forks, hooks, the interpreter's end."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from types import FrameType
from typing import Any

import pytest
from deep_helpers import MIB, cached_steps, limits_unchanged, output_of, plain_steps, run_apart
from workers import switching_every

import vrange
from vrange._core import deep


def test_generators_made_inside_go_on_outside_and_the_other_way_round() -> None:
    def numbers() -> Iterator[tuple[int, bool]]:
        for i in range(5):
            yield i, deep.here() is not None

    def start() -> tuple[Iterator[tuple[int, bool]], tuple[int, bool], tuple[int, bool]]:
        made = numbers()
        return made, next(made), next(made)

    with limits_unchanged():
        made, first, second = vrange.deep_call(start)
        assert (first, second) == ((0, True), (1, True))
        assert next(made) == (2, False)
        assert vrange.deep_call(next, made) == (3, True)
        assert list(made) == [(4, False)]


def test_coroutines_made_inside_are_awaited_outside() -> None:
    async def work(i: int) -> int:
        await asyncio.sleep(0)
        return i + vrange.deep_call(plain_steps, 10_000)

    def make() -> tuple[Coroutine[Any, Any, int], Coroutine[Any, Any, int]]:
        started = work(1)
        started.send(None)  # now it is suspended in sleep(0)
        return started, work(2)

    async def main() -> tuple[int, int]:
        started, fresh = vrange.deep_call(make)
        with pytest.raises(StopIteration) as stopped:
            started.send(None)
        return stopped.value.value, await fresh

    with limits_unchanged():
        assert asyncio.run(main()) == (10_001, 10_002)


def test_a_generator_in_the_midst_of_a_deep_call_may_make_others() -> None:
    def numbers(n: int) -> Iterator[int]:
        for i in range(n):
            yield vrange.deep_call(cached_steps(), 5_000 + i)

    with limits_unchanged():
        assert list(numbers(3)) == [5_000, 5_001, 5_002]
        assert vrange.deep_call(list, numbers(3)) == [5_000, 5_001, 5_002]


def test_thread_locals_context_and_identity_are_the_callers() -> None:
    local, variable = threading.local(), contextvars.ContextVar("variable", default=0)
    local.x = 1
    variable.set(7)

    def f() -> tuple[int, int, int]:
        local.x += 1
        seen = variable.get()
        variable.set(8)
        return local.x, seen, threading.get_ident()

    assert vrange.deep_call(f) == (2, 7, threading.get_ident())
    assert (local.x, variable.get()) == (2, 8)


def test_trace_and_profile_functions_see_a_call_like_any_other() -> None:
    events: list[tuple[str, str]] = []

    def f() -> int:
        return plain_steps(3)

    def hook(frame: FrameType, event: str, argument: object) -> object:
        if frame.f_code in (f.__code__, plain_steps.__code__):
            events.append((frame.f_code.co_name, event))
        return hook

    def recorded(
        install: Callable[[Any], None], call: Callable[[], object]
    ) -> list[tuple[str, str]]:
        events.clear()
        install(hook)
        try:
            call()
        finally:
            install(None)
        return list(events)

    hooks: list[tuple[Callable[[Any], None], Callable[[], Any]]] = [
        (sys.settrace, sys.gettrace),
        (sys.setprofile, sys.getprofile),
    ]
    for install, installed in hooks:
        previous = installed()
        plain = recorded(install, f)
        through = recorded(install, lambda: vrange.deep_call(f))
        install(previous)
        assert len(plain) >= 10
        assert through == plain


def test_cprofile_counts_levels() -> None:
    counts = output_of(
        """
        import cProfile, pstats, vrange
        def f(n): return 0 if n == 0 else 1 + f(n - 1)
        profile = cProfile.Profile()
        profile.enable()
        vrange.deep_call(f, 5000)
        profile.disable()
        entries = {name: entry[1] for (_, _, name), entry in pstats.Stats(profile).stats.items()}
        print(entries["f"])
        """
    )
    assert counts == "5001"


def test_subprocess_and_fork_from_inside() -> None:
    answer = output_of(
        """
        import functools, os, subprocess, sys, warnings
        import vrange
        from vrange._core import deep
        warnings.simplefilter("ignore")

        @functools.cache
        def steps(n): return 0 if n == 0 else 1 + steps(n - 1)

        def descend(n, then):
            return then() if n == 0 else functools.partial(descend, n - 1, then)()

        def inside():
            out = subprocess.check_output([sys.executable, "-c", "print(6 * 7)"])
            assert out == b"42\\n"
            child = os.fork()
            if child == 0:
                # the same stack goes on, and new calls find stacks
                assert deep.here()[0] == 64 << 20
                assert steps(20_000) == 20_000
                assert vrange.deep_call(steps, 60_000, stack="256MiB") == 60_000
                os._exit(17)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

        own = deep.levels_left()
        print(vrange.deep_call(descend, 3000, inside, stack="64MiB"))
        assert deep.levels_left() == own
        child = os.fork()
        if child == 0:
            assert vrange.deep_call(steps, 100_000) == 100_000
            os._exit(0 if deep.levels_left() == own else 1)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        """
    )
    assert answer.split() == ["17", "0"]


def test_a_child_that_leaves_the_call_is_sound() -> None:
    answer = output_of(
        """
        import os, vrange
        def f():
            return os.fork()
        child = vrange.deep_call(f, stack="16MiB")
        if child == 0:
            assert vrange.deep_call(len, [1, 2]) == 2
            os._exit(23)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        """,
        "-W",
        "ignore",
    )
    assert answer == "23"


def test_stacks_of_other_threads_are_free_in_a_child_and_hold_nothing() -> None:
    answer = output_of(
        """
        import functools, os, threading, vrange
        inside, leave = threading.Event(), threading.Event()

        def cached():
            @functools.cache
            def steps(n):
                if n == 0:
                    inside.set()
                    leave.wait()
                    return 0
                return 1 + steps(n - 1)
            return steps

        call = lambda: vrange.deep_call(cached(), 20_000, stack="64MiB")
        thread = threading.Thread(target=call)
        thread.start()
        inside.wait()
        used = [use for use in vrange.stack_info().stacks if use.thread_id]
        assert len(used) == 1 and used[0].resident_bytes > 8 << 20, used
        child = os.fork()
        if child == 0:
            stacks = vrange.stack_info().stacks
            assert len(stacks) == 1 and stacks[0].thread_id is None, stacks
            assert stacks[0].resident_bytes == 0, stacks
            assert vrange.deep_call(len, [], stack="64MiB") == 0
            assert len(vrange.stack_info().stacks) == 1
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        leave.set()
        thread.join()
        """,
        "-W",
        "ignore",
    )
    assert answer == "0"


def test_keyboard_interrupt_at_depth() -> None:
    answer = output_of(
        """
        import functools, os, signal, sys, vrange
        from vrange._core import deep

        @functools.cache
        def steps(n):
            if n == 0:
                os.kill(os.getpid(), signal.SIGINT)
                while True:
                    pass
            return 1 + steps(n - 1)

        own = deep.levels_left()
        try:
            vrange.deep_call(steps, 20_000)
        except KeyboardInterrupt as interrupt:
            depth, tb = 0, interrupt.__traceback__
            while tb:
                depth, tb = depth + 1, tb.tb_next
            print(depth > 20_000, deep.levels_left() == own)
        """
    )
    assert answer == "True True"


def test_system_exit_at_depth_ends_the_process_with_its_code() -> None:
    done = run_apart(
        """
        import sys, functools, vrange
        @functools.cache
        def steps(n): return sys.exit(5) if n == 0 else steps(n - 1)
        vrange.deep_call(steps, 20_000)
        """
    )
    assert (done.returncode, done.stderr) == (5, "")


def test_faulthandler_walks_through_a_deep_call() -> None:
    done = run_apart(
        """
        import faulthandler, sys, vrange
        def innermost(): faulthandler.dump_traceback(sys.stderr)
        def outer(): vrange.deep_call(innermost)
        outer()
        """
    )
    assert done.returncode == 0
    assert "in innermost" in done.stderr
    assert "in outer" in done.stderr


def test_at_the_interpreters_end_and_in_finalizers() -> None:
    answer = output_of(
        """
        import atexit, functools, vrange
        def cached():
            @functools.cache
            def steps(n): return 0 if n == 0 else 1 + steps(n - 1)
            return steps
        atexit.register(lambda: print("atexit", vrange.deep_call(cached(), 50_000)))

        class Late:
            call, steps = staticmethod(vrange.deep_call), staticmethod(cached())
            def __del__(self): print("del", self.call(self.steps, 30_000), flush=True)
        late = Late()
        late.itself = late
        """
    )
    assert answer.splitlines() == ["atexit 50000", "del 30000"]


@pytest.mark.parametrize("waits", ["threading.Event().wait()", "time.sleep(1000)", "spin()"])
def test_daemon_threads_in_deep_calls_do_not_disturb_the_end(waits: str) -> None:
    answer = output_of(
        f"""
        import functools, sys, threading, time, vrange
        inside = threading.Event()
        def spin():
            while True: pass
        @functools.cache
        def steps(n):
            if n == 0:
                inside.set()
                {waits}
            return 1 + steps(n - 1)
        for _ in range(3):
            threading.Thread(target=vrange.deep_call, args=(steps, 5_000), daemon=True).start()
            inside.wait()
            inside.clear()
            steps.cache_clear()
        time.sleep(0.05)
        print("end", flush=True)
        """
    )
    assert answer == "end"


def test_threads_come_and_go_without_leaving_anything() -> None:
    def work() -> None:
        vrange.deep_call(cached_steps(), 5_000, stack="32MiB")

    def maps() -> int:
        with open("/proc/self/maps") as lines:
            return sum(1 for _ in lines)

    def rounds(count: int) -> None:
        for _ in range(count):
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()

    rounds(5)
    before, stacks = maps(), len(vrange.stack_info().stacks)
    rounds(100)
    assert len(vrange.stack_info().stacks) == stacks
    assert maps() - before < 20


def test_switching_threads_at_depth() -> None:
    with switching_every(1e-5):
        results: list[int] = []

        def work(i: int) -> None:
            for _ in range(5):
                results.append(vrange.deep_call(cached_steps(), 5_000 + i, stack=16 * MIB))

        threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(results) == sorted((5_000 + i) for i in range(6) for _ in range(5))
