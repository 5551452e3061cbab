"""The cost of watching for memory pressure, and the delay until a rising level is acted on.

Method. Each contender is a process of its own in a memory cgroup of its own, alternately. It fills
a fifth of the limit and sleeps ("far"), or nine tenths ("elevated"), or fills and frees memory
twice a second, so that the level rises and falls ("crossing"). The main thread's processor time is
subtracted from the process's (getrusage): the rest is the cost of the other threads, as a share of
one core. While crossing, the callbacks also get some three changes a second, more than most
programs see in an hour. So the target there applies to the watcher itself, by the time that its
native thread reports; the rest of the process's time is given per change, without a target.

Peers: no watcher; and what people write instead, a Python thread that asks psutil for the process's
memory and reads the cgroup's usage every 50 ms. "with actions" releases hot values and trims stacks
and the heap at each rise, with no pause in between; the others only call a function.

The delay is from the moment at which the main thread sees usage above the threshold, which it reads
after each 256 KiB that it fills, to the call of the function.

Check: the levels are those expected, and each crossing is counted by its call.
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from statistics import median, quantiles
from typing import Any

from benchmarks import report
from benchmarks.contender import ROOT
from benchmarks.interleave import interleaved
from benchmarks.report import Target
from vrange.cli.memory_cgroup import MemoryCgroup

MIB = 1 << 20
LIMIT = 256 * MIB
MOST_SHARE = 0.001

CHILD = """
import json, os, resource, sys, threading, time
sys.stdin.readline()
task = json.loads(sys.argv[1])
import psutil
import vrange.heap, vrange.pressure
from vrange._cgroup.limits import memory_limit
LIMIT, ELEVATED, NORMAL = memory_limit().limit_bytes, 0.85, 0.80
usage_file = os.open(memory_limit().usage_path, os.O_RDONLY)
def usage():
    return int(os.pread(usage_file, 32, 0))
calls = []
def call(*_):
    calls.append(time.perf_counter())

class Polling:
    '''The usual thing: a thread that looks.'''
    def __init__(self):
        self.stop = False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()
    def run(self):
        process, up = psutil.Process(), False
        while not self.stop:
            process.memory_info().rss
            share = usage() / LIMIT
            if (not up and share >= ELEVATED) or (up and share <= NORMAL):
                up = not up
                call()
            time.sleep(0.05)
    def close(self):
        self.stop = True
        self.thread.join()

def fill(to):
    held = []
    while usage() < to:
        block = bytearray(256 << 10)
        for at in range(0, len(block), 4096):
            block[at] = 1
        held.append(block)
    return time.perf_counter(), held

filled = {"far": 0.2, "elevated": 0.9}.get(task["what"], 0)
steady = fill(LIMIT * filled)

watcher = None
if task["who"].startswith("vrange"):
    actions = ("hot", "stacks", "heap") if "actions" in task["who"] else ()
    watcher = vrange.pressure.watch(actions=actions, on_level=call, min_interval=0)
elif task["who"] == "psutil thread":
    watcher = Polling()

def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
delays, turns = [], 0
start, process_before, main_before = time.perf_counter(), cpu(), time.thread_time()
while (passed := time.perf_counter() - start) < task["seconds"]:
    if task["what"] != "crossing":
        time.sleep(min(0.5, task["seconds"] - passed))
        continue
    calls.clear()
    crossed, held = fill(LIMIT * (ELEVATED + 0.01))
    time.sleep(0.25 - (crossed % 0.05))   # so that looks fall anywhere
    if calls:
        delays.append(calls[0] - crossed)
    del held
    time.sleep(0.25)
    turns += 1
wall = time.perf_counter() - start
others = (cpu() - process_before) - (time.thread_time() - main_before)
told = {"level": getattr(watcher, "level", None)}
told |= {"share": others / wall, "delays": delays, "turns": turns, "wall": wall}
if watcher is not None and hasattr(watcher, "info"):
    info = watcher.info()
    told |= {"changes": info.changes, "polls": info.polls, "busy_us": info.busy_seconds * 1e6}
    told |= {"done": info.done, "returned_bytes": info.returned_bytes}
if watcher is not None:
    watcher.close()
