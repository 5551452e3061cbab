"""A sample of what scripts/test-malloc-faults tries: system calls of vrange's malloc that fail."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest
from preload_support import compiled

import vrange.malloc

TESTS = Path(__file__).resolve().parents[1]
SCENARIOS = ["allocations", "resizes", "trims", "forks", "limits", "threads"]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    made = tmp_path_factory.mktemp("failing")
    program, injector = made / "failing", made / "inject.so"
    compiled(TESTS / "malloc/failing.c", program, "-ldl")
    shared = ["-DSYSTEM_CALLS_ONLY", "-fPIC", "-shared"]
    compiled(TESTS / "faults/inject.c", injector, *shared, "-ldl")
    return program, injector


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_each_allocation_is_right_or_refused(program: tuple[Path, Path], scenario: str) -> None:
    seed = str(random.randrange(1 << 20))
    preload = [program[1], vrange.malloc.library(), *os.environ.get("LD_PRELOAD", "").split()]
    done = subprocess.run(
        [program[0], scenario, seed],
        env={**os.environ, "LD_PRELOAD": " ".join(map(str, preload))},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, f"seed {seed}\n{done.stdout}\n{done.stderr}"
    assert done.stdout.endswith("1 trials\n"), done.stdout
