"""1,000,000 levels of json, pickle, deepcopy and a memoised function: time, and memory afterwards.

    python -m benchmarks.deep_levels [--quick] [--rounds 3] [--levels 1000000] [--python PYTHON]

Each recursion runs twice in each process, in these ways, by turns:

run --deep
    ``vrange run --deep``, unchanged, in main and in a thread.
large thread
    Today's usual way: a thread with ``threading.stack_size(4 << 30)``, after
    ``sys.setrecursionlimit``. The thread goes on, as a pool's worker does.
Go, stacker
    A recursive-descent parser of the same brackets in Go, whose stacks are copied as they grow, and
    in Rust with the crate stacker, which adds further stacks. Without their compilers the rows are
    left out.

The memory is read a second after the second run: the resident set, and of `run --deep` what is
resident of the stacks, which is to be at most 1 % of what they had used.

writes results/deep_levels.json and results/deep_levels.png, and prints the table of docs/stacks.md.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.deep_levels_child import WORK
from benchmarks.interleave import interleaved

HERE = Path(__file__).resolve().parent
CHILD = str(HERE / "deep_levels_child.py")
PEERS = HERE / "deep_levels_peers"
OFF = ["--no-numpy", "--no-watch", "--trim-every", "never"]
OURS = ("run --deep", "run --deep, a thread")
LARGE_THREAD = "large thread"
SHARE_LEFT = 0.01
DEBIAN_CRATES = Path("/usr/share/cargo/registry")  # of the package librust-stacker-dev

Figures = dict[str, Any]


def figures_of(command: list[str], timeout: float = 600) -> Figures:
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode < 0:
        return {"stopped": f"signal {-done.returncode}", "seconds": []}
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stdout}{done.stderr}")
    found: Figures = {"stopped": "", "stack_mib": None} | json.loads(done.stdout)
    return found


def python_ways(python: str, name: str, levels: int) -> dict[str, Callable[[], Figures]]:
    child = [CHILD, name, str(levels)]
    deep = [python, "-m", "vrange.cli", "run", *OFF, "--deep", *child]
    return {
        OURS[0]: lambda: figures_of([*deep, "main"]),
        OURS[1]: lambda: figures_of([*deep, "thread"]),
        LARGE_THREAD: lambda: figures_of([python, *child, "limit"]),
    }


def build_go(folder: Path) -> list[str] | None:
    if not shutil.which("go"):
        return None
    built = folder / "nested-go"
    subprocess.run(["go", "build", "-o", str(built), str(PEERS / "nested.go")], check=True)
    return [str(built)]


def build_stacker(folder: Path) -> list[str] | None:
    if not shutil.which("cargo"):
        return None
    target = folder / "target"
    manifest = shutil.copytree(PEERS / "stacker", folder / "stacker") / "Cargo.toml"
    build = ["cargo", "build", "--quiet", "--release", "--manifest-path", str(manifest)]
    packaged = ["--offline", "--config", 'source.crates-io.replace-with="packaged"']
    packaged += ["--config", f'source.packaged.directory="{DEBIAN_CRATES}"']
    for options in (packaged, []) if DEBIAN_CRATES.exists() else ([],):
        done = subprocess.run([*build, "--target-dir", str(target), *options], check=False)
        if done.returncode == 0:
            return [str(target / "release" / "nested")]
    return None


def other_ways(folder: Path, levels: int) -> dict[str, Callable[[], Figures]]:
    ways: dict[str, Callable[[], Figures]] = {}
    for name, build in (("Go", build_go), ("stacker", build_stacker)):
        command = build(folder)
        if command is not None:
            ways[name] = lambda command=command: figures_of([*command, str(levels)])  # type: ignore[misc]
    return ways


def summary(rounds: list[Figures]) -> Figures:
    stopped = next((each["stopped"] for each in rounds if each["stopped"]), "")
    if stopped:
        return {"stopped": stopped}
    found: Figures = {"stopped": "", "first_s": 0.0, "again_s": 0.0}
    for at, field in enumerate(("first_s", "again_s")):
        found[field] = statistics.median(each["seconds"][at] for each in rounds)
    for field in ("peak_mib", "after_mib"):
        found[field] = statistics.median(each[field] for each in rounds)
    stacks = [each["stack_mib"] for each in rounds if each["stack_mib"]]
    if stacks:
        found["stack_used_mib"] = statistics.median(used for used, _ in stacks)
        found["stack_left_mib"] = max(left for _, left in stacks)
    return found


def measure(python: str, levels: int, rounds: int) -> dict[str, dict[str, Figures]]:
    measured = {}
    with tempfile.TemporaryDirectory() as folder:
        others = other_ways(Path(folder), levels)
        for name in WORK:
            ways = python_ways(python, name, levels) | (others if name == "json.loads" else {})
            results = interleaved(ways, rounds)
            measured[name] = {way: summary(found) for way, found in results.items()}
            print(f"{name} done", file=sys.stderr, flush=True)
    return measured


def targets(measured: dict[str, dict[str, Figures]]) -> list[report.Target]:
    made = []
    for name, ways in measured.items():
        for way in OURS:
            found = ways[way]
            reached = report.Target(
                f"{name}, {way}: ran", float(not found["stopped"]), "at least", 1
            )
            made.append(reached)
            # What any thread keeps, 8 MiB of usual stack, is trimmed too, except for 64 KiB.
            if not found["stopped"] and found["stack_used_mib"] > 0:
                left = found["stack_left_mib"] / found["stack_used_mib"]
                made.append(report.Target(f"{name}, {way}: left", left, "at most", SHARE_LEFT))
    return made


def table(measured: dict[str, dict[str, Figures]]) -> str:
    lines = [
        "| recursion | way | first, s | again, s | peak, MiB | a second later, MiB "
        "| stack used, MiB | stack left, MiB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, ways in measured.items():
        for way, found in ways.items():
            if found["stopped"]:
                lines.append(f"| {name} | {way} | {found['stopped'].partition(':')[0]} | | | | | |")
                continue
            stack = "| | |"
            if "stack_used_mib" in found:
                stack = f"| {found['stack_used_mib']:.0f} | {found['stack_left_mib']:.2f} |"
            lines.append(
                f"| {name} | {way} | {found['first_s']:.2f} | {found['again_s']:.2f} "
                f"| {found['peak_mib']:.0f} | {found['after_mib']:.0f} {stack}"
            )
    return "\n".join(lines)


def plot(measured: dict[str, dict[str, Figures]], results: Path) -> None:
    from benchmarks import plot as look

    figure, (time, memory) = look.figure(1, 2)
    ways = list(measured["json.loads"])
    colours = [look.BLUE, look.GREEN, look.VERMILION, look.PURPLE, look.GREY]
    height = 0.8 / len(ways)
    for axes, field, title in (
        (time, "again_s", "the second run, s"),
        (memory, "after_mib", "resident a second later, MiB"),
    ):
        for at, (way, colour) in enumerate(zip(ways, colours, strict=False)):
            rows = [(i, w[way]) for i, w in enumerate(measured.values()) if way in w]
            rows = [(i, found) for i, found in rows if not found["stopped"]]
            places = [i + (at - len(ways) / 2) * height for i, _ in rows]
            axes.barh(places, [f[field] for _, f in rows], height, color=colour, label=way)
        axes.set_yticks(range(len(measured)), list(measured))
        axes.invert_yaxis()
        axes.set_title(title)
    memory.legend(frameon=False)
    figure.tight_layout()
    look.save(figure, results, "deep_levels")


def main() -> int:
    parser = report.arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--levels", type=int, default=1_000_000)
    parser.add_argument("--python", default=sys.executable)
    options = parser.parse_args()
    levels, rounds = (50_000, 1) if options.quick else (options.levels, options.rounds)
    measured = measure(options.python, levels, rounds)
    print(table(measured))
    plot(measured, options.results)
    return report.write(
        "deep_levels",
        options.results,
        {"levels": levels, "rounds": rounds, "ways": measured},
        targets(measured),
    )


if __name__ == "__main__":
    sys.exit(main())
