"""examples/patches.py, small: an array four times its cgroup's memory, and one that is killed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from array_support import REFAULT

from vrange.cli.memory_cgroup import MemoryCgroup

EXAMPLE = Path(__file__).parents[2] / "examples" / "patches.py"


@pytest.mark.memory_cgroup
def test_patches() -> None:
    import skimage

    image = Path(skimage.__file__).parent / "data" / "camera.png"
    options = ["--image", str(image), "--patch", "16", "--limit", "64MiB"]
    command = [sys.executable, str(EXAMPLE), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    if not REFAULT:
        assert done.returncode != 0
        assert "needs the refault rung" in done.stdout + done.stderr
        return
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all patches take 241.2 MiB" in done.stdout
    if MemoryCgroup.unavailable():
        assert "without a limit, because" in done.stdout
    else:
        assert "as an ordinary array, in 64.0 MiB of memory:\n  killed by the kernel" in done.stdout
        assert done.stdout.endswith("  ended well\n")
        refilled = [float(n) for n in re.findall(r"([\d.]+) MiB put back so far", done.stdout)]
        assert refilled[-1] > 400
    assert "row 41, column 65" in done.stdout, "what an ordinary array finds"
