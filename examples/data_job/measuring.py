"""Runs the job in a memory cgroup of its own, and looks at its memory from outside.

Where no cgroup can be made, its resident bytes stand for what the cgroup would count.
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

from vrange.cgroup import MemoryCgroup

JOB = str(Path(__file__).with_name("job.py"))
WAYS = {
    "python": [sys.executable, JOB],
    "vrange run": [sys.executable, "-m", "vrange.cli", "run", JOB],
    "vrange run --heap=libc": [sys.executable, "-m", "vrange.cli", "run", "--heap=libc", JOB],
}

_LONGEST_QUIET = "3600"  # the job is ended before, by whoever measures it
_SAMPLE_SECONDS = 0.02
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Running:
    """The job, from its start on; what it found is told once it has fallen quiet."""

    def __init__(self, process: subprocess.Popen[str], cgroup: MemoryCgroup | None) -> None:
        self.process = process
        self.cgroup = cgroup

    @property
    def rss_bytes(self) -> int:
        """Its resident memory, as the kernel tells anybody."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * _PAGE

    @property
    def usage_bytes(self) -> int:
        """What its cgroup is charged, or else its resident bytes."""
        return self.rss_bytes if self.cgroup is None else self.cgroup.usage_bytes

    def told(self) -> dict[str, Any]:
        """Waits for the end of its work. What it found, and the seconds of its phases."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the job ended too early, with status {self.process.wait()}")
        told: dict[str, Any] = json.loads(line)
        return told


@contextmanager
def started(command: list[str], limit: int | None) -> Iterator[Running]:
    """The job, in a cgroup with that limit if one is given; it is killed afterwards."""
    command = [*command, _LONGEST_QUIET]
    with ExitStack() as stack:
        cgroup = None if limit is None else stack.enter_context(MemoryCgroup(limit))
        if cgroup is not None:
            # From inside: what it is charged for begins with its first page.
            enter = f'echo $$ > {cgroup.path}/cgroup.procs && exec "$@"'
            command = [shutil.which("sh") or "/bin/sh", "-c", enter, "sh", *command]
        process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        stack.callback(process.kill)
        yield Running(process, cgroup)


def measure(command: list[str], limit: int | None, quiet_seconds: float) -> dict[str, Any]:
    """Its memory until it has been quiet for so long: peak, average, at the end; and its time."""
    with started(command, limit) as job:
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
