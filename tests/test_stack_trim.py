"""Trims: a thread's own stack, and those of idle threads, whose blocked calls all resume."""

from __future__ import annotations

import contextlib
import os
import queue
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from deep_helpers import KEPT, MIB, output_of

import vrange
from vrange._core import deep


def use_stack(levels: int = 900) -> None:
    """Uses hundreds of KiB of C stack: repr of nested lists, below every version's limit."""
    nested: list = []
    for _ in range(levels):
        nested = [nested]
    with contextlib.suppress(RecursionError):
        repr(nested)


class Worker:
    """A registered thread that has used much stack and then blocks in what it was given."""

    def __init__(self, block: Callable[[Worker], object], stack: int = 64 * MIB) -> None:
        self.ready, self.result, self.error = threading.Event(), None, None
        self.native_id = 0
        self.signals = 0
        old = threading.stack_size(stack)
        self.thread = threading.Thread(target=self._run, args=(block,))
        try:
            self.thread.start()
        finally:
            threading.stack_size(old)
        assert self.ready.wait(30)

    def _run(self, block: Callable[[Worker], object]) -> None:
        vrange.register_thread()
        self.native_id = threading.get_native_id()
        touch_own_stack(8 * MIB)
        self.ready.set()
        try:
            self.result = block(self)
        except BaseException as error:
            self.error = error

    def use(self) -> vrange.StackUse:
        (use,) = [t for t in vrange.stack_info().threads if t.thread_id == self.native_id]
        return use

    def wait_until_blocked(self) -> None:
        assert until(lambda: is_blocked(self.native_id)), "the worker never blocked"

    def join(self) -> object:
        self.thread.join(30)
        assert not self.thread.is_alive()
        if self.error is not None:
            raise self.error
        return self.result


def touch_own_stack(size: int) -> None:
    """Make so much of this thread's stack resident, as deep recursion would have."""
    import ctypes

    libc = ctypes.PyDLL(None)
    libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
    info = [t for t in vrange.stack_info().threads if t.thread_id == threading.get_native_id()]
    (low, high) = own_mapping(info[0].reserved_bytes)
    # well below any frame of this thread, and well above the guard
    libc.memset(high - 2 * MIB - size, 7, size)
    del low


def own_mapping(size: int) -> tuple[int, int]:
    import ctypes

    class Local(ctypes.Structure):
        _fields_ = [("x", ctypes.c_int)]

    # the mapping that holds this thread's stack: found by pthread_getattr_np
    libc = ctypes.PyDLL(None)
    attributes = (ctypes.c_char * 128)()
    address, length = ctypes.c_void_p(), ctypes.c_size_t()
    libc.pthread_self.restype = ctypes.c_ulong
    libc.pthread_getattr_np.argtypes = [ctypes.c_ulong, ctypes.c_void_p]
    assert libc.pthread_getattr_np(libc.pthread_self(), attributes) == 0
    libc.pthread_attr_getstack(attributes, ctypes.byref(address), ctypes.byref(length))
    libc.pthread_attr_destroy(attributes)
    assert address.value is not None
    assert length.value == size
    return address.value, address.value + length.value


def is_blocked(native_id: int) -> bool:
    """Whether it waits in the kernel, be it for what it was given or for the GIL."""
    with open(f"/proc/self/task/{native_id}/stat") as line:
        return line.read().rpartition(")")[2].split()[0] == "S"


def until(condition: Callable[[], bool]) -> bool:
    """Whether it comes true. join() for one returns a little before the thread is gone."""
    for _ in range(1000):
        if condition():
            return True
        time.sleep(0.01)
    return False


Blocking = tuple[Callable[[Worker], object], Callable[[], None], object]


def blocked_on_lock() -> Iterator[Blocking]:
    lock = threading.Lock()
    lock.acquire()
    yield lambda _: lock.acquire(), lock.release, True


def blocked_on_lock_with_timeout() -> Iterator[Blocking]:
    lock = threading.Lock()
    lock.acquire()
    yield lambda _: lock.acquire(timeout=60), lock.release, True


