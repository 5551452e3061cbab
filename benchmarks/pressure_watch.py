"""What the pressure watcher costs, far from the limit and above it, beside a thread that polls.

Method. Each contender is a process of its own in a memory cgroup of its own, one after the other:
it fills a part of the limit, and then sleeps. Told is the processor time of all its threads
meanwhile, as a share of one core; what the same process takes without a watcher is told beside.
Peer: a Python thread that asks psutil for its RSS and reads the cgroup's usage, every 50 ms, as
services do it by hand.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from statistics import median
from typing import Any

from benchmarks import report
from benchmarks.contender import ROOT
from benchmarks.interleave import interleaved
from benchmarks.report import Target
from vrange.cgroup import MemoryCgroup

LIMIT_BYTES = 512 << 20
FILLED = {"far": 0.2, "elevated": 0.9}
CONTENDERS = ("nothing", "vrange", "polling thread")
MOST_SHARE = 0.001

CHILD = """
import json, os, sys, threading, time
task = json.loads(sys.stdin.readline())
held = bytearray(int(task["fill_bytes"]))
held[::4096] = b"x" * len(held[::4096])
import vrange.pressure, psutil

def poll():
    process, usage = psutil.Process(), open(task["usage_path"])
    while True:
        process.memory_info().rss
        usage.seek(0)
        int(usage.read())
        time.sleep(0.05)

watcher = None
if task["contender"] == "vrange":
    watcher = vrange.pressure.watch(actions=[])
elif task["contender"] == "polling thread":
    threading.Thread(target=poll, daemon=True).start()
time.sleep(1)
polls = watcher.info().polls if watcher else 0
started, cpu = time.monotonic(), time.process_time()
time.sleep(task["seconds"])
cpu, passed = time.process_time() - cpu, time.monotonic() - started
told = {"share": cpu / passed, "level": None}
if watcher:
    looks = watcher.info().polls - polls
    told |= {"level": watcher.level, "microseconds_a_look": cpu * 1e6 / looks}
print(json.dumps(told), flush=True)
"""


def run(contender: str, filled: float, seconds: float) -> dict[str, Any]:
    """One process to its end; what it told."""
    with MemoryCgroup(LIMIT_BYTES) as group:
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            preexec_fn=lambda: group.add(os.getpid()),
        )
        task = {
            "contender": contender,
            "fill_bytes": filled * LIMIT_BYTES,
            "usage_path": os.path.join(group.path, usage_file(group)),
            "seconds": seconds,
        }
        out, _ = child.communicate(json.dumps(task) + "\n")
        assert child.returncode == 0, f"{contender} ended with {child.returncode}"
        return dict(json.loads(out))


def usage_file(group: MemoryCgroup) -> str:
    names = ("memory.usage_in_bytes", "memory.current")
    return next(name for name in names if os.path.exists(os.path.join(group.path, name)))


def main() -> int:
    args = report.arguments(__doc__).parse_args()
    refusal = MemoryCgroup.unavailable()
    if refusal:
        print(f"pressure_watch needs a memory cgroup: {refusal}", file=sys.stderr)
        return 77
    seconds, rounds = (0.5, 1) if args.quick else (10, 3)
    runs = interleaved(
        {
            (contender, where): lambda c=contender, f=filled: run(c, f, seconds)
            for where, filled in FILLED.items()
            for contender in CONTENDERS
        },
        rounds,
    )
    for (contender, where), found in runs.items():
        if contender == "vrange":
            expected = "normal" if where == "far" else "elevated"
            assert all(one["level"] == expected for one in found), f"{where}: {found}"
    shares = {
        where: {c: median(one["share"] for one in runs[c, where]) for c in CONTENDERS}
        for where in FILLED
    }
    looks = {
        where: median(one["microseconds_a_look"] for one in runs["vrange", where])
        for where in FILLED
    }
    print(report.table([{"": where, **shares[where]} for where in FILLED]))
    print("µs of processor time a look:", looks)
    targets = []
    if not args.quick:
        targets = [
            Target(f"share of a core, {where}", shares[where]["vrange"], "at most", MOST_SHARE)
            for where in FILLED
        ]
    measured = {"seconds": seconds, "share_of_a_core": shares, "microseconds_a_look": looks}
    return report.write("pressure_watch", args.results, measured, targets)


if __name__ == "__main__":
    sys.exit(main())
