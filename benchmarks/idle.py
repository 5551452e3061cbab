"""What a process costs that does nothing: wake-ups and processor time, with a limit and without.

Method. Each contender is a process that fills 256 MiB and then sleeps. When 5 seconds have passed,
the voluntary context switches and the processor time of all its threads are read, and again after
10 more seconds. All contenders of a round sleep side by side. The main thread's own sleep counts
as well.

Contenders: values in a dict, without vrange; the same with a thread that reads a figure of the
kernel every 50 ms, as caches do that watch their limit; a VolatileCache; and a VolatileCache with
`vrange.pressure.watch()`.

Check: every vrange process has its cache and its caretaker at the end.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import plot, report
from benchmarks.report import Target
from vrange.cli.memory_cgroup import MemoryCgroup

MIB = 1 << 20
LIMIT = 1024 * MIB
HELD = 256
POLLED_SECONDS = 0.05
MOST_WAKES, MOST_PERCENT = 5.0, 0.02
CONTENDERS = ("without vrange", "polling thread", "vrange", "vrange, watched")
PLACES = ("no limit", "limit of 1 GiB")

Figures = dict[str, float]


def child(contender: str, rest: float, seconds: float) -> None:
    """Fill, sleep, and report."""
    import threading

    import numpy as np

    cache: Any = {}
    watcher: Any = None
    if contender.startswith("vrange"):
        import vrange

        cache = vrange.VolatileCache[int, Any](name="idle", hot_bytes=0)
        if contender.endswith("watched"):
            watcher = vrange.pressure.watch()
    for key in range(HELD):
        cache[key] = np.full(MIB, key, np.uint8)
    if contender == "polling thread":
        threading.Thread(target=_poll, daemon=True).start()
    time.sleep(rest)
    before = _counts()
    time.sleep(seconds)
    after = _counts()
    if contender.startswith("vrange"):
        assert len(cache) == HELD
        assert vrange.stats().reserve.running
    if watcher is not None:
        assert watcher.info().running
    wakes, busy_ns = (now - then for now, then in zip(after, before, strict=True))
    figures = {"wakes": wakes / seconds, "percent": busy_ns / seconds / 1e9 * 100}
    print(json.dumps(figures), flush=True)
    os._exit(0)


def _poll() -> None:
    path = "/proc/self/statm"
    while True:
        time.sleep(POLLED_SECONDS)
        with open(path) as file:
            file.read()


def _counts() -> tuple[int, int]:
    """Return the wake-ups and the nanoseconds on a processor of all threads."""
    wakes = busy = 0
    for task in Path("/proc/self/task").iterdir():
        status = (task / "status").read_text()
        wakes += int(status.split("\nvoluntary_ctxt_switches:")[1].split()[0])
        busy += int((task / "schedstat").read_text().split()[0])
    return wakes, busy


def one_round(rest: float, seconds: float) -> dict[str, dict[str, Figures]]:
    """Run all contenders side by side, at each place where they can run."""
    found: dict[str, dict[str, Figures]] = {}
    with ExitStack() as stack:
        running: dict[tuple[str, str], subprocess.Popen[str]] = {}
        for place in PLACES:
            if place != PLACES[0] and MemoryCgroup.unavailable():
                continue
            for contender in CONTENDERS:
                program = ["sh", sys.executable, "-m", "benchmarks.idle", "--child"]
                command = [*program, contender, str(rest), str(seconds)]
                process = stack.enter_context(
                    subprocess.Popen(
                        ["/bin/sh", "-c", 'read go; exec "$@"', *command],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        text=True,
                        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
                    )
                )
                if place != PLACES[0]:
                    stack.enter_context(MemoryCgroup(LIMIT)).add(process.pid)
                assert process.stdin
                process.stdin.write("go\n")
                process.stdin.flush()
                running[place, contender] = process
        for (place, contender), process in running.items():
            output, _ = process.communicate(timeout=rest + seconds + 120)
            assert process.returncode == 0, f"{contender} ended with {process.returncode}"
            found.setdefault(place, {})[contender] = json.loads(output)
    return found


def main() -> int:
    if "--child" in sys.argv:
        child(sys.argv[2], float(sys.argv[3]), float(sys.argv[4]))
    options = report.arguments(__doc__).parse_args()
    rounds, rest, seconds = (1, 4.0, 3.0) if options.quick else (3, 5.0, 10.0)
    measured = [one_round(rest, seconds) for _ in range(rounds)]
    figures = {
        place: {
            contender: {
                what: median(turn[place][contender][what] for turn in measured)
                for what in ("wakes", "percent")
            }
            for contender in CONTENDERS
        }
        for place in measured[0]
    }
    for place, found in figures.items():
        print(f"\n{place}")
        print(report.table([{"": name, **each} for name, each in found.items()]))
    draw(figures, options.results)
    targets = []
    for place, found in figures.items():
        own = {w: found["vrange"][w] - found[CONTENDERS[0]][w] for w in ("wakes", "percent")}
        targets.append(Target(f"wake-ups a second, {place}", own["wakes"], "at most", MOST_WAKES))
        if not options.quick:  # in so few wake-ups one that takes long is most of the time
            percent = Target(f"% of a core, {place}", own["percent"], "at most", MOST_PERCENT)
            targets.append(percent)
    return report.write("idle", options.results, {"rounds": rounds, "figures": figures}, targets)


def draw(figures: dict[str, dict[str, Figures]], results: Path) -> None:
    drawn, pair = plot.figure(1, 2)
    texts = {"wakes": "wake-ups a second", "percent": "% of a core"}
    for axes, (what, text) in zip(pair, texts.items(), strict=True):
        height = 0.8 / len(figures)
        for number, (place, found) in enumerate(figures.items()):
            places = [index - number * height for index in range(len(found), 0, -1)]
            values = [each[what] for each in found.values()]
            inks = [plot.OURS if name.startswith("vrange") else plot.GREY for name in found]
            axes.barh(places, values, height * 0.9, color=inks, alpha=1 - 0.45 * number)
            for at, value in zip(places, values, strict=True):
                label = f"  {value:.2g}, {place}"
                axes.text(value, at, label, va="center", fontsize=12, color=plot.INK)
        axes.set_yticks(range(len(CONTENDERS), 0, -1), CONTENDERS if axes is pair[0] else [])
        axes.set_xlim(
            0, 1.6 * max(each[what] for found in figures.values() for each in found.values())
        )
        axes.set_title(text)
    drawn.suptitle("A process that holds 256 MiB and does nothing", x=0.01, ha="left")
    drawn.tight_layout()
    plot.save(drawn, results, "idle")


if __name__ == "__main__":
    sys.exit(main())
