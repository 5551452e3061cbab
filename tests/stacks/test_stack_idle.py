"""Trims of the stacks of threads that wait: which are reached, and what nobody notices of it."""

from __future__ import annotations

import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import idle_support
import pytest
from deep_helpers import KEPT, MIB, output_of
from idle_support import Worker, is_blocked, touch_own_stack, until

import vrange
from vrange._core import deep

HELPERS = str(Path(idle_support.__file__).parent)


def test_eight_idle_threads_of_a_pool() -> None:
    barrier = threading.Barrier(8)

    def prepare() -> int:
        touch_own_stack(2 * MIB)
        barrier.wait(30)
        return threading.get_native_id()

    old = threading.stack_size(32 * MIB)
    try:
        with ThreadPoolExecutor(8, initializer=vrange.register_thread) as pool:
            ids = set(pool.map(lambda _: prepare(), range(8)))
            assert len(ids) == 8
            assert until(lambda: all(map(is_blocked, ids)))

            def resident() -> int:
                return sum(
                    t.resident_bytes for t in vrange.stack_info().threads if t.thread_id in ids
                )

            assert resident() > 16 * MIB
            assert vrange.trim_idle_stacks(wait=10) > 15 * MIB
            assert resident() < 8 * 2 * KEPT
            assert sum(pool.map(len, ["ab", "c"])) == 3  # and the pool works on
    finally:
        threading.stack_size(old)
    assert until(lambda: not ids & {t.thread_id for t in vrange.stack_info().threads})


def test_an_idle_thread_inside_a_deep_call_trims_the_deep_stack() -> None:
    size = 96 * MIB
    inside, leave = threading.Event(), threading.Event()
    seen = []

    def descend_and_come_back() -> int:
        import functools

        @functools.cache
        def steps(n: int) -> int:
            return 0 if n == 0 else 1 + steps(n - 1)

        steps(40_000)
        inside.set()
        leave.wait(60)
        again = functools.cache(lambda n: 0 if n == 0 else 1 + again(n - 1))
        return again(40_000)

    def block(_: Worker) -> int:
        return vrange.deep_call(descend_and_come_back, stack=size)

    worker = Worker(block)
    assert inside.wait(60)
    worker.wait_until_blocked()

    def resident() -> int:
        (use,) = [u for u in vrange.stack_info().stacks if u.reserved_bytes == size]
        seen.append(use)
        assert use.thread_id == worker.native_id
        return use.resident_bytes

    assert resident() > 16 * MIB
    assert vrange.trim_idle_stacks(wait=10) > 20 * MIB  # and the thread's own 8 MiB below the call
    assert resident() <= 2 * KEPT
    assert worker.use().resident_bytes <= 2 * KEPT
    leave.set()
    assert worker.join() == 40_000


def test_a_thread_that_runs_is_left_alone() -> None:
    stop: list[int] = []

    def spin(_: Worker) -> int:
        turns = 0
        while not stop:
            turns += 1
        return turns

    worker = Worker(spin)
    worker.use()
    # it may be caught waiting for the GIL, which is as good as any other wait: it must only live on
    for _ in range(10):
        vrange.trim_idle_stacks(wait=0.01)
    stop.append(1)
    result = worker.join()
    assert isinstance(result, int)
    assert result > 0


def test_registering_twice_is_registering_once() -> None:
    def block(worker: Worker) -> int:
        vrange.register_thread()
        return len([t for t in vrange.stack_info().threads if t.thread_id == worker.native_id])

    assert Worker(block).join() == 1


@pytest.mark.parametrize("early", ["True", "False"])
def test_a_handler_of_the_program_sees_only_its_own_signals(early: str) -> None:
    answer = output_of(
        """
        import signal, threading, vrange
        import os, sys
        sys.path.insert(0, HELPERS)
        from idle_support import is_blocked, touch_own_stack, until
        seen, wake = [], threading.Event()
        if EARLY:
            signal.signal(signal.SIGURG, lambda *_: seen.append(1))
        def work():
            vrange.register_thread()
            touch_own_stack(2 << 20)
            wake.wait()
        thread = threading.Thread(target=work)
        thread.start()
        if not EARLY:
            signal.signal(signal.SIGURG, lambda *_: seen.append(1))
        assert until(lambda: is_blocked(thread.native_id))
        print(vrange.trim_idle_stacks(wait=10) > 1 << 20, len(seen))
        os.kill(os.getpid(), signal.SIGURG)
        signal.pthread_kill(thread.ident, signal.SIGURG)
        assert until(lambda: len(seen) in (1, 2)), seen
        signal.raise_signal(signal.SIGURG)
        print(signal.signal(signal.SIGURG, signal.SIG_IGN).__name__, bool(seen))
        print(vrange.trim_idle_stacks(wait=10) >= 0)
        os.kill(os.getpid(), signal.SIGURG)
        wake.set()
        thread.join()
        """.replace("EARLY", early).replace("HELPERS", repr(HELPERS))
    )
    assert answer.splitlines() == ["True 0", "<lambda> True", "True"]


def test_python_signal_handlers_do_not_see_the_trim() -> None:
    seen: list[int] = []
    reading, writing = socket.socketpair()
    reading.setblocking(False)
    writing.setblocking(False)
    old = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    event = threading.Event()
    worker = Worker(lambda _: event.wait(60))
    try:
        worker.wait_until_blocked()
        assert vrange.trim_idle_stacks(wait=10) > 0
        with pytest.raises(BlockingIOError):
            seen.extend(reading.recv(10))
    finally:
        signal.set_wakeup_fd(old)
        event.set()
        worker.join()
        reading.close()
        writing.close()
    assert not seen


def test_a_child_of_a_worker_knows_only_itself() -> None:
    answer = output_of(
        """
        import os, threading, vrange
        parked, ready = threading.Event(), threading.Barrier(3)
        codes = []
        def park():
            vrange.register_thread()
            ready.wait()
            parked.wait()
        def fork():
            vrange.register_thread()
            ready.wait()
            child = os.fork()
            if child == 0:
                uses = vrange.stack_info().threads
                assert [use.thread_id for use in uses] == [os.getpid()], uses
                assert vrange.trim_idle_stacks() == 0
                made = threading.Thread(target=vrange.register_thread)
                made.start()
                made.join()
                os._exit(3)
            codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        threads = [threading.Thread(target=park), threading.Thread(target=fork)]
        for thread in threads: thread.start()
        ready.wait()
        threads[1].join()
        parked.set()
        threads[0].join()
        import time
        for _ in range(1000):
            if not vrange.stack_info().threads: break
            time.sleep(0.01)
        print(codes, vrange.stack_info().threads)
        """,
        "-W",
        "ignore",
    )
    assert answer == "[3] ()"


def test_trims_against_work_lose_nothing() -> None:
    """Threads recurse, block and compare while others trim them all the time."""
    stop, errors = threading.Event(), []

    def work(i: int) -> None:
        vrange.register_thread()
        lock = threading.Lock()
        nested: list[Any] = []
        for _ in range(300):
            nested = [nested]
        text = repr(nested)
        while not stop.is_set():
            if repr(nested) != text:
                errors.append(i)
            with lock:
                time.sleep(0.0005)
            if vrange.deep_call(repr, nested, stack="2MiB") != text:
                errors.append(-i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(1, 5)]
    for thread in threads:
        thread.start()
    trims = vrange.stack_info().trims
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        vrange.trim_idle_stacks(wait=0.05)
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert vrange.stack_info().trims > trims
    assert deep.here() is None