def blocked_on_event() -> Iterator[Blocking]:
    event = threading.Event()
    yield lambda _: event.wait(60), event.set, True


def blocked_on_queue() -> Iterator[Blocking]:
    items: queue.Queue[int] = queue.Queue()
    yield lambda _: items.get(), lambda: items.put(5), 5


def blocked_on_simple_queue() -> Iterator[Blocking]:
    items: queue.SimpleQueue[int] = queue.SimpleQueue()
    yield lambda _: items.get(timeout=60), lambda: items.put(6), 6


def blocked_in_select() -> Iterator[Blocking]:
    a, b = socket.socketpair()
    with a, b:
        yield lambda _: len(select.select([a], [], [], 60)[0]), lambda: b.send(b"x") and None, 1


def blocked_in_poll() -> Iterator[Blocking]:
    a, b = socket.socketpair()
    with a, b:
        poll = select.poll()
        poll.register(a, select.POLLIN)
        yield lambda _: len(poll.poll(60_000)), lambda: b.send(b"x") and None, 1


def blocked_in_epoll() -> Iterator[Blocking]:
    a, b = socket.socketpair()
    with a, b, select.epoll() as epoll:
        epoll.register(a, select.EPOLLIN)
        yield lambda _: len(epoll.poll(60)), lambda: b.send(b"x") and None, 1


def blocked_in_recv() -> Iterator[Blocking]:
    a, b = socket.socketpair()
    with a, b:
        yield lambda _: a.recv(10), lambda: b.send(b"hello") and None, b"hello"


def blocked_in_recv_with_timeout() -> Iterator[Blocking]:
    a, b = socket.socketpair()
    a.settimeout(60)
    with a, b:
        yield lambda _: a.recv(10), lambda: b.send(b"hello") and None, b"hello"


def blocked_in_accept() -> Iterator[Blocking]:
    listening = socket.create_server(("127.0.0.1", 0))
    callers = []

    def call() -> None:
        callers.append(socket.create_connection(listening.getsockname()))

    def accept(_: Worker) -> bool:
        accepted, _address = listening.accept()
        accepted.close()
        return True

    with listening:
        yield accept, call, True
    for caller in callers:
        caller.close()


def blocked_in_read() -> Iterator[Blocking]:
    reading, writing = os.pipe()
    yield lambda _: os.read(reading, 10), lambda: os.write(writing, b"piped") and None, b"piped"
    os.close(reading)
    os.close(writing)


def blocked_in_file_read() -> Iterator[Blocking]:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as file:
        yield lambda _: file.read(5), lambda: os.write(writing, b"piped") and None, b"piped"
    os.close(writing)


def blocked_in_sleep() -> Iterator[Blocking]:
    slept = []

    def sleep(_: Worker) -> bool:
        begun = time.monotonic()
        time.sleep(3)  # longer than the trims take, on a machine that does something else too
        slept.append(time.monotonic() - begun)
        return slept[0] >= 3

    yield sleep, lambda: None, True


def blocked_in_wait_for_child() -> Iterator[Blocking]:
    import subprocess
    import sys

    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)

    def end() -> None:
        assert child.stdin is not None
        child.stdin.close()

    yield lambda _: child.wait() == 1, end, True


@pytest.mark.parametrize(
    "blocked",
    [
        blocked_on_lock,
        blocked_on_lock_with_timeout,
        blocked_on_event,
        blocked_on_queue,
        blocked_on_simple_queue,
        blocked_in_select,
        blocked_in_poll,
        blocked_in_epoll,
        blocked_in_recv,
        blocked_in_recv_with_timeout,
        blocked_in_accept,
        blocked_in_read,
        blocked_in_file_read,
        blocked_in_sleep,
        blocked_in_wait_for_child,
    ],
)
def test_every_blocked_call_resumes(blocked: Callable[[], Iterator[Blocking]]) -> None:
    making = blocked()
    block, release, expected = next(making)
    worker = Worker(block)
    worker.wait_until_blocked()
    assert worker.use().resident_bytes > 8 * MIB
    assert worker.use().high_water_bytes > 8 * MIB
    returned = vrange.trim_idle_stacks(wait=10)
    assert returned > 7 * MIB
    assert worker.use().resident_bytes <= 2 * KEPT
    assert worker.use().high_water_bytes > 8 * MIB  # remembered
    for _ in range(20):  # and any number of times
        vrange.trim_idle_stacks(wait=10)
    assert worker.thread.is_alive()
    release()
    assert worker.join() == expected
    assert next(making, None) is None


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
    stop = []

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


