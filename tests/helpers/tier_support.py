"""A lower tier that a test looks into, and that fails or blocks when it is told to."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any


class Remembering:
    """A tier in memory. `fails` makes each call raise; `pids` are the processes that wrote."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.gets: list[str] = []
        self.pids: set[int] = set()
        self.fails = False
        self.passes = threading.Event()  # values are written once it is set
        self.passes.set()
        self.arrived = threading.Event()

    def get(self, name: str) -> bytes | None:
        self._fail()
        self.gets.append(name)
        return self.kept.get(name)

    def set(self, name: str, data: bytes) -> None:
        self._fail()
        if "/values/" in name:
            self.arrived.set()
            assert self.passes.wait(60)
        self.pids.add(os.getpid())
        self.kept[name] = data

    def delete(self, name: str) -> None:
        self._fail()
        self.kept.pop(name, None)

    def _fail(self) -> None:
        if self.fails:
            raise ConnectionError("the server is gone")

    def values(self) -> list[str]:
        return [name for name in self.kept if "/values/" in name]


def run(code: str, *arguments: Any, killed: bool = False, **environment: str) -> list[str]:
    """Return the lines that a new process prints, which runs `code` as a file."""
    place = Path(str(arguments[0])) / "program.py"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(textwrap.dedent(code))
    done = subprocess.run(
        [sys.executable, "-u", str(place), *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == (-9 if killed else 0), done.stderr
    return done.stdout.splitlines()
