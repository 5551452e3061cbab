"""Run all benchmarks in turn: `python -m benchmarks [--quick] [--results DIRECTORY]`."""

from __future__ import annotations

import subprocess
import sys

NAMES = (
    "release",
    "decorated_hit",
    "bookkeeping",
    "refault",
    "cache_under_pressure",
    "metrics",
    "heap_trim",
    "numpy_temporaries",
    "ebizzy",
    "small_blocks",
    "start_up",
    "complaints",
    "pressure_watch",
    "idle",
    "data_job",
    "peers_table",
    "scale",
    "recency",
    "shared_cache",
    "service",
    "lower_tier",
    "deep_stacks",
    "deep_program",
    "deep_levels",
    "how_deep",
    "dask",
)
SKIPPED = 77


def main() -> int:
    failed = []
    for name in NAMES:
        print(f"\n== {name}", flush=True)
        status = subprocess.call([sys.executable, "-m", f"benchmarks.{name}", *sys.argv[1:]])
        if status not in (0, SKIPPED):
            failed.append(name)
    if failed:
        print("\nfailed or missed a target:", ", ".join(failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
