"""Every call that a trim of idle stacks interrupts goes on waiting (PEP 475)."""

from __future__ import annotations

import os
import queue
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from deep_helpers import KEPT, MIB
from idle_support import Worker

import vrange

Blocking = tuple[Callable[[Worker], object], Callable[[], object], object]


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
        yield lambda _: len(select.select([a], [], [], 60)[0]), lambda: b.send(b"x"), 1


def blocked_in_poll() -> Iterator[Blocking]:
    a, b = socket.socketpair()
    with a, b:
        poll = select.poll()
        poll.register(a, select.POLLIN)
        yield lambda _: len(poll.poll(60_000)), lambda: b.send(b"x"), 1


def blocked_in_epoll() -> Iterator[Blocking]:
    a, b = socket.socketpair()
    with a, b, select.epoll() as epoll:
        epoll.register(a, select.EPOLLIN)
        yield lambda _: len(epoll.poll(60)), lambda: b.send(b"x"), 1


def blocked_in_recv() -> Iterator[Blocking]:
    a, b = socket.socketpair()
    with a, b:
        yield lambda _: a.recv(10), lambda: b.send(b"hello"), b"hello"


def blocked_in_recv_with_timeout() -> Iterator[Blocking]:
    a, b = socket.socketpair()
    a.settimeout(60)
    with a, b:
        yield lambda _: a.recv(10), lambda: b.send(b"hello"), b"hello"


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
    yield lambda _: os.read(reading, 10), lambda: os.write(writing, b"piped"), b"piped"
    os.close(reading)
    os.close(writing)


def blocked_in_file_read() -> Iterator[Blocking]:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as file:
        yield lambda _: file.read(5), lambda: os.write(writing, b"piped"), b"piped"
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
