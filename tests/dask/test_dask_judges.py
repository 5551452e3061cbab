"""Who judges a worker by its memory, and what counts for them."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from support import RUNG, succeeds

import vrange
from vrange._ranges.reserve import offer
from vrange.dask.judges import OfferedIsSpared

MIB = 1 << 20


class Nanny(SimpleNamespace):
    """As much of a nanny as the plugin needs."""


def nanny_of_this_process(limit: int, told: list[str]) -> Any:
    """A nanny whose worker is this process, and what Dask's own look would do."""
    return Nanny(
        pid=os.getpid(),
        memory_manager=SimpleNamespace(memory_limit=limit, memory_terminate_fraction=0.5),
        periodic_callbacks={
            "memory_monitor": SimpleNamespace(callback=lambda: told.append("Dask looked"))
        },
    )


def resident() -> int:
    return int(psutil.Process().memory_info().rss)


def test_a_nanny_ends_its_worker_for_what_it_holds_and_not_for_what_is_offered() -> None:
    told: list[str] = []
    with vrange.Arena("1GiB", name="judged") as arena:
        stored = arena.store([bytes(64 * MIB)])
        nanny = nanny_of_this_process(2 * (resident() - 32 * MIB), told)
        plugin = OfferedIsSpared()
        plugin.setup(nanny)
        plugin.setup(nanny)  # a worker that starts anew registers it again
        look = nanny.periodic_callbacks["memory_monitor"].callback
        look()
        assert told == ["Dask looked"]  # it is pinned
        stored.mark_volatile()
        offer(64 * MIB)
        look._not_before = 0.0
        look()
        if RUNG == "eager":
            assert told == ["Dask looked"] * 2  # nothing is ever offered
            return
        assert told == ["Dask looked"]  # it does not count any more
        stored.pin()
        stored.buffer[::4096] = bytes(64 * MIB // 4096)
        look._not_before = 0.0
        look()
        assert told == ["Dask looked"] * 2


def test_a_nanny_without_a_worker_leaves_it_to_dask() -> None:
    told: list[str] = []
    nanny = nanny_of_this_process(1, told)
    OfferedIsSpared().setup(nanny)
    nanny.pid = None
    nanny.periodic_callbacks["memory_monitor"].callback()
    assert told == ["Dask looked"]
    nanny.periodic_callbacks = {}  # it ends no worker
    OfferedIsSpared().setup(nanny)


def test_a_nanny_that_cant_see_what_is_offered_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vrange.dask.judges.lazyfree_bytes", lambda pid: None)
    with pytest.raises(vrange.VrangeError, match="LazyFree"):
        OfferedIsSpared().setup(nanny_of_this_process(1, []))


@pytest.mark.parametrize("wanted", [True, False])
def test_a_worker_counts_offered_bytes_if_it_is_asked_to(wanted: bool, tmp_path: Any) -> None:
    code = f"""
    import vrange, vrange.dask
    from vrange._ranges.reserve import offer, offered_bytes
    from vrange._ranges.dask_worker_limit import spares_offered
    from dask.distributed import Client, LocalCluster

    def main():
        data = vrange.dask.VolatileBuffer, {{"beyond_limit": {wanted}}}
        with LocalCluster(n_workers=1, processes=False, memory_limit="1GiB", data=data,
                          dashboard_address=":0") as cluster, Client(cluster) as client:
            client.register_plugin(vrange.dask.Plugin())
            client.submit(lambda: bytes(5000)).result()
            worker = cluster.workers[0]
            arena = vrange.Arena("1GiB")
            stored = arena.store([bytes(64 << 20)])
            counted = worker.monitor.get_process_memory()
            stored.mark_volatile()
            offer(64 << 20)
            now = worker.monitor.get_process_memory()
            print(spares_offered(worker.memory_manager), counted - now > 60 << 20)

    main()
    """
    out = succeeds(code, environment={"DASK_TEMPORARY_DIRECTORY": str(tmp_path)})
    expected = wanted and RUNG != "eager"
    assert out == f"{expected} {expected}\n"