print(json.dumps(told))
"""

WHO = ("no watcher", "vrange", "psutil thread")


def run(what: str, who: str, seconds: float) -> dict[str, Any]:
    task = json.dumps({"what": what, "who": who, "seconds": seconds})
    with MemoryCgroup(LIMIT) as cgroup:
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, task],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        cgroup.add(child.pid)
        told, _ = child.communicate("go\n", timeout=seconds + 60)
        if child.returncode != 0:
            raise RuntimeError(f"{who}, {what}: exit {child.returncode}, {cgroup.oom_kills} kills")
    found: dict[str, Any] = json.loads(told)
    return found


def summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the mean share over all rounds, and the delays of all."""
    wall = sum(one["wall"] for one in rounds)
    found: dict[str, Any] = {
        "share_of_a_core": sum(one["share"] * one["wall"] for one in rounds) / wall,
        "seconds": wall,
    }
    if "busy_us" in rounds[0]:
        polls = sum(one["polls"] for one in rounds)
        found["watching_share"] = sum(one["busy_us"] for one in rounds) / 1e6 / wall
        found["microseconds_a_look"] = sum(one["busy_us"] for one in rounds) / polls
        found["looks_a_second"] = polls / wall
        found["changes"] = sum(one["changes"] for one in rounds)
        if found["changes"] > len(rounds):
            telling = found["share_of_a_core"] - found["watching_share"]
            found["microseconds_a_change"] = telling * wall * 1e6 / found["changes"]
        found["done"] = {k: sum(one["done"][k] for one in rounds) for k in rounds[0]["done"]}
    delays = [delay * 1e3 for one in rounds for delay in one["delays"]]
    if len(delays) > 1:
        found["crossings"] = sum(one["turns"] for one in rounds)
        found["noticed"] = len(delays)
        found["delay_ms"] = {
            "median": median(delays),
            "p90": quantiles(delays, n=10)[-1],
            "most": max(delays),
            "all": delays,
        }
    return found


def draw(measured: dict[str, Any], results: Any) -> None:
    from benchmarks import plot

    drawn, (left, right) = plot.figure(1, 2)
    names, shares, colours = [], [], []
    of = {"vrange": plot.OURS, "vrange, with actions": plot.GREEN}
    for what, by_who in measured.items():
        for who, found in by_who.items():
            names.append(f"{who}\n{what}")
            shares.append(max(found["share_of_a_core"] * 100, 1e-4))
            colours.append(of.get(who, plot.GREY))
    places = range(len(names))
    left.barh(list(places), shares, color=colours)
    left.set_yticks(list(places), names, fontsize=12)
    left.invert_yaxis()
    left.set_xscale("log")
    left.axvline(MOST_SHARE * 100, color=plot.VERMILION, linestyle="--")
    left.set_xlabel("% of a core, all threads but the main one")
    left.set_title("What watching costs (dashed: the target)")
    for who, colour in (("vrange", plot.OURS), ("psutil thread", plot.VERMILION)):
        delays = sorted(measured["crossing"][who].get("delay_ms", {}).get("all", []))
        if delays:
            right.plot(delays, [(n + 1) / len(delays) for n in range(len(delays))], color=colour)
            right.annotate(
                who,
                (delays[len(delays) // 2], 0.5),
                xytext=(10, -14),
                textcoords="offset points",
                color=colour,
            )
    right.set_xlabel("ms from crossing the threshold to the call")
    right.set_ylabel("share of crossings")
    right.set_xlim(left=0)
    right.set_title("How soon")
    drawn.tight_layout()
    plot.save(drawn, results, "pressure_watch")


def main() -> int:
    options = report.arguments(__doc__).parse_args()
    if refusal := MemoryCgroup.unavailable():
        print(f"skipped: {refusal}", file=sys.stderr)
        return 77
    seconds, rounds = (2.0, 1) if options.quick else (11.0, 2)
    measured: dict[str, Any] = {}
    for what, contenders in (
        ("far", WHO),
        ("elevated", WHO),
        ("crossing", (*WHO, "vrange, with actions")),
    ):
        found = interleaved({who: partial(run, what, who, seconds) for who in contenders}, rounds)
        measured[what] = {who: summary(all_rounds) for who, all_rounds in found.items()}
        if what != "crossing":
            levels = {one["level"] for one in found["vrange"]}
            assert levels == {"normal" if what == "far" else what}, f"{what}: {levels}"
    rows = [
        {
            "": f"{what}, {who}",
            "% of a core": found["share_of_a_core"] * 100,
            "µs a look": found.get("microseconds_a_look", float("nan")),
            "µs a change": found.get("microseconds_a_change", float("nan")),
            "noticed": f"{found.get('noticed', '-')} of {found.get('crossings', '-')}",
            "median ms": found.get("delay_ms", {}).get("median", float("nan")),
            "most ms": found.get("delay_ms", {}).get("most", float("nan")),
        }
        for what, by_who in measured.items()
        for who, found in by_who.items()
    ]
    print(report.table(rows))
    ours = measured["crossing"]["vrange"]
    targets = [
        Target("crossings noticed", ours["noticed"] / ours["crossings"], "at least", 1.0),
    ]
    if not options.quick:  # such a short run gives no useful times
        shares = {what: measured[what]["vrange"]["share_of_a_core"] for what in ("far", "elevated")}
        shares["crossing, the native thread"] = ours["watching_share"]
        targets += [
            Target(f"share of a core, {what}", share, "at most", MOST_SHARE)
            for what, share in shares.items()
        ]
    draw(measured, options.results)
    return report.write("pressure_watch", options.results, measured, targets)


if __name__ == "__main__":
    sys.exit(main())
