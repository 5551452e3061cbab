"""Programs as users start them: by plain python, and by `vrange run`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

VRANGE = [sys.executable, "-m", "vrange.cli"]
# A program that frees all but one in a thousand of its objects, and then waits for a line.
OBJECTS = """
import sys
kept = [{"number": number} for number in range(400_000)]
kept = kept[::1000]
print("ready", flush=True)
sys.stdin.readline()
print(sum(one["number"] for one in kept))
"""


def clean_environment(**more: str) -> dict[str, str]:
    return {**os.environ, **more}


def run(
    *words: object, environment: dict[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    return start([*VRANGE, "run", *map(str, words)], environment, **options)


def plain(
    *words: object, environment: dict[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    return start([sys.executable, *map(str, words)], environment, **options)


def start(
    command: list[str], environment: dict[str, str] | None, **options: Any
) -> subprocess.CompletedProcess[str]:
    settings: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 60, **options}
    done: subprocess.CompletedProcess[str] = subprocess.run(
        command, env=clean_environment(**(environment or {})), check=False, **settings
    )
    return done


def alike(*words: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs it both ways, and fails where anybody could tell the difference."""
    without = plain(*words, **options)
    within = run(*words, **options)
    assert (within.stdout, within.stderr, within.returncode) == (
        without.stdout,
        without.stderr,
        without.returncode,
    )
    return within


def program(directory: Path, code: str, name: str = "program.py") -> Path:
    file = directory / name
    file.write_text(code)
    return file
