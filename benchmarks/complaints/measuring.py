"""One run of a program under one contender, in a memory cgroup of its own."""

from __future__ import annotations

import ctypes.util
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vrange._counters.lazyfree import lazyfree_bytes
from vrange.cli.memory_cgroup import MemoryCgroup

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LIMIT = 2 << 30
VRANGE = "vrange run --malloc"
PYTHON = "python"


def contenders() -> dict[str, tuple[list[str], dict[str, str]]]:
    """Return, by name, what runs a program, and what it has in its environment."""
    found: dict[str, tuple[list[str], dict[str, str]]] = {PYTHON: ([sys.executable], {})}
    for name in ("jemalloc", "mimalloc", "tcmalloc_minimal"):
        path = ctypes.util.find_library(name)
        if path is None:
            print(f"without {name}: lib{name} is not installed")
        else:
            found[name.removesuffix("_minimal")] = ([sys.executable], {"LD_PRELOAD": path})
    trimmed = {"MALLOC_TRIM_THRESHOLD_": "65536"}
    found["MALLOC_TRIM_THRESHOLD_=65536"] = ([sys.executable], trimmed)
    found[VRANGE] = ([sys.executable, "-m", "vrange.cli", "run", "--malloc"], {})
    return found


@dataclass
class Held:
    """A program that has done its work and waits."""

    process: subprocess.Popen[str]
    group: MemoryCgroup
    seconds: float
    cpu_seconds: float
    peak: int
    left: dict[str, int] = field(default_factory=dict)

    def end(self) -> str:
        """Let the program end, and return a hash of what it kept."""
        found, _ = self.process.communicate("\n", timeout=60)
        assert self.process.returncode == 0, self.process.returncode
        self.group.close()
        return found.strip()


def begin(program: str, contender: tuple[list[str], dict[str, str]]) -> Held:
    """Run a program until it waits."""
    command, environment = contender
    group = MemoryCgroup(LIMIT)
    process = subprocess.Popen(
        [*command, str(HERE / "child.py"), program],
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        preexec_fn=lambda: group.add(os.getpid()),
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"{program}: {' '.join(command)} ended with {process.wait()}"
    told: dict[str, Any] = json.loads(line)
    status = Path(f"/proc/{process.pid}/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0]) << 10
    return Held(process, group, told["seconds"], told["cpu_seconds"], peak)


def look(held: Held) -> None:
    """Measure what is left, and how much a second process in the same cgroup then gets."""
    pid = held.process.pid
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    rss = int(rollup.partition("\nRss:")[2].split()[0]) << 10
    lazyfree = lazyfree_bytes(pid) or 0
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(HERE / "hog.py")],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        preexec_fn=lambda: held.group.add(os.getpid()),
    )
    had = int(done.stdout.split()[-1]) << 20
    held.left = {"rss": rss, "not_reclaimable": rss - lazyfree, "second_process": had}
