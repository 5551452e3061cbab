"""The program that reads an array larger than its memory, with other work beside it.

refault runs it in a child with a memory limit. One thread scans the array or reads blocks at
random. The other works on memory of its own, and the duration of each piece of that work is
reported.
"""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import vrange
from benchmarks import contender

BLOCK = 64 << 10
WORDS = BLOCK // 8
OWN_BYTES = 4 << 20


class Worker(threading.Thread):
    """The other work of the process: sorts and sums memory of its own, again and again."""

    def __init__(self) -> None:
        super().__init__()
        self.stop = False
        self.times: list[float] = []
        self._own = np.random.default_rng(1).integers(0, 1 << 40, OWN_BYTES // 8)

    def run(self) -> None:
        while not self.stop:
            start = time.perf_counter()
            fresh = self._own[::2].copy()  # asks for memory, as programs do
            fresh.sort()
            self._own[::2] = fresh[::-1]
            self.times.append(time.perf_counter() - start)
            time.sleep(0.001)


def opened(what: str, path: str, nbytes: int) -> Any:
    if what == "np.memmap":
        return np.memmap(path, "u8", "r", shape=nbytes // 8)
    fill: Any = vrange.fills.file(path)
    if what == "vrange, compressed":
        fill = PACKED
    global array
    array = vrange.VolatileArray(nbytes // 8, "u8", fill=fill, block_bytes=BLOCK)
    return np.asarray(array)


def main() -> None:
    task = contender.task()
    nbytes, blocks = task["nbytes"], task["nbytes"] // BLOCK
    global PACKED
    PACKED = None
    if task["what"] == "vrange, compressed":
        content = np.memmap(task["path"], "u8", "r", shape=nbytes // 8)
        PACKED = vrange.fills.compressed(content, level=1)
        del content
    view = opened(task["what"], task["path"], nbytes)
    random = np.random.default_rng(5)
    picks = random.integers(0, blocks, task["picks"])
    works: dict[str, Callable[[], list[int]]] = {
        "scan": lambda: [int(part.sum()) for part in view.reshape(-1, 16 * WORDS)],
        "random blocks": lambda: [int(view[i * WORDS : (i + 1) * WORDS].sum()) for i in picks],
    }
    work = works[task["work"]]
    worker = Worker()
    worker.start()
    before = resource.getrusage(resource.RUSAGE_SELF)
    start = time.perf_counter()
    total = 0
    for _ in range(task["rounds"]):
        total = sum(work())
    taken = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF)
    worker.stop = True
    worker.join()
    contender.tell(
        "measured",
        seconds=taken / task["rounds"],
        total=total,
        beside_p50=float(np.percentile(worker.times, 50)),
        beside_p99=float(np.percentile(worker.times, 99)),
        beside_most=max(worker.times),
        pieces=len(worker.times),
        major_faults=after.ru_majflt - before.ru_majflt,
        refaults=array.refaults if "vrange" in task["what"] else 0,
        packed_bytes=PACKED.nbytes if PACKED else 0,
    )


array: Any = None
PACKED: Any = None

if __name__ == "__main__":
    main()
