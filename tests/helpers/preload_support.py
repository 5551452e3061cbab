"""Programs that know nothing of vrange, run with its malloc preloaded or without."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import vrange.malloc

__all__ = ["LIBRARY", "compiled", "start"]

_COMPILER = os.environ.get("CC", "gcc")
LIBRARY = vrange.malloc.library()


def start(
    *command: object, preloaded: bool = True, **more: str
) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, **({"LD_PRELOAD": LIBRARY} if preloaded else {}), **more}
    return subprocess.run(
        [*map(str, command)], env=environment, capture_output=True, timeout=100, check=False
    )


def compiled(source: Path, to: Path, *options: str) -> Path:
    subprocess.run([_COMPILER, "-O1", "-w", source, *options, "-o", to, "-pthread"], check=True)
    return to
