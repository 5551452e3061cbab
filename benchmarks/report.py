"""The output of a benchmark: a JSON file that describes the machine, and a verdict per target."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


@dataclass
class Target:
    """One promise: `value` must be at most, or at least, `bound`."""

    what: str
    value: float
    sense: str  # "at most" or "at least"
    bound: float

    @property
    def met(self) -> bool:
        return self.value <= self.bound if self.sense == "at most" else self.value >= self.bound

    def as_json(self) -> dict[str, Any]:
        """Replace NaN, of a contender killed before it was measured, by null: JSON has no NaN."""
        value = None if math.isnan(self.value) else self.value
        return asdict(self) | {"value": value, "met": self.met}

    def __str__(self) -> str:
        verdict = "met   " if self.met else "MISSED"
        return f"{verdict} {self.what}: {self.value:.4g} ({self.sense} {self.bound:.4g})"


def arguments(description: str | None) -> argparse.ArgumentParser:
    """Return the options that all benchmarks have."""
    parser = argparse.ArgumentParser(description=(description or "").split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="small and rough: a smoke test for CI")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where JSON and plots go")
    return parser


def machine() -> dict[str, Any]:
    """Return what the figures depend on, but nothing that identifies one machine of its kind."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    huge = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return {
        "kernel": ".".join(platform.release().split(".")[:2]),
        "architecture": platform.machine(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**30, 1),
        "transparent_huge_pages": huge.read_text().strip() if huge.exists() else "none",
        "swap": _has_swap(),
        "python": platform.python_version(),
        "libc": " ".join(platform.libc_ver()),
        "packages": {name: metadata.version(name) for name in _PACKAGES if _installed(name)},
        "rung": _rung(),
    }


_PACKAGES = (
    "vrange",
    "numpy",
    "cachetools",
    "cachebox",
    "diskcache",
    "joblib",
    "redis",
    "pymemcache",
    "dask",
    "distributed",
)


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _has_swap() -> bool:
    return len(Path("/proc/swaps").read_text().splitlines()) > 1


def _rung() -> str:
    from vrange._core import lib

    return {1: "eager", 2: "sentinel", 3: "refault"}.get(lib.vrange_rung(), "none")


def write(name: str, results: Path, measured: dict[str, Any], targets: list[Target]) -> int:
    """Write NAME.json, print the verdicts, and return the exit status: 1 if a target was missed."""
    results.mkdir(parents=True, exist_ok=True)
    document = {
        "benchmark": name,
        "machine": machine(),
        "targets": [target.as_json() for target in targets],
        **measured,
    }
    path = results / f"{name}.json"
    path.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
    print()
    for target in targets:
        print(target)
    print(f"written: {path.name}", file=sys.stderr)
    return 0 if all(target.met for target in targets) else 1


def table(rows: list[dict[str, Any]]) -> str:
    """Return rows as aligned text, with floats to four figures."""
    if not rows:
        return ""
    cells = [list(rows[0])] + [[_cell(value) for value in row.values()] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    return "\n".join(
        "  ".join(
            text.ljust(width) if i == 0 else text.rjust(width)
            for i, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    )


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
