"""What the policy drops, on a real scheduler with real workers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import dask
import numpy as np
import pytest
from distributed import Client
from support import wait_until

import vrange.dask

MIB = 1 << 20
AMM = "distributed.scheduler.active-memory-manager"
POLICY = "vrange.dask.DropReplicas"


@pytest.fixture(scope="module")
def client(start_cluster: Callable[..., Client]) -> Iterator[Client]:
    policies = {f"{AMM}.policies": [{"class": POLICY, "above": 0.5}], f"{AMM}.start": False}
    with dask.config.set(policies):
        # In one process, where each worker counts the memory of all: their limits tell them apart.
        yield start_cluster(n_workers=3, processes=False, memory_limit=None)


def limit_of_first(client: Client, limit: int) -> str:
    """Set one worker's limit, in what the scheduler knows. Return the worker's address."""

    def put(dask_scheduler: Any) -> str:
        first = next(iter(dask_scheduler.workers.values()))
        first.memory_limit = limit
        return str(first.address)

    return str(client.run_on_scheduler(put))


def replicas(client: Client, futures: list[Any]) -> list[set[str]]:
    found = client.who_has(futures)
    return [set(found[future.key]) for future in futures]


def test_replicas_go_from_a_worker_that_is_short_of_memory_and_from_no_other(
    client: Client,
) -> None:
    values = client.scatter([np.full(MIB, n, "u1") for n in range(4)], broadcast=True)
    client.amm.run_once()
    time.sleep(0.2)  # whatever is dropped is dropped by now
    assert [len(found) for found in replicas(client, values)] == [3] * 4, "no worker is short"
    short = limit_of_first(client, 1)
    client.amm.run_once()
    wait_until(
        lambda: all(len(found) == 2 for found in replicas(client, values)), "replicas are kept"
    )
    assert not any(short in found for found in replicas(client, values))
    assert all((np.asarray(value.result()) == n).all() for n, value in enumerate(values))
    limit_of_first(client, 0)


def test_only_as_much_as_the_worker_lacks_the_largest_first(client: Client) -> None:
    sizes = [1, 8, 2, 4]
    values = client.scatter([np.full(n * MIB, n, "u1") for n in sizes], broadcast=True)

    def make_short(dask_scheduler: Any, nbytes: int) -> str:
        amm = dask_scheduler.extensions["amm"]
        first = next(iter(dask_scheduler.workers.values()))
        used = getattr(first.memory, amm.measure)
        first.memory_limit = int((used - nbytes) / 0.5)
        amm.run_once()
        return str(first.address)

    short = client.run_on_scheduler(make_short, nbytes=7 * MIB)
    wait_until(lambda: short not in replicas(client, values)[1], "nothing is dropped")
    assert [short in found for found in replicas(client, values)] == [True, False, True, True]
    limit_of_first(client, 0)


def test_the_last_copy_stays(client: Client) -> None:
    value = client.submit(np.ones, MIB)
    value.result()
    before = replicas(client, [value])

    def all_are_short(dask_scheduler: Any) -> None:
        for worker in dask_scheduler.workers.values():
            worker.memory_limit = 1
        dask_scheduler.extensions["amm"].run_once()

    client.run_on_scheduler(all_are_short)
    time.sleep(0.2)
    assert replicas(client, [value]) == before


@pytest.mark.parametrize("above", [0, 1.5, True, "0.5", None])
def test_bad_shares(above: Any) -> None:
    with pytest.raises(ValueError, match="above must be"):
        vrange.dask.DropReplicas(above=above)
