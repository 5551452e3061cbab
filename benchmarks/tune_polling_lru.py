"""Which polling LRU is the best peer: a grid over how often it polls and how much it leaves free.

Each setting runs the ramp of cache_under_pressure `--rounds` times, all settings in turn. The best
is printed first, by the median of requests per CPU-second over the two phases under pressure; a
setting that was killed once is excluded. The best setting's numbers are the defaults in
polling_lru.py.
"""

from __future__ import annotations

import argparse
from functools import partial
from itertools import product
from statistics import median
from typing import Any

from benchmarks import contender, pressure_source, report
from benchmarks.interleave import interleaved

LIMIT_BYTES = 512 << 20
MIB = 1 << 20


def one(options: dict[str, int], per_phase: int) -> contender.Outcome:
    task = {
        "peer": "polling LRU",
        "application": "ramp",
        "seed": 1,
        "per_phase": per_phase,
        "source": pressure_source.path(),
        "options": options,
    }
    return contender.run("benchmarks.pressure_workload", task, LIMIT_BYTES)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--per-phase", type=int, default=8000)
    parser.add_argument("--every", type=int, nargs="+", default=[16, 64, 128])
    parser.add_argument("--margin", type=int, nargs="+", default=[8, 16, 24], help="MiB")
    parser.add_argument("--extra", type=int, nargs="+", default=[0, 4, 16], help="MiB")
    args = parser.parse_args()
    grid = {
        (every, margin, extra): {
            "every_requests": every,
            "margin_bytes": margin * MIB,
            "extra_bytes": extra * MIB,
        }
        for every, margin, extra in product(args.every, args.margin, args.extra)
    }
    outcomes = interleaved(
        {setting: partial(one, options, args.per_phase) for setting, options in grid.items()},
        args.rounds,
    )
    rows: list[dict[str, Any]] = []
    for (every, margin, extra), runs in outcomes.items():
        pressed = [run.told("phase")[2:] for run in runs if run.survived]
        rows.append(
            {
                "every": every,
                "margin MiB": margin,
                "extra MiB": extra,
                "survived": f"{len(pressed)}/{len(runs)}",
                "requests/CPU-s": median(
                    sum(phase["requests"] for phase in run)
                    / sum(phase["cpu_seconds"] for phase in run)
                    for run in pressed
                )
                if len(pressed) == len(runs)
                else 0.0,
                "hit ratio": median(
                    sum(phase["hit_ratio"] for phase in run) / len(run) for run in pressed
                )
                if pressed
                else 0.0,
            }
        )
    rows.sort(key=lambda row: -row["requests/CPU-s"])
    print(report.table(rows))


if __name__ == "__main__":
    main()
