"""A contender in a child process of its own, in a memory cgroup of its own.

What one cache does to the heap, to the page cache or to its own life must not reach the next one.
The child is put into its cgroup between fork and exec, so that every page it ever touches is
charged to it. It tells what happens in lines of JSON; a child that is killed has told all but the
last.
"""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vrange.cgroup import MemoryCgroup

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Outcome:
    """What became of one child."""

    lines: list[dict[str, Any]]
    exit_status: int  # negative: the signal that ended it
    oom_kills: int
    peak_bytes: int
    stderr: str = field(repr=False, default="")

    @property
    def survived(self) -> bool:
        return self.exit_status == 0 and self.oom_kills == 0

    def told(self, kind: str) -> list[dict[str, Any]]:
        """The lines of one kind, in order."""
        return [line for line in self.lines if line["kind"] == kind]


def run(
    module: str,
    task: dict[str, Any],
    limit_bytes: int | None = None,
    cores: set[int] | None = None,
    timeout: float = 600,
) -> Outcome:
    """Runs `python -m MODULE` with the task on its standard input, until it ends or is killed.

    A child that ends by itself with another status than 0 is a fault of the benchmark, not a
    result.
    """
    if limit_bytes is not None:
        _warm_memory(2 * limit_bytes)
    with ExitStack() as stack:
        group = None
        if limit_bytes is not None:
            group = stack.enter_context(MemoryCgroup(limit_bytes))

        def settle() -> None:
            if cores:
                os.sched_setaffinity(0, cores)
            if group:
                group.add(os.getpid())

        child = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            preexec_fn=settle,
        )
        try:
            stdout, stderr = child.communicate(json.dumps(task), timeout=timeout)
        except BaseException:
            child.kill()
            child.wait()
            raise
        outcome = Outcome(
            lines=list(_parsed(stdout)),
            exit_status=child.returncode,
            oom_kills=group.oom_kills if group else 0,
            peak_bytes=group.peak_bytes if group else 0,
            stderr=stderr,
        )
    if outcome.exit_status > 0:
        raise RuntimeError(f"{module} failed on {task}:\n{outcome.stderr}")
    return outcome


def _warm_memory(bytes_: int) -> None:
    """Touches the free memory that the child will get.

    Where the host of a virtual machine takes free pages back, the first touch of a page is the
    host's page fault too, and costs five times as much: by chance, and more than what is compared.
    """
    with mmap.mmap(-1, bytes_, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        for start in range(0, bytes_, mmap.PAGESIZE):
            memory[start] = 1


def _parsed(stdout: str) -> Iterator[dict[str, Any]]:
    for line in stdout.splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            return  # the kill came in the middle of this one


def task() -> dict[str, Any]:
    """In the child: what it is to do."""
    return json.loads(sys.stdin.read())


def tell(kind: str, **facts: Any) -> None:
    """In the child: one line to the parent, at once."""
    print(json.dumps({"kind": kind, **facts}), flush=True)
