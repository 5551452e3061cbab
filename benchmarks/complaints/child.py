"""Run the work of one of the programs, report, and wait: `child.py NAME`."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

work = import_module(f"benchmarks.complaints.programs.{sys.argv[1]}").work
began, began_cpu = time.perf_counter(), time.process_time()
kept = work()
seconds = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - began_cpu}
print(json.dumps(seconds), flush=True)
sys.stdin.readline()
print(hashlib.sha256(repr(kept).encode()).hexdigest(), flush=True)
