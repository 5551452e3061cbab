"""Take memory until the kernel refuses, and report how many MiB were had: the second process."""

from __future__ import annotations

import sys
from pathlib import Path

STEP_MIB = 4

Path("/proc/self/oom_score_adj").write_text("1000")  # it is this one that is killed
held = []
while True:
    held.append(bytearray(b"x") * (STEP_MIB << 20))
    sys.stdout.write(f"{len(held) * STEP_MIB}\n")
    sys.stdout.flush()
