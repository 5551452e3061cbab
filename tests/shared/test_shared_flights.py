"""One caller of all processes computes a key; what is removed meanwhile is not stored."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import platform
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import shared_peers as peers
from shared_peers import Peer, reads_large_values

import vrange


def compute_slowly(cache: Any, key: Any, directory: str, answer: Any) -> Any:
    """Compute once `go` is there, and note that the computation began."""

    def compute() -> Any:
        Path(directory, f"began-{os.getpid()}-{time.monotonic_ns()}").touch()
        while not Path(directory, "go").exists():
            time.sleep(0.001)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    return cache.get_or_compute(key, compute)


def catch(cache: Any, key: Any, directory: str, answer: Any) -> Any:
    try:
        return compute_slowly(cache, key, directory, answer)
    except Exception as error:
        return type(error).__name__, str(error)


def began(directory: Path) -> int:
    return len(list(directory.glob("began-*")))


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def is_waiting(peer: Peer) -> bool:
    """Whether a process sleeps on a futex: on x86_64, or on aarch64."""
    call = Path(f"/proc/{peer.pid}/syscall").read_text().split()[0]
    return call == {"x86_64": "202", "aarch64": "98"}[platform.machine()]


@reads_large_values
@pytest.mark.parametrize("answer", ["small", "large" * 10_000])
def test_one_process_computes_and_the_others_wait(
    cache: Any, new_peer: Callable[..., Peer], tmp_path: Path, answer: str
) -> None:
    three = [new_peer(), new_peer(), new_peer("fork")]
    for peer in three:
        peer.tell(compute_slowly, "a", str(tmp_path), answer)
    wait_for(lambda: began(tmp_path))
    answers: list[Any] = []
    threads = [
        threading.Thread(
            target=lambda: answers.append(compute_slowly(cache, "a", str(tmp_path), answer))
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    (tmp_path / "go").touch()
    for thread in threads:
        thread.join()
    assert [peer.hear() for peer in three] == answers == [answer] * 3
    assert began(tmp_path) == 1


def test_failures_are_shared(cache: Any, new_peer: Callable[..., Peer], tmp_path: Path) -> None:
    leader, waiter = new_peer(), new_peer()
    leader.tell(catch, "a", str(tmp_path), ValueError("no such thing"))
    wait_for(lambda: began(tmp_path))
    waiter.tell(catch, "a", str(tmp_path), ValueError("another one"))
    wait_for(lambda: is_waiting(waiter))
    (tmp_path / "go").touch()
    assert leader.hear() == waiter.hear() == ("ValueError", "no such thing")
    assert began(tmp_path) == 1
    assert cache.get_or_compute("a", lambda: 5) == 5  # failures are not cached


class Unpicklable(Exception):
    def __reduce__(self) -> Any:
        raise TypeError("can't be pickled")


def fail_unpicklably(cache: Any, key: Any, directory: str) -> Any:
    return catch(cache, key, directory, Unpicklable("mine"))


def test_who_waited_for_a_failure_that_can_not_be_pickled_computes(
    new_peer: Callable[..., Peer], tmp_path: Path
) -> None:
    leader, waiter = new_peer(), new_peer()
    leader.tell(fail_unpicklably, "a", str(tmp_path))
    wait_for(lambda: began(tmp_path))
    waiter.tell(catch, "a", str(tmp_path), "value")
    wait_for(lambda: is_waiting(waiter))
    (tmp_path / "go").touch()
    assert leader.hear() == ("Unpicklable", "mine")
    assert waiter.hear() == "value"


def test_a_leader_that_is_interrupted_lets_others_compute(
    cache: Any, new_peer: Callable[..., Peer], tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        cache.get_or_compute("a", lambda: signal.raise_signal(signal.SIGINT))
    assert cache.get_or_compute("a", lambda: 1) == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_leader_that_is_killed_or_stopped_is_not_waited_for(
    cache: Any, new_peer: Callable[..., Peer], tmp_path: Path, number: int
) -> None:
    leader = new_peer()
    leader.tell(compute_slowly, "a", str(tmp_path), "leader's")
    wait_for(lambda: began(tmp_path))
    waiting = new_peer()
    waiting.tell(peers.compute, "a", "waiter's")
    wait_for(lambda: is_waiting(waiting))
    leader.kill(number)
    assert waiting.hear() == "waiter's"
    assert cache["a"] == "waiter's"
    if number == signal.SIGSTOP:
        (tmp_path / "go").touch()
        leader.kill(signal.SIGCONT)
        assert leader.hear() == "leader's"
        # Both were computed from the same truth: whichever is there is right.
        assert cache["a"] in ("waiter's", "leader's")


@pytest.mark.parametrize("remove", [peers.delete, peers.pop, peers.clear])
@pytest.mark.parametrize("answer", ["small", "large" * 10_000])
def test_what_began_before_a_removal_is_not_stored(
    cache: Any,
    new_peer: Callable[..., Peer],
    tmp_path: Path,
    remove: Callable[..., Any],
    answer: str,
) -> None:
    leader, other = new_peer(), new_peer()
    leader.tell(compute_slowly, "a", str(tmp_path), answer)
    wait_for(lambda: began(tmp_path))
    other.ask(remove, *([] if remove is peers.clear else ["a"]))
    (tmp_path / "go").touch()
    assert leader.hear() == answer
    assert "a" not in cache
    assert leader.ask(peers.get, "a") == "absent"


def test_what_began_before_a_value_was_set_is_not_stored_over_it(
    cache: Any, new_peer: Callable[..., Peer], tmp_path: Path
) -> None:
    leader = new_peer()
    leader.tell(compute_slowly, "a", str(tmp_path), "old")
    wait_for(lambda: began(tmp_path))
    cache["a"] = "new"
    (tmp_path / "go").touch()
    leader.hear()
    assert cache["a"] == leader.ask(peers.get, "a") == "new"


@reads_large_values
def test_a_removal_by_a_stopped_process_s_neighbour_does_not_wait_for_it(
    cache: Any, new_peer: Callable[..., Peer]
) -> None:
    stopped = new_peer()
    stopped.ask(peers.put, "small", 1)
    stopped.ask(peers.put, "large", b"x" * 100_000)
    stopped.kill(signal.SIGSTOP)
    assert cache["small"] == 1
    assert cache["large"] == b"x" * 100_000
    del cache["small"]
    cache["large"] = b"y" * 100_000
    stopped.kill(signal.SIGCONT)
    assert stopped.ask(peers.get, "small") == "absent"
    assert stopped.ask(peers.get, "large") == b"y" * 100_000


def test_a_computation_may_ask_for_its_own_key(cache: Any) -> None:
    assert cache.get_or_compute("a", lambda: cache.get_or_compute("a", lambda: 1) + 1) == 2


def ask_crosswise(cache: Any, mine: str, other: str, barrier: Any) -> Any:
    def compute() -> Any:
        barrier.wait()
        return cache.get_or_compute(other, lambda: f"{other} by {mine}")

    return cache.get_or_compute(mine, compute)


def cross(name: str, mine: str, other: str, barrier: Any, answers: Any) -> None:
    with vrange.VolatileCache[Any, Any](shared=name) as cache:
        answers.put(ask_crosswise(cache, mine, other, barrier))


def test_two_processes_that_wait_for_each_other_both_go_on(cache: Any, name: str) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(2), context.Queue()
    both = [
        context.Process(target=cross, args=(name, *keys, barrier, answers))
        for keys in (("a", "b"), ("b", "a"))
    ]
    for process in both:
        process.start()
    assert len({answers.get(timeout=60), answers.get(timeout=60)}) >= 1
    for process in both:
        process.join(60)
        assert process.exitcode == 0


def test_a_wait_may_have_a_timeout(
    name: str, new_peer: Callable[..., Peer], tmp_path: Path
) -> None:
    leader = new_peer()
    leader.tell(compute_slowly, "a", str(tmp_path), "leader's")
    wait_for(lambda: began(tmp_path))
    with vrange.VolatileCache[Any, Any](shared=name, timeout=0.05) as cache:
        assert cache.get_or_compute("a", lambda: "mine") == "mine"
        assert "a" not in cache
        (tmp_path / "go").touch()
        assert leader.hear() == "leader's"
        assert cache["a"] == "leader's"


def test_tasks_of_a_loop_wait_for_other_processes_while_others_run(
    cache: Any, new_peer: Callable[..., Peer], tmp_path: Path
) -> None:
    leader = new_peer()
    leader.tell(compute_slowly, "a", str(tmp_path), "leader's")
    wait_for(lambda: began(tmp_path))

    async def compute() -> str:
        return "task's"

    async def go() -> None:
        (tmp_path / "go").touch()

    async def ask() -> list[Any]:
        asking = [cache.get_or_compute_async("a", compute) for _ in range(3)]
        return await asyncio.gather(*asking, go())

    assert asyncio.run(ask())[:3] == ["leader's"] * 3


def test_one_task_of_all_computes(cache: Any, new_peer: Callable[..., Peer]) -> None:
    computed = []

    async def compute() -> list[int]:
        computed.append(1)
        await asyncio.sleep(0.01)
        return [1]

    async def ask() -> list[Any]:
        return await asyncio.gather(*(cache.get_or_compute_async("a", compute) for _ in range(5)))

    answers = asyncio.run(ask())
    assert answers == [[1]] * 5
    assert computed == [1]
    answers[0].append(2)
    assert cache["a"] == [1]
    assert new_peer().ask(peers.get, "a") == [1]


def test_a_call_on_the_loop_s_thread_does_not_wait_for_a_task_of_the_loop(cache: Any) -> None:
    async def compute() -> str:
        await asyncio.sleep(0)
        # A plain call, which can't let the loop run: the task that leads would never end.
        other = cache.get_or_compute("b", lambda: "plain")
        return f"task's, {other}"

    async def lead() -> str:
        await asyncio.sleep(0.01)
        return "led"

    async def ask() -> Any:
        return await asyncio.gather(
            cache.get_or_compute_async("b", lead), cache.get_or_compute_async("a", compute)
        )

    assert list(asyncio.run(ask())) == ["led", "task's, plain"]
    assert cache["b"] == "led"


def test_a_greenlet_does_not_wait_for_another_one_of_its_thread(cache: Any) -> None:
    greenlet = pytest.importorskip("greenlet")
    main = greenlet.getcurrent()

    def lead() -> str:
        main.switch("led")
        return "first"

    first = greenlet.greenlet(lambda: cache.get_or_compute("a", lead))
    assert first.switch() == "led"
    assert cache.get_or_compute("a", lambda: "second") == "second"
    assert first.switch() == "first"
    assert cache["a"] == "first"


def test_a_leader_that_is_dropped_before_it_computes_is_not_waited_for(cache: Any) -> None:
    from vrange._service.flights import Flight

    cache.clear()  # opens it
    values = cache._values
    digest = values.know("a").digest
    flight = Flight.begin(values.index, digest)
    assert flight is not None
    assert flight.leads
    other = Flight.begin(values.index, digest)
    assert other is not None
    assert not other.leads
    del flight  # as when a signal handler raises between two lines
    assert cache.get_or_compute("a", lambda: 1) == 1
