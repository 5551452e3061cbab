"""A child program that stops where it is told, so that its memory is looked at from outside."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from types import TracebackType

PROLOGUE = """
import sys

def stop(*told):
    print(*told, flush=True)
    sys.stdin.readline()
"""


class Child:
    """Runs code that calls `stop(…)`; `next_stop` lets it go on until there, and tells the line."""

    def __init__(self, code: str, *, python: str = sys.executable, **environment: str) -> None:
        self.process = subprocess.Popen(
            [python, "-c", PROLOGUE + textwrap.dedent(code)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        self._begun = False

    def next_stop(self) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if self._begun:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        self._begun = True
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"the child ended: {self.process.communicate()[1]}")
        return line.strip()

    def anonymous_mib(self) -> float:
        """Its own memory that is resident, as the kernel tells somebody else."""
        for line in Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Anonymous:"):
                return int(line.split()[1]) / 1024
        raise AssertionError("no Anonymous in smaps_rollup")

    def finish(self) -> None:
        """To its end, which must be a good one."""
        _, errors = self.process.communicate("\n" * 10, timeout=60)
        assert self.process.returncode == 0, errors
        assert not errors, errors

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.communicate()
