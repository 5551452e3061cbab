"""The parts of the example as processes: the service, a real Prometheus, and a load.

Everything listens on this machine only, and ends with the `with` block in which it was started.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from examples.thumbnails.photographs import NAMES, SIZES

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
RULES = ROOT / "dashboards" / "rules.yml"
HOST = "127.0.0.1"
INSTALL = "Prometheus is not installed (Debian: apt-get install --no-install-recommends prometheus)"
_PATIENCE_SECONDS = 60


class Process:
    """A process with a session of its own, which is ended as a whole."""

    def __init__(self, command: list[str], log: Path, environment: dict[str, str]) -> None:
        self.log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ | environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Wait until `ready`. If the process ends before, raise RuntimeError with its output."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                if ready():
                    return
            except (OSError, http.client.HTTPException):
                pass
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise RuntimeError(f"{self.process.args!r}: {self.log.read_text(errors='replace')}")
            time.sleep(0.05)

    def close(self) -> None:
        """End it, and the processes that it started."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def free_port() -> int:
    """Return a port on which nothing listens now."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        port: int = sock.getsockname()[1]
        return port


def fetch(url: str) -> bytes:
    """Return the response."""
    with urllib.request.urlopen(url, timeout=30) as answer:
        data: bytes = answer.read()
        return data


class Service(Process):
    """The example's service, under uvicorn or under gunicorn with four workers."""

    def __init__(self, server: str, port: int, directory: Path, **environment: str) -> None:
        app = "examples.thumbnails.app:app"
        commands = {
            "uvicorn": ["uvicorn", app, "--host", HOST, "--port", str(port)],
            "gunicorn": [
                *("gunicorn", app, "--worker-class", "asgi", "--workers", "4"),
                *("--bind", f"{HOST}:{port}", "--no-control-socket"),
            ],
        }
        self.url = f"http://{HOST}:{port}"
        self.target = f"{HOST}:{port}"
        super().__init__(
            [sys.executable, "-m", *commands[server]], directory / f"{server}.log", environment
        )
        self.wait_until(lambda: b"vrange_info" in fetch(f"{self.url}/metrics"))

    def discard(self) -> None:
        """Make the kernel reclaim everything from the worker that happens to answer."""
        request = urllib.request.Request(f"{self.url}/discard", method="POST")
        with urllib.request.urlopen(request, timeout=30):
            pass


class Prometheus(Process):
    """Debian's Prometheus, with the example's configuration and a database of its own."""

    def __init__(self, targets: list[str], directory: Path, interval: str = "1s") -> None:
        found = shutil.which("prometheus")
        if found is None:
            raise FileNotFoundError(INSTALL)
        text = (HERE / "prometheus.yml").read_text()
        text = text.replace("../../dashboards/rules.yml", str(RULES)).replace(
            "1s #", f"{interval} #"
        )
        text = text.replace("evaluation_interval: 1s", f"evaluation_interval: {interval}")
        text = text.replace('["127.0.0.1:8000"]', json.dumps(targets))
        configuration = directory / "prometheus.yml"
        configuration.write_text(text)
        port = free_port()
        self.url = f"http://{HOST}:{port}"
        super().__init__(
            [
                found,
                f"--config.file={configuration}",
                f"--storage.tsdb.path={directory / 'prometheus'}",
                f"--web.listen-address={HOST}:{port}",
            ],
            directory / "prometheus.log",
            {},
        )
        self.wait_until(lambda: b"Ready" in fetch(f"{self.url}/-/ready"))
        # It takes some seconds until it looks for its targets at all.
        self.wait_until(lambda: len(self.query("up == 1")) == len(targets))

    def ask(self, what: str, **parameters: str) -> Any:
        """Return the `data` of an answer of its HTTP API; raise ValueError with its error."""
        query = urllib.parse.urlencode(parameters)
        try:
            answer = json.loads(fetch(f"{self.url}/api/v1/{what}?{query}"))
        except urllib.error.HTTPError as error:
            with error:
                raise ValueError(error.read().decode(errors="replace")) from None
        return answer["data"]

    def query(self, expression: str, at: float | None = None) -> list[dict[str, Any]]:
        """Return the series of an expression now, or at a time since the epoch."""
        when = {} if at is None else {"time": str(at)}
        result: list[dict[str, Any]] = self.ask("query", query=expression, **when)["result"]
        return result

    def query_range(
        self, expression: str, start: float, end: float, step: float
    ) -> list[dict[str, Any]]:
        """Return the series of an expression over a period."""
        data = self.ask(
            "query_range", query=expression, start=str(start), end=str(end), step=str(step)
        )
        result: list[dict[str, Any]] = data["result"]
        return result


class Load:
    """Threads that request thumbnails, few of them often and many seldom, until closed."""

    def __init__(self, service: Service, threads: int = 2, pause: float = 0.0) -> None:
        self._service = service
        self._pause = pause
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(seed,)) for seed in range(threads)
        ]
        self.asked = 0
        self.failed: list[str] = []
        for thread in self._threads:
            thread.start()

    def _run(self, seed: int) -> None:
        chance = random.Random(seed)
        while not self._stop.wait(self._pause):
            place = int(chance.paretovariate(0.9)) - 1
            size = SIZES[place * 7 % len(SIZES)]
            name = NAMES[place % len(NAMES)]
            try:
                fetch(f"{self._service.url}/thumbnail/{name}/{size}")
                self.asked += 1
            except (OSError, http.client.HTTPException) as error:
                self.failed.append(repr(error))

    def close(self) -> None:
        """Stop the requests."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
