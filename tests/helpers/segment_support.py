"""What the tests of stats segments share: this process's own, and processes that have one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from vrange._core import ffi, lib
from vrange._counters import segment


def own_path() -> Path:
    return Path(ffi.string(lib.vrange_segment_path()).decode())


def account(snapshot: segment.Snapshot, name: str) -> segment.AccountCounts:
    found = [one for one in snapshot.accounts if one.name == name]
    assert len(found) == 1, f"{name}: {found}"
    return found[0]


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        # From 3.12 on Python warns at a fork with threads: the reserve has one, and deals with it.
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


CHILD = """
import sys, vrange
cache = vrange.VolatileCache(name="outside", hot_bytes="1MiB")
cache["a"] = b"x" * 50_000
cache["a"]; cache["a"]
cache.get_or_compute("b", lambda: 1)
print("ready", flush=True)
sys.stdin.read()
"""


def start(directory: Path, code: str = CHILD) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {"VRANGE_RUNTIME_DIR": str(directory)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def end(child: subprocess.Popen[str]) -> None:
    child.communicate("", timeout=30)
