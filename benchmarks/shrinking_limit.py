"""The picture in docs/arrays.md: an array is read while its memory limit shrinks and grows again.

    python -m benchmarks.shrinking_limit [--results docs]

A child reads blocks of the array, most of them from its first third. This process moves the limit
of the child's cgroup, and draws what the child reports.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from itertools import pairwise
from typing import Any

from benchmarks import plot, report
from vrange.cli.memory_cgroup import MemoryCgroup

MIB = 1 << 20
ARRAY = 192 * MIB
OWN = 24 * MIB  # what the interpreter and NumPy need
# When, and where the limit goes from there: steadily until the next.
COURSE = ((0.0, 288), (2.0, 288), (6.0, 80), (9.0, 80), (9.2, 288), (12.0, 288))


def limit_at(seconds: float) -> int:
    for (start, before), (end, after) in pairwise(COURSE):
        if seconds <= end:
            share = (seconds - start) / (end - start)
            return int((before + share * (after - before)) * MIB)
    return COURSE[-1][1] * MIB


def read(stop_at: float, write: int) -> None:
    """In the child: read, and report ten times a second."""
    import numpy as np

    import vrange

    array = vrange.VolatileArray(ARRAY // 8, "u8", fill=vrange.fills.pattern([3, 1, 4, 1, 5]))
    blocks = np.asarray(array).reshape(-1, 8192)
    sums = [int(blocks[i].sum()) for i in range(5)]  # a block has 8192 elements, and 8192 % 5 is 2
    random = np.random.default_rng(0)
    stop = False

    def reader() -> None:
        while not stop:
            for block in (random.beta(1, 3, 50) * len(blocks)).astype(int):
                assert blocks[block].sum() == sums[block % 5], "wrong content"
            time.sleep(0.001)

    thread = threading.Thread(target=reader)
    thread.start()
    start = time.monotonic()
    with os.fdopen(write, "w") as told:
        while (now := time.monotonic() - start) < stop_at:
            line = {"at": now, "resident": array.resident_bytes, "refaults": array.refaults}
            print(json.dumps(line), file=told, flush=True)
            time.sleep(0.05)
    stop = True
    thread.join()


def measure() -> dict[str, Any]:
    stop_at = COURSE[-1][0]
    limits: list[tuple[float, int]] = []
    with MemoryCgroup(limit_at(0)) as group:
        from_child, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.close(from_child)
                group.add(os.getpid())
                read(stop_at, write)
                status = 0
            finally:
                os._exit(status)
        os.close(write)
        samples = []
        with os.fdopen(from_child) as lines:
            for line in lines:
                samples.append(json.loads(line))
                try:
                    group.limit_bytes = limit_at(samples[-1]["at"])
                except OSError:
                    continue  # cgroup v1: not at once; the next one will do
                limits.append((samples[-1]["at"], group.limit_bytes))
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert status == 0, f"the reader ended with {status}"
        assert group.oom_kills == 0
    assert samples[-1]["refaults"] > 1000, "nothing was lost"
    return {"samples": samples, "limits": limits, "array": ARRAY}


def name(axes: Any, x: float, y: float, text: str, colour: str) -> None:
    """Write a line's name to the right of its end."""
    axes.annotate(
        text, (x, y), xytext=(9, 0), textcoords="offset points", color=colour, fontsize=15,
        fontweight="bold", va="center", annotation_clip=False,
    )  # fmt: skip


def draw(measured: dict[str, Any], results: Any) -> None:
    samples, limits = measured["samples"], measured["limits"]
    drawn, (memory, refaults) = plot.figure(2, 1, sharex=True, height_ratios=[3, 1.4])
    drawn.subplots_adjust(left=0.07, right=0.86, top=0.87, bottom=0.09, hspace=0.16)
    drawn.text(
        0.07, 0.935, "An array yields when memory runs short, and grows back", fontsize=23,
        weight="bold",
    )  # fmt: skip
    at = [sample["at"] for sample in samples]
    resident = [sample["resident"] / MIB for sample in samples]
    memory.plot([t for t, _ in limits], [n / MIB for _, n in limits], color=plot.VERMILION)
    memory.fill_between(at, resident, color=plot.OURS, alpha=0.18, lw=0)
    memory.plot(at, resident, color=plot.OURS, lw=3)
    memory.axhline(ARRAY / MIB, color=plot.GREY, lw=1.4, ls="--")
    memory.set_ylim(0, 310)
    memory.set_ylabel("MiB", fontsize=15)
    name(memory, at[-1], limits[-1][1] / MIB, "memory limit", plot.VERMILION)
    name(memory, at[-1], ARRAY / MIB + 9, "the whole array", plot.GREY)
    name(memory, at[-1], resident[-1] - 12, "resident", plot.OURS)
    rates = [
        (after["refaults"] - before["refaults"]) / (after["at"] - before["at"])
        for before, after in zip(samples[:-4], samples[4:], strict=True)
    ]
    refaults.fill_between(at[2:-2], rates, color=plot.PURPLE, alpha=0.25, lw=0)
    refaults.plot(at[2:-2], rates, color=plot.PURPLE)
    refaults.set_ylabel("a second", fontsize=15)
    refaults.set_ylim(0)
    name(refaults, at[-1], max(rates) * 0.1, "refaults", plot.PURPLE)
    refaults.set_xlabel("seconds", fontsize=15)
    refaults.set_xlim(0, at[-1])
    for axes in (memory, refaults):
        axes.tick_params(length=0, labelsize=13)
        axes.grid(axis="y", color=plot.PALE, lw=0.8)
    plot.save(drawn, results, "arrays")


def main() -> int:
    args = report.arguments(__doc__).parse_args()
    if refusal := MemoryCgroup.unavailable():
        print(f"no memory cgroup can be made: {refusal}", file=sys.stderr)
        return 77
    measured = measure()
    draw(measured, args.results)
    print(f"{measured['samples'][-1]['refaults']} refaults, none killed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
