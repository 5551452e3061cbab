"""@vrange.dask.cached: one worker computes, the others get the value from it."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dask.delayed import delayed
from dask_support import counted, counted_slowly, counts_of
from distributed import Client
from support import wait_until

import vrange.dask
from vrange.dask.directory import Answer, Directory, home_of


@pytest.fixture(scope="module")
def client(start_cluster: Callable[..., Client]) -> Client:
    client = start_cluster(n_workers=3)
    client.register_plugin(vrange.dask.Plugin())
    return client


@pytest.fixture
def log(tmp_path: Path) -> str:
    return str(tmp_path / "calls")


def use(log: str, n: int) -> int:
    return int(counted(log, n)[0])


def use_slowly(log: str, n: int) -> int:
    return int(counted_slowly(log, n)[0])


def workers(client: Client) -> list[str]:
    return sorted(client.scheduler_info(n_workers=-1)["workers"])


def test_each_value_is_computed_once_in_the_cluster(client: Client, log: str) -> None:
    for n in range(4):
        for worker in workers(client) * 2:
            task = client.submit(use, log, n, workers=[worker], pure=False)
            assert task.result() == n
    assert counts_of(log) == dict.fromkeys(range(4), 1)


def test_calls_at_the_same_time_wait_for_one(client: Client, log: str) -> None:
    tasks = client.map(use_slowly, [log] * 6, [7] * 6, pure=False, workers=workers(client))
    assert client.gather(tasks) == [7] * 6
    assert counts_of(log) == {7: 1}


def test_it_works_in_graphs(client: Client, log: str) -> None:
    parts = [delayed(use)(log, n % 3) for n in range(12)]
    assert sum(client.gather(client.compute(parts))) == 12
    assert counts_of(log) == dict.fromkeys(range(3), 1)


def test_a_function_of_the_main_program(client: Client, log: str) -> None:
    """It arrives pickled with its code, several times."""

    @vrange.dask.cached
    def local(log: str, n: int) -> np.ndarray:
        with open(log, "a") as file:
            file.write(f"{n}\n")
        return np.full(1000, n)

    def first(log: str, n: int) -> int:
        return int(local(log, n)[0])

    for worker in workers(client):
        for _ in range(2):
            assert client.submit(first, log, 5, workers=[worker], pure=False).result() == 5
    assert counts_of(log) == {5: 1}


def test_an_error_is_not_cached_and_ends_nobodys_wait(client: Client, log: str) -> None:
    tasks = client.map(use_slowly, [log] * 4, [-1] * 4, pure=False)
    for task in tasks:
        with pytest.raises(ValueError, match="negative"):
            task.result(timeout=60)
    assert 1 <= counts_of(log)[-1] <= 4  # waiters of one process get its exception


def test_a_value_whose_worker_died_is_computed_again(client: Client, log: str) -> None:
    holder = workers(client)[0]
    assert client.submit(use, log, 9, workers=[holder], pure=False).result() == 9
    pid = client.run(os.getpid, workers=[holder])[holder]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: holder not in workers(client), "the worker goes", 60)
    client.wait_for_workers(3, timeout=60)
    for worker in workers(client):
        assert client.submit(use, log, 9, workers=[worker], pure=False).result(timeout=60) == 9
    assert counts_of(log)[9] <= 3


def test_without_a_cluster_it_is_an_ordinary_cache(log: str) -> None:
    assert [use(log, 3) for _ in range(3)] == [3] * 3
    told: list[int] = []
    thread = threading.Thread(target=lambda: told.append(use(log, 3)))
    thread.start()
    thread.join()
    assert told == [3]
    assert counts_of(log) == {3: 1}
    assert counted.cache_info().misses >= 1


def test_options_are_those_of_cached() -> None:
    square = vrange.dask.cached(max_entries=1, name="one")(lambda n: n * n)

    assert [square(n) for n in (2, 3, 2)] == [4, 9, 4]
    assert square.cache_parameters()["max_entries"] == 1
    with pytest.raises(TypeError):
        vrange.dask.cached(no_option=1)(abs)


# ---- the directory -------------------------------------------------------------------------------


def ask(directory: Directory, asker: str, workers: str = "abc", **options: Any) -> Any:
    return directory.ask("k", asker, workers=set(workers), patience=5.0, **options)


def test_homes_are_spread_and_stay() -> None:
    names = [f"tcp://10.0.0.{n}:80" for n in range(5)]
    homes = {f"k{n}": home_of(f"k{n}", names) for n in range(1000)}
    shares = [list(homes.values()).count(name) for name in names]
    assert min(shares) > 130
    left = names[:-1]
    assert all(home_of(key, left) == home for key, home in homes.items() if home != names[-1])


def test_the_directory_sends_to_who_has_it() -> None:
    async def main() -> None:
        directory = Directory()
        assert await ask(directory, "a") == Answer(compute=True)
        waiting = asyncio.create_task(ask(directory, "b"))
        await asyncio.sleep(0)
        directory.computed("k", "a", has_value=True)
        assert await waiting == Answer(holder="a")
        assert await ask(directory, "c") == Answer(holder="a")
        directory.lost("k", "a")
        assert await ask(directory, "c") == Answer(compute=True)

    asyncio.run(main())


def test_a_leader_that_left_or_failed_is_followed_by_another() -> None:
    async def main() -> None:
        directory = Directory()
        await ask(directory, "a")
        assert await ask(directory, "b", "bc") == Answer(compute=True)
        waiting = asyncio.create_task(ask(directory, "c"))
        await asyncio.sleep(0)
        directory.computed("k", "b", has_value=False)
        assert await waiting == Answer()
        assert await ask(directory, "c") == Answer(compute=True)

    asyncio.run(main())


def test_a_wait_ends_after_its_patience() -> None:
    async def main() -> None:
        directory = Directory()
        await ask(directory, "a")
        began = time.monotonic()
        answer = await directory.ask("k", "b", workers={"a", "b"}, patience=0.01)
        assert answer == Answer()
        assert time.monotonic() - began < 5

    asyncio.run(main())
