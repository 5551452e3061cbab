"""Busy neighbours: a Python thread that wants the GIL, and processes that want the core."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def busy_thread() -> Iterator[None]:
    """Run another Python thread that never waits and never releases the GIL by itself."""
    stop = False

    def spin() -> None:
        while not stop:
            for _ in range(1000):
                pass

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop = True
        thread.join()


@contextmanager
def busy_loops(count: int, core: int) -> Iterator[None]:
    """Run processes that never sleep, all on one core."""
    loops = [
        subprocess.Popen(
            [sys.executable, "-c", "while True: pass"],
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )
        for _ in range(count)
    ]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
