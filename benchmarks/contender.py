"""A contender in a child process of its own, in a memory cgroup of its own.

What one cache does to the heap, the page cache or its own life must not affect the next one. The
child is put into its cgroup between fork and exec, so that every page it ever touches is charged to
that cgroup. It reports in lines of JSON; a child that is killed has reported everything but its
last line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vrange.cli.memory_cgroup import MemoryCgroup

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Outcome:
    """The result of one child."""

    lines: list[dict[str, Any]]
    exit_status: int  # negative: the signal that ended it
    oom_kills: int
    peak_bytes: int
    stderr: str = field(repr=False, default="")

    @property
    def survived(self) -> bool:
        return self.exit_status == 0 and self.oom_kills == 0

    def told(self, kind: str) -> list[dict[str, Any]]:
        """Return the lines of one kind, in order."""
        return [line for line in self.lines if line["kind"] == kind]


def run(
    module: str,
    task: dict[str, Any],
    limit_bytes: int | None = None,
    cores: set[int] | None = None,
    on_line: Callable[[dict[str, Any]], None] = lambda line: None,
    timeout: float = 600,
    group: MemoryCgroup | None = None,
    environment: dict[str, str] | None = None,
) -> Outcome:
    """Run `python -m MODULE` with the task on its standard input, until it ends or is killed.

    The child is in a cgroup of its own with `limit_bytes`, or in the caller's `group`. `on_line` is
    called with each line as it arrives. If a child ends by itself with a status other than 0, and
    the kernel has killed none of its processes, the benchmark is faulty; that is not a result.
    """
    with ExitStack() as stack:
        if limit_bytes is not None:
            group = stack.enter_context(MemoryCgroup(limit_bytes))

        def settle() -> None:
            if cores:
                os.sched_setaffinity(0, cores)
            if group:
                group.add(os.getpid())

        stderr = stack.enter_context(tempfile.TemporaryFile("w+"))
        child = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                cwd=ROOT,
                # NumPy's BLAS would start a thread a core, which wait by spinning.
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1", **(environment or {})},
                preexec_fn=settle,
            )
        )
        watchdog = threading.Timer(timeout, child.kill)
        watchdog.start()
        try:
            lines = _converse(child, task, on_line)
        finally:
            watchdog.cancel()
            if child.poll() is None:
                child.kill()
        stderr.seek(0)
        outcome = Outcome(
            lines=lines,
            exit_status=child.wait(),
            oom_kills=group.oom_kills if group else 0,
            peak_bytes=(group.peak_bytes or 0) if group else 0,
            stderr=stderr.read(),
        )
    if outcome.exit_status > 0 and not outcome.oom_kills:
        raise RuntimeError(f"{module} failed on {task}:\n{outcome.stderr}")
    return outcome


def _converse(
    child: subprocess.Popen[str],
    task: dict[str, Any],
    on_line: Callable[[dict[str, Any]], None],
) -> list[dict[str, Any]]:
    """Send the child its task and read its output; it may be killed in the middle of a line."""
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(json.dumps(task))
    child.stdin.close()
    lines: list[dict[str, Any]] = []
    for text in child.stdout:
        if not text.endswith("\n"):
            break
        lines.append(json.loads(text))
        on_line(lines[-1])
    child.wait()
    return lines


def task() -> dict[str, Any]:
    """In the child: return its task."""
    told: dict[str, Any] = json.loads(sys.stdin.read())
    return told


def tell(kind: str, **facts: Any) -> None:
    """In the child: send one line to the parent at once."""
    print(json.dumps({"kind": kind, **facts}), flush=True)
