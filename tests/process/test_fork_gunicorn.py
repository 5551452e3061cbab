"""gunicorn --preload: the master fills a cache, and its workers read it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from support import MIB, RUNG, wait_until

from vrange.cli.memory_cgroup import MemoryCgroup

WORKERS = 4
HOT_BYTES = 16 * MIB  # of copies that each worker holds strongly
APP = """
import functools, json, os
import numpy as np
import vrange

computed = []
def tile(n):
    computed.append(n)
    return np.full(4 << 20, n, "u1")

if os.environ["KIND"] == "lru":
    tile = functools.lru_cache(None)(tile)
else:
    tile = vrange.cached(hot_bytes=int(os.environ["HOT_BYTES"]))(tile)
for n in range(50):
    tile(n)
computed.clear()
taken = []

def app(environ, start_response):
    for _ in range(int(environ["QUERY_STRING"] or 0) // 4):
        taken.append(np.ones(4 << 20, "u1"))
    for n in range(50):
        assert (tile(n)[::4096] == n).all()
    info = tile.cache_info()
    told = {"pid": os.getpid(), "parent": os.getppid(), "computed": len(computed),
            "peer_hits": getattr(info, "peer_hits", 0)}
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(told).encode()]
"""


def pss_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) << 10
    raise AssertionError(pid)


@contextmanager
def gunicorn(
    directory: Path, kind: str, prepare: Callable[[], object] = lambda: None
) -> Iterator[str]:
    (directory / "preloaded.py").write_text(APP)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    log = directory / f"{kind}.log"
    with log.open("w") as output:
        server = subprocess.Popen(
            [
                *(sys.executable, "-m", "gunicorn", "--preload", "--workers", str(WORKERS)),
                *("--bind", address, "preloaded:app"),
            ],
            cwd=directory,
            env=os.environ | {"KIND": kind, "HOT_BYTES": str(HOT_BYTES), "VRANGE_RUNG": RUNG},
            stdout=output,
            stderr=output,
            preexec_fn=prepare,
        )

    def listens() -> bool:
        assert server.poll() is None, log.read_text()
        with suppress(OSError):
            urllib.request.urlopen(f"http://{address}/").close()
            return True
        return False

    try:
        wait_until(listens, "gunicorn listens")
        yield f"http://{address}/"
    finally:
        server.terminate()
        server.wait(20)


def ask(url: str) -> dict[str, int]:
    with urllib.request.urlopen(url, timeout=20) as answer:
        told: dict[str, int] = json.load(answer)
        return told


def ask_all(url: str, times: int) -> dict[int, list[dict[str, int]]]:
    """Ask until each worker has answered so often; what they told by worker."""
    told: dict[int, list[dict[str, int]]] = {}

    def each_answered() -> bool:
        with ThreadPoolExecutor(2 * WORKERS) as clients:
            for one in clients.map(ask, [url] * (2 * WORKERS)):
                told.setdefault(one["pid"], []).append(one)
        return len(told) == WORKERS and min(map(len, told.values())) >= times

    wait_until(each_answered, "each worker answers", seconds=60)
    return told


def total_bytes(directory: Path, kind: str) -> int:
    with gunicorn(directory, kind) as url:
        told = ask_all(url, times=3)
        assert all(one["computed"] == 0 for ones in told.values() for one in ones)
        if kind == "vrange":
            assert all(ones[-1]["peer_hits"] > 80 for ones in told.values()), told
        (master,) = {one["parent"] for ones in told.values() for one in ones}
        return sum(map(pss_bytes, [master, *told]))


@pytest.mark.skipif(RUNG != "refault", reason="it takes seconds, and differs in nothing")
def test_workers_find_what_the_master_cached_and_it_is_in_memory_once(tmp_path: Path) -> None:
    with_lru, with_vrange = (total_bytes(tmp_path, kind) for kind in ("lru", "vrange"))
    assert with_lru > 200 * MIB
    copies = WORKERS * HOT_BYTES
    assert with_vrange - copies < 1.1 * with_lru, (with_vrange >> 20, with_lru >> 20)


@pytest.mark.memory_cgroup
@pytest.mark.skipif(RUNG != "refault", reason="it takes seconds, and differs in nothing")
def test_what_the_workers_read_can_all_be_reclaimed(tmp_path: Path) -> None:
    with MemoryCgroup(400 * MIB) as group:
        with gunicorn(tmp_path, "vrange", lambda: group.add(os.getpid())) as url:
            told = ask_all(url, times=2)
            assert all(one["computed"] == 0 for ones in told.values() for one in ones)
            one = ask(f"{url}?240")  # and 200 MiB are cached
            assert one["computed"] > 0, one
            assert set(ask_all(url, times=1)) == set(told)
        assert group.oom_kills == 0
