"""What a trim leaves of 2,000,000 dicts of which one in a thousand survives.

Method. Each contender is a process of its own, in turn. It builds the dicts, drops all but every
thousandth, collects garbage and trims. Then it builds and drops a tenth as many again, to measure
the cost of continuing. This process reads the contender's anonymous resident memory from
smaps_rollup: before, after dropping, and after the trim. The time of the trim is the child's
processor time. "Continuing" is the processor time of a loop that makes and drops objects of many
sizes after the trim, compared with the same in a process that did not trim, by the medians of pairs
that run one after the other.

Peers: pymalloc as it is; PYTHONMALLOC=malloc with glibc, jemalloc and mimalloc as they are. Floor:
what the interpreter has before the first dict.
"""

from __future__ import annotations

import ctypes.util
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import report
from benchmarks.contender import ROOT
from benchmarks.interleave import interleaved, paired_ratio
from benchmarks.report import Target

OBJECTS = 2_000_000
MOST_DEEP_MIB, MOST_LIBC_MIB, MOST_SLOWDOWN = 190, 35, 1.05

CHILD = """
import gc, json, sys, time
import vrange.heap
task = json.loads(sys.argv[1])

def stop(**told):
    print(json.dumps(told), flush=True)
    sys.stdin.readline()

def work():
    started = time.thread_time()
    for turn in range(task["turns"]):
        live = [{"n": i, "text": str(i) * (i % 7), "list": [i, turn]} for i in range(20_000)]
        kept = live[::2]
        del live
        assert kept[3]["n"] == 6
    return time.thread_time() - started

if task["enable"]:
    vrange.heap.interpreter.enable()
stop()
everything = [{"id": i, "s": f"item{i}"} for i in range(task["objects"])]
stop()
kept = everything[::1000]
del everything
gc.collect()
stop()
started = time.thread_time()
given_back = None
if task["deep"] is not None:
    trimmed = vrange.heap.trim(task["deep"])
    given_back = dict(trimmed.by_source)
stop(seconds=time.thread_time() - started, given_back=given_back)
first = work()
stop(first_seconds=first, then_seconds=work())
assert all(one["s"] == f"item{one['id']}" for one in kept)
stop()
"""
STAGES = ("empty", "full", "dropped", "trimmed", "worked on")


def contenders() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {
        "pymalloc": {"deep": None},
        "vrange, deep=True": {"deep": True, "enable": True},
        "vrange, deep='holes'": {"deep": "holes", "enable": True},
        "PYTHONMALLOC=malloc": {"deep": None, "environment": {"PYTHONMALLOC": "malloc"}},
        "PYTHONMALLOC=malloc and vrange": {
            "deep": False,
            "environment": {"PYTHONMALLOC": "malloc"},
        },
    }
    for name in ("jemalloc", "mimalloc"):
        library = ctypes.util.find_library(name)
        if library is None:
            print(f"without {name}: install lib{name}")
            continue
        environment = {"PYTHONMALLOC": "malloc", "LD_PRELOAD": library}
        found[f"PYTHONMALLOC=malloc, {name}"] = {"deep": None, "environment": environment}
    return found


def anonymous_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"the kernel reports no figure for process {pid}")


def run(contender: dict[str, Any], objects: int, turns: int) -> dict[str, Any]:
    """Run one contender from start to end. Return MiB at each stage, and its times."""
    task = {"objects": objects, "turns": turns, "enable": False, **contender}
    environment = {**os.environ, "PYTHONHASHSEED": "0", **task.pop("environment", {})}
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, json.dumps(task)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    found: dict[str, Any] = {}
    for stage in STAGES:
        line = child.stdout.readline()
        assert line, f"the child ended before {stage!r}"
        found |= json.loads(line)
        found[stage] = anonymous_mib(child.pid)
        child.stdin.write("\n")
        child.stdin.flush()
    child.communicate("\n")
    assert child.returncode == 0, child.returncode
    return found


def check(name: str, runs: list[dict[str, Any]]) -> None:
    """Check that the bytes reported as returned are those that the kernel lost."""
    for found in runs:
        if found["given_back"] is not None:
            told = sum(found["given_back"].values()) / 2**20
            went = found["dropped"] - found["trimmed"]
            assert abs(told - went) < 4 + 0.02 * went, f"{name}: told {told}, went {went}"


def draw(medians: dict[str, dict[str, float]], path: Path) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 3.6), layout="constrained")
    names = list(medians)[::-1]
    axes.barh(names, [medians[n]["full"] for n in names], color="#dddddd", label="full")
    axes.barh(
        names, [medians[n]["trimmed"] for n in names], height=0.5, color="#2a7f62", label="left"
    )
    for place, name in enumerate(names):
        axes.text(
            medians[name]["trimmed"] + 6, place, f"{medians[name]['trimmed']:.0f}", va="center"
        )
    axes.set_xlabel("anonymous resident memory, MiB; one dict in a thousand is kept")
    axes.legend(frameon=False, loc="upper right")
    figure.savefig(path, dpi=120)


def main() -> int:
    args = report.arguments(__doc__).parse_args()
    objects, turns, rounds = (200_000, 1, 1) if args.quick else (OBJECTS, 25, 5)
    chosen = contenders()
    runs = interleaved(
        {name: partial(run, one, objects, turns) for name, one in chosen.items()}, rounds
    )
    for name, found in runs.items():
        check(name, found)
    medians = {
        name: {stage: median(one[stage] for one in found) for stage in STAGES}
        for name, found in runs.items()
    }
    slowdown = {
        name: paired_ratio(
            [one["then_seconds"] for one in runs[name]],
            [one["then_seconds"] for one in runs["pymalloc"]],
        )
        for name in runs
        if name.startswith("vrange")
    }
    microseconds_a_mib = {
        name: median(
            one["seconds"] * 1e6 / max(1e-9, one["dropped"] - one["trimmed"]) for one in found
        )
        for name, found in runs.items()
        if found[0]["given_back"] is not None
    }
    lines = [
        {"contender": name, **{stage: round(mib, 1) for stage, mib in stages.items()}}
        for name, stages in medians.items()
    ]
    print(report.table(lines))
    print("working on, times an untrimmed process:", slowdown)
    print("µs of processor time per MiB returned:", microseconds_a_mib)
    targets = []
    if not args.quick:
        targets = [
            Target(
                "MiB left, deep=True",
                medians["vrange, deep=True"]["trimmed"],
                "at most",
                MOST_DEEP_MIB,
            ),
            Target(
                "MiB left, PYTHONMALLOC=malloc and trim()",
                medians["PYTHONMALLOC=malloc and vrange"]["trimmed"],
                "at most",
                MOST_LIBC_MIB,
            ),
            Target(
                "working on after deep=True, times an untrimmed process",
                slowdown["vrange, deep=True"],
                "at most",
                MOST_SLOWDOWN,
            ),
        ]
    args.results.mkdir(parents=True, exist_ok=True)
    draw(medians, args.results / "heap_trim.png")
    measured = {
        "objects": objects,
        "rounds": rounds,
        "mib": medians,
        "microseconds_a_mib": microseconds_a_mib,
        "working_on": slowdown,
    }
    return report.write("heap_trim", args.results, measured, targets)


if __name__ == "__main__":
    sys.exit(main())
