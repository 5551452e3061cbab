"""What `vrange run --deep` costs a program that recurses no deeper than any: processor time.

    python -m benchmarks.deep_program [--rounds 7] [--python PYTHON]

Kernels that hardly do anything but recurse run in three processes at a time, by turns: plain, plain
again (the noise of the machine), and under `vrange run --deep` with its other parts off. Prints the
median over rounds of each kernel's ratio to plain, and the geometric mean.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--child", action="store_true")
    options = parser.parse_args()
    if options.child:
        child()
        return 0
    rounds = [one_round(options.python) for _ in range(options.rounds)]
    means = []
    for which, label in ((1, "plain again"), (2, "run --deep")):
        ratios = [
            statistics.median(best[which][at] / best[0][at] for best in rounds)
            for at in range(len(KERNELS))
        ]
        means.append(statistics.geometric_mean(ratios))
        for name, ratio in zip(KERNELS, ratios, strict=True):
            print(f"{label:12} {name:24} {ratio:.3f}")
    print(f"geometric mean: plain again {means[0]:.3f}, run --deep {means[1]:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
