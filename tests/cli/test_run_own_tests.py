"""Tests that others wrote for an interpreter without us, run in one with a trim every few ms."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from run_support import program, run

TESTS = "test_list test_dict test_set test_json test_pickle test_re test_gc test_collections"
# How many trims there were is told by the process itself, as it ends.
COUNTED = """
import atexit, runpy, sys
from vrange import _autostart
atexit.register(lambda: print("trims:", _autostart.trims()))
sys.argv[0] = "test"
runpy.run_module("test", run_name="__main__", alter_sys=True)
"""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("depth", ["deep", "holes"])
def test_cpython_s_own_tests_are_green(tmp_path: Path, depth: str) -> None:
    pytest.importorskip("test.test_list", reason="this CPython came without its tests")
    # All of them once; and what moves most memory again, at the other depth.
    names = TESTS.split() if depth == "deep" else ["test_list", "test_dict", "test_gc"]
    file = program(tmp_path, COUNTED)
    done = run("--trim-every", "5ms", "--trim", depth, file, *names, timeout=550)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Result: SUCCESS" in done.stdout or "Tests result: SUCCESS" in done.stdout
    assert int(done.stdout.rpartition("trims:")[2]) > 20


@pytest.mark.timeout(400)
def test_some_of_numpy_s_own_tests_are_green() -> None:
    """The short version: `scripts/test-under-run numpy` takes all of them."""
    script = Path(__file__).parents[2] / "scripts" / "test-under-run"
    files = [f"numpy/_core/tests/test_{name}.py" for name in ("indexing", "shape_base", "numeric")]
    done = subprocess.run(
        [script, "numpy", *files],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=350,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_the_garbage_collector_does_not_notice_the_trims(tmp_path: Path) -> None:
    """What one thread makes, another's collections count; test_gc asks for less than 5."""
    code = """
import gc, sys, time
from vrange import _autostart
gc.disable()
most = 0
while _autostart.trims() < 3:  # the first one makes what all later ones use
    time.sleep(0.001)
for turn in range(150):
    gc.collect()
    most = max(most, gc.get_count()[0])
    until = time.perf_counter() + 0.003
    while time.perf_counter() < until:
        pass
print(most, _autostart.trims())
"""
    for depth in ("light", "deep", "holes"):
        done = run("--trim-every", "1ms", "--trim", depth, program(tmp_path, code))
        most, trims = map(int, done.stdout.split())
        assert trims > 20, done.stderr
        assert most < 5
