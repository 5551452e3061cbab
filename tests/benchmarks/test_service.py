"""The benchmark of a service runs, goes on where it stopped, and counts nothing wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from vrange._ranges.capabilities import capabilities
from vrange.cli.memory_cgroup import MemoryCgroup

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.memory_cgroup, pytest.mark.timeout(300)]


def run(results: Path) -> str:
    command = [sys.executable, "-m", "benchmarks.service", "--quick", "--results", str(results)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_nothing_is_wrong_after_bursts_and_kills(tmp_path: Path) -> None:
    if refusal := MemoryCgroup.unavailable():
        pytest.skip(reason=f"no memory cgroup can be made: {refusal}")
    assert "kills 0" in run(tmp_path)
    found = json.loads((tmp_path / "service.json").read_text())
    must_hold = [
        each for each in found["targets"] if each["sense"] == "at most" and not each["bound"]
    ]
    assert len(must_hold) == 6
    assert all(each["met"] for each in must_hold), must_hold
    assert found["kills"][0]["kills"] > 5
    assert found["kills"][0]["requests"] > 100
    if capabilities().rung != "sentinel":  # there processes share small values only
        assert found["served"]["vrange, shared"]["hit_ratio"] > 0.99
    assert " s  " not in run(tmp_path)  # all runs are kept
