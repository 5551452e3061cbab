"""The memory limit of a Dask worker, which vrange keeps without being asked."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from distributed import Client
from support import python, succeeds

MIB = 1 << 20
LIMIT = 400 * MIB
SPILL = 0.7  # distributed.worker.memory.spill, as Dask has it


@pytest.fixture(scope="module")
def client(start_cluster: Callable[..., Client]) -> Client:
    return start_cluster(n_workers=2, memory_limit=LIMIT)


def pids(client: Client) -> dict[str, int]:
    return dict(client.run(os.getpid))


def fill(part: int) -> tuple[int, int, str]:
    from dask_support import load, resident_bytes

    import vrange

    most = 0
    for n in range(50):
        assert load(part * 50 + n)[0] == (part * 50 + n) % 256
        most = max(most, resident_bytes())
    limit = vrange.memory_limit()
    return most, int(limit), limit.source


def test_a_cache_gives_way_before_the_worker_reacts(client: Client) -> None:
    before = pids(client)
    told = client.gather(client.map(fill, range(8), pure=False))
    assert [limit for _, limit, _ in told] == [int(SPILL * LIMIT)] * 8
    assert {source for *_, source in told} == {"set_limit"}
    assert max(most for most, *_ in told) <= SPILL * LIMIT
    assert pids(client) == before


def test_a_limit_of_the_programs_own_does_not_replace_it(client: Client) -> None:
    def set_limits() -> list[int]:
        import vrange

        limits = []
        for bytes in ("1GiB", "100MiB", None):
            vrange.set_limit(bytes)
            limits.append(int(vrange.memory_limit()))
        return limits

    expected = [int(SPILL * LIMIT), 100 * MIB, int(SPILL * LIMIT)]
    assert set(map(tuple, client.run(set_limits).values())) == {tuple(expected)}


IN_PROCESS = """
    import time, dask, vrange
    {first}
    from dask.distributed import Client, LocalCluster

    def main():
        {second}
        for shares in {shares}:
            with dask.config.set(shares), LocalCluster(
                n_workers={workers}, processes=False, memory_limit="1GiB", dashboard_address=":0"
            ) as cluster, Client(cluster) as client:
                {third}
                print(client.submit(lambda: int(vrange.memory_limit())).result() / (1 << 30) + 1e-6)
        del cluster, client
        deadline = time.monotonic() + 20
        while vrange.memory_limit().source == "set_limit" and time.monotonic() < deadline:
            time.sleep(0.05)
        print(vrange.memory_limit().source != "set_limit")

    main()
"""
USE = "cache = vrange.VolatileCache(); cache[1] = bytes(100_000)"


@pytest.mark.parametrize("when", ["first", "third"])
def test_workers_in_the_programs_own_process(when: str, tmp_path: Path) -> None:
    """Whether the program uses vrange before it imports Dask, or once workers run."""
    parts = {part: USE if part == when else "pass" for part in ("first", "second", "third")}
    assert told_by(tmp_path, workers=2, shares=[{}], **parts) == "0.70 True"


def test_the_share_is_what_the_worker_reacts_to_first(tmp_path: Path) -> None:
    memory = "distributed.worker.memory."
    shares: list[dict[str, Any]] = [
        {memory + "spill": False},
        {memory + "spill": 0.5, memory + "target": 0.4},
        {memory + "spill": False, memory + "pause": False},
    ]
    assert (
        told_by(tmp_path, first=USE, second="pass", third="pass", workers=1, shares=shares)
        == "0.80 0.50 0.95 True"
    )


def told_by(directory: Path, **parts: Any) -> str:
    environment = {"DASK_TEMPORARY_DIRECTORY": str(directory)}
    out = succeeds(IN_PROCESS.format(**parts), environment=environment)
    return " ".join(word[:4] for word in out.split())


def test_dask_is_not_imported_for_it() -> None:
    code = """
    import sys, vrange
    cache = vrange.VolatileCache()
    cache[1] = 2
    int(vrange.memory_limit())
    print(any(name.partition(".")[0] in ("dask", "distributed") for name in sys.modules))
    """
    assert succeeds(code) == "False\n"


def test_without_dask_the_module_says_which_extra() -> None:
    done = python("import sys; sys.modules['distributed'] = None; import vrange.dask")
    assert "pip install 'vrange[dask]'" in done.stderr
