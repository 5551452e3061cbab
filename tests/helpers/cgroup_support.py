"""Programs in a memory cgroup of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

from support import MIB

from vrange.cli.memory_cgroup import MemoryCgroup

LIMIT = 256 * MIB


def in_cgroup(code: str, *arguments: object, limit: int = LIMIT) -> str:
    """Run Python code below a memory limit, and return what it printed."""
    with MemoryCgroup(limit, name="vrange-room") as cgroup:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=100,
            preexec_fn=lambda: cgroup.add(os.getpid()),
            check=False,
        )
        assert cgroup.oom_kills == 0, f"killed for memory: {done.stdout}"
    assert done.returncode == 0, f"{done.returncode} {done.stdout} {done.stderr}"
    return done.stdout.strip()
