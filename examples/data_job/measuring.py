"""Runs the job in a memory cgroup of its own, and reads its memory from outside.

If no cgroup can be made, the job's resident bytes stand for what the cgroup would count.
"""

import json
import math
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from vrange.cli.memory_cgroup import MemoryCgroup

JOB = str(Path(__file__).with_name("job.py"))
WAYS = {
    "python": [sys.executable, JOB],
    "vrange run": [sys.executable, "-m", "vrange.cli", "run", JOB],
    "vrange run --heap=libc": [sys.executable, "-m", "vrange.cli", "run", "--heap=libc", JOB],
}

_LONGEST_QUIET = "3600"  # the measuring process ends the job before that
_SAMPLE_SECONDS = 0.02
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Running:
    """The job, from its start on; its results are available once it is idle."""

    def __init__(self, process: subprocess.Popen[str], cgroup: MemoryCgroup | None) -> None:
        self.process = process
        self.cgroup = cgroup

    @property
    def rss_bytes(self) -> int:
        """Return its resident memory, as /proc reports it."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * _PAGE

    @property
    def usage_bytes(self) -> int:
        """Return what its cgroup is charged, or else its resident bytes."""
        return self.rss_bytes if self.cgroup is None else self.cgroup.usage_bytes

    def told(self) -> dict[str, Any]:
        """Wait for the end of its work. Return its results, and the seconds of its phases."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the job ended too early, with status {self.process.wait()}")
        told: dict[str, Any] = json.loads(line)
        return told


@contextmanager
def started(command: list[str], limit: int | None) -> Iterator[Running]:
    """Start the job, in a cgroup with that limit if one is given. It is killed afterwards."""
    command = [*command, _LONGEST_QUIET]
    with ExitStack() as stack:
        cgroup = None if limit is None else stack.enter_context(MemoryCgroup(limit))
        if cgroup is not None:
            # Enter the cgroup from inside: the job is charged from its first page on.
            enter = f'echo $$ > {cgroup.path}/cgroup.procs && exec "$@"'
            command = [shutil.which("sh") or "/bin/sh", "-c", enter, "sh", *command]
        process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        stack.callback(process.kill)
        yield Running(process, cgroup)


def measure(command: list[str], limit: int | None, quiet_seconds: float) -> dict[str, Any]:
    """Return its memory until it was idle that long: peak, average, at the end; and its time."""
    with started(command, limit) as job:
        assert job.process.stdout is not None
        began = time.monotonic()
        samples: list[tuple[float, int]] = []
        told: dict[str, Any] = {}
        ends_at = math.inf
        while (now := time.monotonic()) < ends_at:
            samples.append((round(now - began, 3), job.usage_bytes))
            if told:
                time.sleep(_SAMPLE_SECONDS)
            elif select.select([job.process.stdout], [], [], _SAMPLE_SECONDS)[0]:
                told, ends_at = job.told(), time.monotonic() + quiet_seconds
        usages = [usage for _, usage in samples]
        peak = max(usages) if job.cgroup is None else job.cgroup.peak_bytes or max(usages)
        return {
            "peak": peak,
            "average": sum(usages) / len(usages),
            "final": usages[-1],
            "final_rss": job.rss_bytes,
            "seconds": sum(told["took"].values()),
            "samples": samples,
            **told,
        }
