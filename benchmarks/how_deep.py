"""What works how deep: unchanged, in a deep call, and under `vrange run --deep`.

    python -m benchmarks.how_deep [--quick] [--levels 1000 10000 100000] [PYTHON ...]

tries each recursion of how_deep_child.py on each interpreter, which must be able to import vrange
(without any: on this one), and each number of levels until one fails or takes longer than
--seconds. It replaces the figures of those versions in results/how_deep.json, and prints the table
of docs/stacks.md. With --table it only prints the table of what was measured.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.how_deep_child import WORK

RESULTS = report.RESULTS / "how_deep.json"
CHILD = str(Path(__file__).with_name("how_deep_child.py"))
LEVELS = [1000, 10_000, 100_000]
MODES = ("unchanged", "deep_call", "run --deep")
SLOW, MISSING = "slow", "not installed"

Figures = dict[str, dict[str, dict[str, Any]]]


def command(python: str, mode: str, name: str, levels: int) -> list[str]:
    child = [CHILD, name, str(levels)]
    if mode == "run --deep":
        return [python, "-m", "vrange.cli", "run", "--deep", "--no-numpy", *child]
    return [python, *child, *(["call"] if mode == "deep_call" else [])]


def attempt(python: str, mode: str, name: str, levels: int, seconds: float) -> str:
    """Return what stopped it; empty: nothing."""
    try:
        done = subprocess.run(
            command(python, mode, name, levels),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return SLOW
    if done.returncode < 0:
        return f"signal {-done.returncode}"
    if done.returncode or not done.stdout:
        return f"status {done.returncode}: {done.stderr[-200:]}"
    return str(json.loads(done.stdout)["stopped"])


def measure(python: str, levels: list[int], seconds: float) -> dict[str, dict[str, Any]]:
    figures: dict[str, dict[str, Any]] = {}
    for name in WORK:
        figures[name] = {}
        for mode in MODES:
            reached, stopped = 0, ""
            for count in levels:
                stopped = attempt(python, mode, name, count, seconds)
                if stopped:
                    break
                reached = count
            figures[name][mode] = {"levels": reached, "stopped": stopped}
            print(f"{name:32} {mode:12} {reached:>9,} {stopped}", file=sys.stderr, flush=True)
    return figures


def cell(figures: dict[str, Any]) -> str:
    if figures["stopped"] == MISSING:
        return "–"
    text = f"{figures['levels']:,}" if figures["levels"] else "< 1,000"
    return text + (" (slow)" if figures["stopped"] == SLOW else "")


def table(all_figures: Figures) -> str:
    versions = sorted(all_figures, key=lambda version: [int(part) for part in version.split(".")])
    lines = [
        f"| levels reached: unchanged / `deep_call` / `run --deep` | {' | '.join(versions)} |",
        "| --- " * (len(versions) + 1) + "|",
    ]
    for name in WORK:
        cells = (
            " / ".join(cell(all_figures[version][name][mode]) for mode in MODES)
            for version in versions
        )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    parser = report.arguments(__doc__)
    parser.add_argument("pythons", nargs="*", metavar="PYTHON", default=[sys.executable])
    parser.add_argument("--levels", nargs="+", type=int, default=LEVELS)
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    levels = options.levels[:1] if options.quick else options.levels
    file = options.results / RESULTS.name
    figures: Figures = json.loads(file.read_text()) if file.exists() else {}
    for python in [] if options.table else options.pythons:
        code = "import sys; print('.'.join(map(str, sys.version_info[:3])))"
        version = subprocess.check_output([python, "-c", code], text=True).strip()
        figures[version] = measure(python, levels, options.seconds)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(figures, indent=1) + "\n")
    print(table(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
