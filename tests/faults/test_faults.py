"""A sample of what scripts/test-faults tries: failures of system calls and of allocations.

Each run draws other places by its seed, which the output names.
"""

from __future__ import annotations

import importlib.util
import random
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).with_name("run.py")
KINDS = ("calls", "allocations")
TRIALS = "3"  # of each operation
# In others a place is drawn now and then where CPython or NumPy itself does not survive.
SAMPLED = {
    "calls": (),
    "allocations": ("store", "hit", "recompute", "call", "mapping", "ranges", "pins"),
}


@pytest.mark.parametrize("what", KINDS)
def test_a_failure_is_refused_in_words_and_leaves_nothing_behind(what: str) -> None:
    if what == "allocations" and importlib.util.find_spec("_testcapi") is None:
        pytest.skip(reason="this CPython was built without _testcapi")
    seed = random.randrange(1 << 20)
    command = [sys.executable, str(RUN), what, "--trials", TRIALS, "--seed", str(seed)]
    command += SAMPLED[what]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, f"seed {seed}\n{done.stdout}\n{done.stderr}"
