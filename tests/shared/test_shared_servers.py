"""Behind real servers and pools: all their processes have one cache."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from shared_peers import reads_large_values
from support import free_port

pytest.importorskip("gunicorn")

APP = """
import os
import time
import numpy as np
import vrange

@vrange.cached(shared=True)
def table(n):
    with open(os.environ["COMPUTED"], "a") as log:
        log.write(f"{n} {os.getpid()}\\n")
    return np.full(50_000, n)

if os.environ.get("FILL"):
    for n in range(20):
        table(n)

def app(environ, start_response):
    n = int(environ["PATH_INFO"].strip("/"))
    found = table(n)
    assert (found == n).all() and not found.flags.writeable
    start_response("200 OK", [])
    time.sleep(0.01)  # so that other workers get requests, too
    return [f"{os.getpid()} {found.sum()}".encode()]
"""


@contextmanager
def gunicorn(directory: Path, *options: str, **environment: str) -> Iterator[int]:
    (directory / "application.py").write_text(textwrap.dedent(APP))
    port = free_port()
    log = directory / "computed"
    log.touch()
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "gunicorn", "application:app", "--bind", f"127.0.0.1:{port}"),
            *("--workers", "4", "--log-level", "warning", *options),
        ],
        cwd=directory,
        env={**os.environ, "COMPUTED": str(log), **environment},
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                ask(port, 0)
                break
            except OSError:
                assert time.monotonic() < deadline
                assert server.poll() is None
                time.sleep(0.05)
        yield port
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def ask(port: int, n: int) -> tuple[int, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{n}", timeout=60) as answer:
        pid, total = answer.read().split()
        return int(pid), float(total)


def ask_all(port: int) -> set[int]:
    """Ask for everything until each of the four workers has answered; return the workers."""
    workers: set[int] = set()
    deadline = time.monotonic() + 60
    with ProcessPoolExecutor(4, get_context("spawn")) as pool:
        while len(workers) < 4:
            for n, (pid, total) in enumerate(pool.map(ask, [port] * 20, range(20))):
                assert total == n * 50_000
                workers.add(pid)
            assert time.monotonic() < deadline
    return workers


@reads_large_values
@pytest.mark.parametrize("options", [(), ("--threads", "4")], ids=["sync", "gthread"])
def test_workers_compute_each_key_once(tmp_path: Path, options: tuple[str, ...]) -> None:
    with gunicorn(tmp_path, *options) as port:
        ask_all(port)
        computed = [line.split()[0] for line in (tmp_path / "computed").read_text().splitlines()]
        assert sorted(map(int, computed)) == list(range(20))


@reads_large_values
def test_workers_find_what_was_computed_before_they_were_forked(tmp_path: Path) -> None:
    with gunicorn(tmp_path, "--preload", FILL="1") as port:
        workers = ask_all(port)
        lines = (tmp_path / "computed").read_text().splitlines()
        assert len(lines) == 20
        assert not workers & {int(line.split()[1]) for line in lines}


def test_new_workers_find_what_old_ones_computed(tmp_path: Path) -> None:
    with gunicorn(tmp_path) as port:
        workers = ask_all(port)
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        again = ask_all(port)
        assert not workers & again  # and the answers are right


def compute(n: int) -> tuple[int, Any]:
    import shared_pool_task

    return os.getpid(), shared_pool_task.double(n)


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_a_pool_of_processes(tmp_path: Path, method: str) -> None:
    import shared_pool_task

    shared_pool_task.double.cache_clear()
    log = tmp_path / "computed"
    os.environ["COMPUTED"] = str(log)
    try:
        with ProcessPoolExecutor(3, get_context(method)) as pool:
            answers = list(pool.map(compute, [*range(10)] * 3))
    finally:
        del os.environ["COMPUTED"]
    assert [answer for _, answer in answers] == [n * 2 for n in range(10)] * 3
    assert sorted(log.read_text().split()) == sorted(map(str, range(10)))
    assert shared_pool_task.double.cache_contains(3)
