"""A real cluster of processes with the plugin and the buffer: results, memory, and who dies."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from distributed import Client, wait
from support import RUNG, wait_until

import vrange.dask

MIB = 1 << 20
LIMIT = 400 * MIB


@pytest.fixture(scope="module")
def client(start_cluster: Callable[..., Client]) -> Client:
    client = start_cluster(n_workers=2, memory_limit=LIMIT, data=vrange.dask.VolatileBuffer)
    client.register_plugin(vrange.dask.Plugin())
    return client


def heap_bytes() -> int:
    """What a task's array of 8 MiB adds to vrange's heap."""
    import vrange.heap

    before = vrange.heap.info().used_bytes
    array = np.ones(MIB)
    return vrange.heap.info().used_bytes - before + 0 * int(array[0])


def test_tasks_arrays_come_from_the_heap(client: Client) -> None:
    told = client.gather([client.submit(heap_bytes, pure=False) for _ in range(8)])
    assert max(told) >= 8 * MIB  # other tasks free theirs meanwhile

    async def in_the_loop() -> int:
        return heap_bytes()

    told = client.gather([client.submit(in_the_loop, pure=False)])
    assert told[0] >= 8 * MIB


def block(n: int) -> np.ndarray:
    return np.full(MIB, n)


def check(array: np.ndarray, n: int) -> bool:
    return bool((array == n).all())


def figures(dask_worker: Any) -> dict[str, Any]:
    import vrange

    counted = dask_worker.data.cumulative_metrics
    return {
        "pid": os.getpid(),
        "type": type(dask_worker.data).__name__,
        "written": counted["disk-write", "bytes"],
        "read": counted["disk-read", "bytes"],
        "limit": int(vrange.memory_limit()),
        "keys": len(dask_worker.data),
        "files": sum(1 for _ in Path(dask_worker.local_directory, "storage").glob("*")),
    }


def test_more_data_than_memory_is_right_and_nobody_dies(client: Client) -> None:
    before = client.run(figures)
    assert {one["type"] for one in before.values()} == {"VolatileBuffer"}
    assert {one["limit"] for one in before.values()} == {int(0.7 * LIMIT)}
    blocks = client.map(block, range(50))  # 400 MiB: more than the two hold
    wait(blocks)
    for _ in range(1):
        checked = client.map(check, blocks, range(50), pure=False)
        assert all(client.gather(checked))
    after = client.run(figures)
    assert {one["pid"] for one in after.values()} == {one["pid"] for one in before.values()}
    assert sum(one["written"] for one in after.values()) > 0
    del blocks, checked
    wait_until(
        lambda: all(one["files"] == one["keys"] == 0 for one in client.run(figures).values()),
        "files of released keys go",
    )


def resident_bytes(_: int) -> int:
    from dask_support import resident_bytes

    return resident_bytes()


def test_what_is_spilled_stays_in_memory_that_the_machine_can_spare(client: Client) -> None:
    """More than a worker's whole limit, which its nanny would end it for if that counted."""
    before = client.run(figures)
    blocks = client.map(block, range(400, 510))
    wait(blocks)
    assert all(client.gather(client.map(check, blocks, range(400, 510), pure=False)))
    after = client.run(figures)
    assert {one["pid"] for one in after.values()} == {one["pid"] for one in before.values()}
    read = sum(one["read"] for one in after.values()) - sum(one["read"] for one in before.values())
    counted = client.run(lambda dask_worker: dask_worker.monitor.get_process_memory())
    assert max(counted.values()) <= 0.95 * LIMIT
    if RUNG != "eager":  # where nothing can be offered
        assert read <= 0.1 * 110 * 8 * MIB
        resident = client.run(resident_bytes, 0)
        assert sum(resident.values()) > 2 * LIMIT


def test_graphs_of_dask_array(client: Client) -> None:
    da = pytest.importorskip("dask.array")
    with dask.config.set({"array.rechunk.method": "tasks"}):
        x = da.random.default_rng(1).random((1600, 1600), chunks=(400, 1600)).persist()
        turned = x.rechunk((1600, 400))
        assert float((turned.T - x.T).sum().compute()) == 0


def test_large_blocks_of_all_libraries(client: Client) -> None:
    """The nannies restart their workers for that, so it stands before those that lose some.

    A nanny that starts a worker anew at that moment can end up without one.
    """

    def bytes_of_a_block() -> int:
        import vrange.heap

        before = vrange.heap.info().used_bytes
        block = bytearray(8 * MIB)
        return vrange.heap.info().used_bytes - before + 0 * len(block)

    client.register_plugin(vrange.dask.MallocPlugin())
    client.wait_for_workers(2, timeout=60)
    assert client.gather([client.submit(bytes_of_a_block, pure=False)])[0] >= 8 * MIB
    os.environ.pop("LD_PRELOAD", None)  # a nanny leaves what it sets for its worker


def test_a_worker_that_is_killed_is_replaced_and_its_keys_come_again(client: Client) -> None:
    blocks = client.map(block, range(200, 220))
    wait(blocks)
    victim = next(iter(client.run(os.getpid).values()))
    os.kill(victim, signal.SIGKILL)
    assert all(client.gather(client.map(check, blocks, range(200, 220), pure=False)))
    client.wait_for_workers(2, timeout=60)
    told = client.gather([client.submit(heap_bytes, pure=False) for _ in range(8)])
    assert max(told) >= 8 * MIB  # the plugin is in the new process, too


def test_a_worker_that_retires_hands_its_keys_over(client: Client) -> None:
    blocks = client.map(block, range(300, 320))
    wait(blocks)
    client.wait_for_workers(2, timeout=60)
    leaving = next(iter(client.scheduler_info()["workers"]))
    client.retire_workers([leaving])
    assert all(client.gather(client.map(check, blocks, range(300, 320), pure=False)))


def test_the_workers_own_metrics_have_ours(client: Client) -> None:
    def metrics(dask_worker: Any) -> bool:
        import prometheus_client

        return b"vrange_info" in prometheus_client.generate_latest()

    assert all(client.run(metrics).values())


def test_workers_that_come_and_go(start_cluster: Callable[..., Client]) -> None:
    """One that joins has the plugin and the buffer; what one has that leaves is not lost."""
    client = start_cluster(n_workers=1, memory_limit=LIMIT, data=vrange.dask.VolatileBuffer)
    client.register_plugin(vrange.dask.Plugin())
    cluster: Any = client.cluster
    blocks = client.map(block, range(400, 420))
    wait(blocks)
    cluster.scale(2)
    client.wait_for_workers(2, timeout=60)
    blocks += client.map(block, range(420, 440))
    wait(blocks)
    assert {one["type"] for one in client.run(figures).values()} == {"VolatileBuffer"}
    assert min(client.run(heap_bytes).values()) >= 8 * MIB
    cluster.scale(1)
    wait_until(lambda: len(client.scheduler_info()["workers"]) == 1, "one worker is left")
    assert all(client.gather(client.map(check, blocks, range(400, 440), pure=False)))
