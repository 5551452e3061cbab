"""What `vrange run --deep` costs a program that recurses no deeper than any: processor time.

    python -m benchmarks.deep_program [--quick] [--rounds 7] [--python PYTHON]

Kernels that hardly do anything but recurse run in three processes at a time, by turns: plain, plain
again (the noise of the machine), and under `vrange run --deep` with its other parts off. Reports
the median over rounds of each kernel's ratio to plain, and the geometric mean.

writes results/deep_program.json and results/deep_program.png.
"""

from __future__ import annotations

import copy
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MOST = 1.01
TURNS = 6
OFF = ["--no-numpy", "--no-watch", "--trim-every", "never"]


def fib(n: int) -> int:
    return n if n < 2 else fib(n - 1) + fib(n - 2)


def hanoi(n: int, a: int, b: int, c: int) -> None:
    if n:
        hanoi(n - 1, a, c, b)
        hanoi(n - 1, c, b, a)


def ackermann(m: int, n: int) -> int:
    if m == 0:
        return n + 1
    return ackermann(m - 1, 1 if n == 0 else ackermann(m, n - 1))


def tak(x: int, y: int, z: int) -> int:
    return z if y >= x else tak(tak(x - 1, y, z), tak(y - 1, z, x), tak(z - 1, x, y))


def tree(depth: int) -> Any:
    return (tree(depth - 1), tree(depth - 1)) if depth else ()


def size(node: Any) -> int:
    return 1 + sum(size(child) for child in node)


def down(n: int) -> int:
    return 0 if n == 0 else 1 + down(n - 1)


DOCUMENT = {"a": [{"b": [i] * 5, "c": {"d": [i, [i, [i]]]}} for i in range(300)]}
TEXT = json.dumps(DOCUMENT)
KERNELS: dict[str, Callable[[], Any]] = {
    "fib(21)": lambda: fib(21),
    "hanoi of 14": lambda: hanoi(14, 0, 1, 2),
    "ackermann(2, 60)": lambda: [ackermann(2, 60) for _ in range(3)],
    "tak(14, 8, 4)": lambda: tak(14, 8, 4),
    "a tree of 2**13": lambda: size(tree(13)),
    "900 levels, 60 times": lambda: [down(900) for _ in range(60)],
    "json both ways": lambda: [json.dumps(json.loads(TEXT)) for _ in range(10)],
    "copy.deepcopy": lambda: copy.deepcopy(DOCUMENT),
}


def child() -> None:
    """For each line of input, print the processor time of each kernel."""
    for _ in sys.stdin:
        times = []
        for kernel in KERNELS.values():
            best = float("inf")
            for _ in range(3):
                begun = time.process_time()
                kernel()
                best = min(best, time.process_time() - begun)
            times.append(best)
        print(json.dumps(times), flush=True)


def one_round(python: str) -> list[list[float]]:
    plain = [python, __file__, "--child"]
    deep = [python, "-m", "vrange.cli", "run", *OFF, "--deep", __file__, "--child"]
    children = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for command in (plain, plain, deep)
    ]
    times: list[list[list[float]]] = [[] for _ in children]
    for turn in range(TURNS):
        for at in range(len(children)):
            which = (at + turn) % len(children)
            process = children[which]
            assert process.stdin
            assert process.stdout
            process.stdin.write("\n")
            process.stdin.flush()
            times[which].append(json.loads(process.stdout.readline()))
    for process in children:
        process.communicate()
    return [[min(kernel) for kernel in zip(*turns, strict=True)] for turns in times]


def ratios(rounds: list[list[list[float]]], which: int) -> dict[str, float]:
    """Return each kernel's median ratio to plain."""
    return {
        name: statistics.median(best[which][at] / best[0][at] for best in rounds)
        for at, name in enumerate(KERNELS)
    }


def plot(found: dict[str, dict[str, float]], results: Path) -> None:
    from benchmarks import plot as look

    figure, axes = look.figure()
    look.ratio_lines(axes, found)
    axes.set_xticks(range(len(KERNELS)), list(KERNELS), rotation=20)
    axes.set_ylabel("processor time, as a multiple of plain python's")
    axes.legend(frameon=False)
    figure.tight_layout()
    look.save(figure, results, "deep_program")


def main() -> int:
    from benchmarks import report

    parser = report.arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--python", default=sys.executable)
    options = parser.parse_args()
    rounds = [one_round(options.python) for _ in range(1 if options.quick else options.rounds)]
    found = {"plain again": ratios(rounds, 1), "run --deep": ratios(rounds, 2)}
    means = {name: statistics.geometric_mean(each.values()) for name, each in found.items()}
    print(report.table([{"kernel": n} | {way: found[way][n] for way in found} for n in KERNELS]))
    print("geometric mean:", ", ".join(f"{name} {mean:.3f}" for name, mean in means.items()))
    plot(found, options.results)
    most = 1.25 if options.quick else MOST
    target = report.Target("run --deep beside plain", means["run --deep"], "at most", most)
    measured = {"rounds": len(rounds), "ratios": found, "geometric_means": means}
    return report.write("deep_program", options.results, measured, [target])


if __name__ == "__main__":
    if sys.argv[1:] == ["--child"]:
        child()
    else:
        sys.exit(main())
