"""Names that others chose reach neither the terminal nor a log as escape sequences."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vrange.cli.run.report import Report, as_text

EVIL = "\x1b[2J\x1b]0;title\x07\nforged  line"


def test_in_the_report_of_a_run() -> None:
    """The program and its libraries choose names of sources, parts and refusals."""
    sampler = SimpleNamespace(
        samples=[],
        peak_rss_bytes=1,
        average_rss_bytes=1,
        limit=None,
        peak_cgroup_bytes=None,
        interpreters=set(),
    )
    ending: Any = SimpleNamespace(
        status=0, signal=None, pid=1, seconds=1.0, cpu_seconds=1.0, largest_rss_bytes=1
    )
    ending.sampler = sampler
    record = {
        "pid": 1,
        "ended": True,
        "returned_bytes": {EVIL: 1 << 20},
        "refused": {EVIL: EVIL},
        "caches": {EVIL: 1},
        "parts": {EVIL: EVIL},
    }
    text = as_text(Report(["program"], ending, [record]))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\\x1b[2J" in text
    assert not [line for line in text.splitlines() if line.startswith("forged")]


@pytest.mark.parametrize(
    "words",
    [
        ["run", f"./{EVIL}"],
        ["run", "--json", f"/missing/{EVIL}/x", "true"],
        ["top", "--once"],
        ["export", "--port", "0", "--addr", EVIL],
    ],
)
def test_in_errors_and_warnings(tmp_path: Path, words: list[str]) -> None:
    place = tmp_path / "missing" / EVIL
    done = subprocess.run(
        [sys.executable, "-m", "vrange.cli", *words],
        env=os.environ | {"VRANGE_RUNTIME_DIR": str(place), "VRANGE_RUNG": ""},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert b"\x1b" not in done.stdout + done.stderr
    assert b"\nforged" not in done.stdout + done.stderr


def test_in_the_warning_that_nobody_sees_the_counts(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import vrange; vrange.VolatileCache(name='any')"],
        env=os.environ | {"VRANGE_RUNTIME_DIR": str(tmp_path / EVIL / "missing")},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert b"counts in memory of its own" in done.stderr
    assert b"\x1b" not in done.stderr
    assert b"\\x1b[2J" in done.stderr
