"""The child of numpy_temporaries: evaluates an expression of arrays as often as requested."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Arrays = tuple[np.ndarray, np.ndarray]
Step = Callable[[], object]


def with_temporaries(expression: str, a: np.ndarray, b: np.ndarray) -> Step:
    if expression == "a*b+a":
        return lambda: a * b + a
    return lambda: a + b * 2 - a / 3


def without(expression: str, a: np.ndarray, b: np.ndarray) -> Step:
    """Compute the floor: the same expression, into existing arrays."""
    one, other = np.empty_like(a), np.empty_like(a)
    one[:] = other[:] = 0

    def first() -> None:
        np.multiply(a, b, out=one)
        np.add(one, a, out=one)

    def second() -> None:
        np.multiply(b, 2, out=one)
        np.add(a, one, out=one)
        np.divide(a, 3, out=other)
        np.subtract(one, other, out=one)

    return first if expression == "a*b+a" else second


def main() -> None:
    contender = sys.argv[1]
    if contender == "vrange":
        import vrange.heap

        vrange.heap.use_for_numpy()
    make = without if contender == "floor" else with_temporaries
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        if task.get("end"):
            break
        count = (task["mib"] << 20) // 8
        a, b = np.linspace(0, 1, count), np.linspace(1, 2, count)
        step = make(task["expression"], a, b)
        for _ in range(2):
            step()
        taken = []
        for _ in range(task["times"]):
            started = time.thread_time()
            step()  # its result is dropped, because out= leaves only one array, too
            taken.append(time.thread_time() - started)
        result: Any = step()
        told = {"seconds": min(taken), "right": True}
        if result is not None:
            expected = with_temporaries(task["expression"], a[-9:], b[-9:])()
            told["right"] = bool((result[-9:] == expected).all())
        del a, b, step, result
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
