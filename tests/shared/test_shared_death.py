"""Processes that are killed, and children of forks: others go on, and nothing wrong is found."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import shared_peers as peers
from shared_peers import READS_LARGE, Peer, reads_large_values

import vrange


@reads_large_values
def test_small_values_outlive_their_process_and_large_ones_are_misses(
    cache: Any, new_peer: Callable[..., Peer]
) -> None:
    peer, other = new_peer(), new_peer()
    peer.ask(peers.put, "small", "x")
    peer.ask(peers.put, "large", b"x" * 100_000)
    assert cache["large"] == b"x" * 100_000
    peer.kill()
    assert cache["small"] == other.ask(peers.get, "small") == "x"
    assert other.ask(peers.get, "large") == "absent"
    assert cache.get_or_compute("large", lambda: b"y" * 100_000) == b"y" * 100_000
    assert other.ask(peers.get, "large") == b"y" * 100_000


def change_at_random(cache: Any, seed: int) -> None:
    random.seed(seed)
    while True:
        key = random.randrange(20)
        size = random.choice([10, 3000, 30_000])
        match random.randrange(4):
            case 0:
                cache[key] = content(key, size)
            case 1:
                cache.pop(key, None)
            case 2:
                cache.get_or_compute(key, lambda k=key, s=size: content(k, s))
            case _:
                found = cache.get(key)
                assert found is None or is_content(found, key), (key, found)


def content(key: int, size: int) -> Any:
    return np.full(size, key * 1000 + random.randrange(1000))


def is_content(found: Any, key: int) -> bool:
    return bool(found[0] // 1000 == key and (found == found[0]).all())


def test_random_killing_leaves_no_wrong_value(cache: Any, new_peer: Callable[..., Peer]) -> None:
    killed: list[Peer] = []
    for turn in range(8):
        killed.append(new_peer("fork"))
        killed[-1].tell(change_at_random, turn)
        if turn >= 2:
            until = time.monotonic() + 0.2
            while time.monotonic() < until:
                for key in range(20):
                    found = cache.get(key)
                    assert found is None or is_content(found, key)
            victim = killed[turn - 2]
            assert not victim._here.poll(), victim.hear()
            victim.kill()
    for peer in killed:
        if peer.process.is_alive():
            assert not peer._here.poll(), peer.hear()
            peer.kill()
    for key in range(20):
        cache[key] = key
    assert [cache[key] for key in range(20)] == list(range(20))


def in_child(check: Callable[[], object]) -> None:
    """Run a check in the child of a fork."""
    child = os.fork()
    if child == 0:
        try:
            check()
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status == 0


@reads_large_values
def test_children_find_what_their_parent_has(cache: Any) -> None:
    cache["small"] = [1]
    cache["large"] = np.arange(100_000)
    computed = cache.info().regenerated

    def check() -> None:
        assert cache["small"] == [1]
        assert np.array_equal(cache["large"], np.arange(100_000))
        assert cache.get_or_compute("large", lambda: 1 / 0).shape == (100_000,)
        cache["of child"] = 1
        assert cache.info().regenerated == computed
        in_child(lambda: check_again())

    def check_again() -> None:
        assert cache["of child"] == 1
        assert np.array_equal(cache["large"], np.arange(100_000))
        del cache["small"]

    in_child(check)
    assert cache["of child"] == 1
    assert "small" not in cache
    assert np.array_equal(cache["large"], np.arange(100_000))


def test_a_child_does_not_land_what_its_parent_computes(
    cache: Any, new_peer: Callable[..., Peer]
) -> None:
    peer = new_peer()

    def compute() -> str:
        child = os.fork()
        if child == 0:
            return "child's"
        os.waitpid(child, 0)
        peer.tell(peers.compute, "a", "peer's")
        time.sleep(0.1)
        return "parent's"

    parent = os.getpid()
    answer = cache.get_or_compute("a", compute)
    if os.getpid() != parent:
        os._exit(answer != "child's")
    assert answer == "parent's"
    # The child may have stored its own first; nobody computed a third one.
    assert peer.hear() in ("parent's", "child's")
    assert cache["a"] in ("parent's", "child's")


def test_the_last_process_removes_the_file(name: str, new_peer: Callable[..., Peer]) -> None:
    from vrange._service.place import path_of

    path = path_of(name)
    assert path is not None
    peer = new_peer()
    assert not path.exists()  # a cache that is never used takes no memory
    peer.ask(peers.put, "a", 1)
    assert path.exists()
    assert path.stat().st_mode & 0o777 == 0o600
    with vrange.VolatileCache[Any, Any](shared=name) as cache:
        assert cache["a"] == 1
        peer.end()
        assert path.exists()
    assert not path.exists()


def test_what_a_killed_service_left_is_not_found_by_the_next_one(
    name: str, new_peer: Callable[..., Peer]
) -> None:
    peer = new_peer()
    peer.ask(peers.put, "a", 1)
    peer.kill(signal.SIGKILL)
    with vrange.VolatileCache[Any, Any](shared=name) as cache:
        assert "a" not in cache
        cache["a"] = 2
        assert new_peer().ask(peers.get, "a") == 2


def test_closed_caches_leave_no_memory_behind() -> None:
    def shared_kib() -> int:
        status = Path("/proc/self/status").read_text()
        return int(status.partition("RssShmem:")[2].split()[0])

    before = shared_kib()
    for turn in range(10):
        with vrange.VolatileCache[Any, Any](shared=f"turn-{turn}-{os.getpid()}") as cache:
            for number in range(1000):
                cache[number] = b"x" * 3000
            filled = shared_kib() - before
            assert filled > 2000
    assert shared_kib() - before < 2 * filled


def test_values_that_were_replaced_leave_no_memory_behind(
    cache: Any, new_peer: Callable[..., Peer]
) -> None:
    peer = new_peer()
    for turn in range(30):
        cache["mine"] = b"x" * (1 << 20)
        if turn % 2:
            peer.ask(peers.put, "both", b"y" * (1 << 20))
            assert cache.get("both") == (b"y" * (1 << 20) if READS_LARGE else None)
        else:
            cache["both"] = b"z" * (1 << 20)
            assert cache["both"] == b"z" * (1 << 20)
    info = cache.info()
    assert info.idle_bytes + info.offered_bytes + info.pinned_bytes < 8 << 20


EXEC = """
import os, sys, threading, time
import vrange
cache = vrange.VolatileCache(shared=sys.argv[1])
if len(sys.argv) == 2:
    began = threading.Event()
    def compute():
        began.set()
        time.sleep(1000)
    threading.Thread(target=cache.get_or_compute, args=("a", compute), daemon=True).start()
    began.wait()
    cache["large"] = b"x" * 100_000
    os.execv(sys.executable, [sys.executable, "-c", CODE, sys.argv[1], "again"])
assert cache.get("large") is None
print(cache.get_or_compute("a", lambda: "computed again"))
"""


def test_a_process_that_calls_exec_is_another_one(cache: Any, name: str) -> None:
    cache["of this process"] = 1
    program = f"CODE = {EXEC!r}\n{EXEC}"
    command = [sys.executable, "-c", program, name]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "computed again\n"
    assert cache["a"] == "computed again"
    assert cache.get("large") is None