def test_trim_stack_in_a_thread() -> None:
    def block(worker: Worker) -> tuple[int, int, int, int]:
        before = worker.use().resident_bytes
        returned = vrange.trim_stack()
        return before, returned, worker.use().resident_bytes, vrange.trim_stack()

    before, returned, after, again = Worker(block).join()  # type: ignore[misc]
    assert before > 8 * MIB
    assert returned > 7 * MIB
    assert after <= 2 * KEPT
    assert again <= 2 * KEPT


def test_trim_stack_needs_no_registration() -> None:
    results: list[object] = []

    def work() -> None:
        use_stack()
        results.append(vrange.trim_stack())
        use_stack()
        results.append(vrange.trim_stack("volatile"))
        results.append([repr(i) for i in range(3)])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    first, second, after = results
    assert isinstance(first, int)
    assert isinstance(second, int)
    assert first > 0
    assert second > 0
    assert after == ["0", "1", "2"]


def test_trim_stack_inside_a_deep_call() -> None:
    def inside() -> tuple[int, int]:
        import functools

        @functools.cache
        def steps(n: int) -> int:
            return 0 if n == 0 else 1 + steps(n - 1)

        steps(20_000)
        return vrange.trim_stack(), vrange.trim_stack()

    first, second = vrange.deep_call(inside, stack="112MiB")
    assert first > 8 * MIB
    assert second < 2 * KEPT


def test_the_main_threads_own_stack_is_refused() -> None:
    assert threading.current_thread() is threading.main_thread()
    with pytest.raises(vrange.VrangeError, match="main thread's own stack"):
        vrange.trim_stack()
    with pytest.raises(vrange.VrangeError, match="main thread's own stack"):
        vrange.register_thread()


def test_arguments_that_are_none() -> None:
    for trim in (vrange.trim_stack, vrange.trim_idle_stacks):
        with pytest.raises(ValueError, match="'now' or 'volatile'"):
            trim("keep")
        with pytest.raises(ValueError, match="release"):
            trim("soon")  # type: ignore[arg-type]
    for wait in (-1, float("nan")):
        with pytest.raises(ValueError, match="wait"):
            vrange.trim_idle_stacks(wait=wait)


def test_registering_twice_is_registering_once() -> None:
    def block(worker: Worker) -> int:
        vrange.register_thread()
        return len([t for t in vrange.stack_info().threads if t.thread_id == worker.native_id])

    assert Worker(block).join() == 1


def test_handlers_of_the_process_are_left_alone() -> None:
    answer = output_of(
        """
        import signal, threading, vrange
        taken = range(signal.SIGRTMIN + 5, signal.SIGRTMAX)
        handlers = {number: signal.signal(number, lambda *_: None) for number in taken}
        ours = {number: signal.getsignal(number) for number in taken}
        errors = []
        def work():
            try:
                vrange.register_thread()
            except vrange.VrangeError as error:
                errors.append(str(error))
        thread = threading.Thread(target=work); thread.start(); thread.join()
        assert len(errors) == 1 and "real-time signal" in errors[0], errors
        assert {number: signal.getsignal(number) for number in taken} == ours
        signal.signal(signal.SIGRTMIN + 9, signal.SIG_DFL)
        thread = threading.Thread(target=work); thread.start(); thread.join()
        print(len(errors))
        """
    )
    assert answer == "1"


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
        nested: list = []
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
