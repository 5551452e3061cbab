"""Each program in docs/web.md runs under gunicorn with four workers, as the page says."""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "web.md").read_text()
PROGRAMS = re.findall(
    r"^## (\w+)\n\n```python\n(.*?)^```\n\n```\nvenv/bin/(gunicorn [^\n]+)\n```$",
    PAGE,
    re.MULTILINE | re.DOTALL,
)
PATIENCE_SECONDS = 60


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS) as answer:
        data: bytes = answer.read()
        return data


@contextmanager
def served(program: str, command: str, directory: Path) -> Iterator[str]:
    """Run a program by the page's command on a free port, and yield its address."""
    (directory / "app.py").write_text(program)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with (directory / "log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", *shlex.split(command), "--bind", address],
            cwd=directory,
            # The page's second way to start: one import instead of four.
            env={**os.environ, "HOME": str(directory), "GUNICORN_CMD_ARGS": "--preload"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                fetch(f"http://{address}/metrics")
                break
            except (OSError, http.client.HTTPException):
                assert server.poll() is None, (directory / "log").read_text()
                assert time.monotonic() < deadline, (directory / "log").read_text()
                time.sleep(0.05)
        yield f"http://{address}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def requests_by_outcome(url: str) -> dict[str, float]:
    """What /metrics says of all caches of the service."""
    found: dict[str, float] = {}
    text = fetch(f"{url}/metrics").decode()
    for outcome, count in re.findall(
        r'^vrange_cache_requests_total\{.*outcome="(\w+)".*\} (\S+)$', text, re.MULTILINE
    ):
        found[outcome] = found.get(outcome, 0) + float(count)
    return found


def test_each_framework_has_a_program() -> None:
    assert [name for name, *_ in PROGRAMS] == ["Flask", "FastAPI", "Django"]
    assert all("--workers 4" in command for *_, command in PROGRAMS)


@pytest.mark.parametrize(
    ("program", "command"), [each[1:] for each in PROGRAMS], ids=[each[0] for each in PROGRAMS]
)
def test_program(program: str, command: str, tmp_path: Path) -> None:
    with served(program, command, tmp_path) as url:

        def ask(_: object = None) -> Any:
            return json.loads(fetch(f"{url}/totals/2026"))

        answers = [ask()]
        deadline = time.monotonic() + PATIENCE_SECONDS
        with ThreadPoolExecutor(8) as pool:
            while len({answer["worker"] for answer in answers}) < 2:
                assert time.monotonic() < deadline, "one worker answers everything"
                answers += pool.map(ask, range(16))
        assert {tuple(answer["totals"]) for answer in answers} == {(2026, 2026000)}
        log = (tmp_path / "log").read_text()
        assert log.count("asks the database for 2026") == 1, log
        requests = requests_by_outcome(url)
        # Django's get_or_set looks twice before it stores.
        assert requests.pop("miss") <= 2
        # One worker reports the requests of all.
        assert sum(requests.values()) >= len(answers) - 1
