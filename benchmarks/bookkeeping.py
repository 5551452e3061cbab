"""Bytes per entry: what a cache takes beyond its values, and what a million small values take.

Method. Each cache decorates the same function in a child process of its own. It is asked for so
many keys that one entry's share shows. The growth of the child's resident anonymous memory
(smaps_rollup) is divided by their number. For large values, 256 KiB each, their own bytes are
subtracted, and the rest is bookkeeping. For small values, 200 bytes each, nothing is subtracted: an
entry's figure includes value and key.

Peers: dict and functools.lru_cache. Floor: the values' own 200 bytes. Page tables belong to the
kernel and count for no contender.

Check: each key was computed once, and a sample of them is answered right afterwards without
computing again.
"""

from __future__ import annotations

import sys
from typing import Any

from benchmarks import contender, plot, report
from benchmarks.bookkeeping_child import LARGE_BYTES, SMALL_BYTES
from benchmarks.report import Target

LARGE_COUNT, SMALL_COUNT = 4000, 1_000_000
MOST_BYTES_PER_SMALL_ENTRY = 350
CONTENDERS = ("vrange", "dict", "lru_cache")


def main() -> int:
    args = report.arguments(__doc__).parse_args()
    large, small = (200, 20_000) if args.quick else (LARGE_COUNT, SMALL_COUNT)
    cases = {
        "256 KiB, int keys": {"values": "large", "keys": "int", "count": large},
        f"{small:,} × 200 bytes, int keys": {"values": "small", "keys": "int", "count": small},
        f"{small:,} × 200 bytes, str keys": {"values": "small", "keys": "str", "count": small},
    }
    found: dict[str, dict[str, float]] = {}
    for case, task in cases.items():
        found[case] = {}
        for peer in CONTENDERS:
            outcome = contender.run("benchmarks.bookkeeping_child", {"peer": peer, **task})
            per_entry = outcome.told("filled")[0]["per_entry_bytes"]
            found[case][peer] = per_entry - (LARGE_BYTES if task["values"] == "large" else 0)
    print(report.table([{"bytes per entry": case} | row for case, row in found.items()]))
    targets = []
    if not args.quick:
        targets = [
            Target(case, row["vrange"], "at most", MOST_BYTES_PER_SMALL_ENTRY)
            for case, row in found.items()
            if "200 bytes" in case
        ]
        draw(found, args.results)
    return report.write("bookkeeping", args.results, {"bytes_per_entry": found}, targets)


def draw(found: dict[str, dict[str, float]], results: Any) -> None:
    small = {case: row for case, row in found.items() if "200 bytes" in case}
    drawn, panels = plot.figure(1, len(small), sharey=True, sharex=True)
    drawn.subplots_adjust(left=0.1, right=0.97, top=0.8, bottom=0.08, wspace=0.08)
    drawn.text(0.03, 0.92, "A small value's share of memory, bytes", fontsize=23, fontweight="bold")
    names = list(reversed(CONTENDERS))
    for axes, (case, row) in zip(panels, small.items(), strict=True):
        values = [row[name] for name in names]
        colours = [plot.OURS if name == "vrange" else "#B8B8B8" for name in names]
        axes.barh(names, values, color=colours, height=0.55)
        axes.axvline(SMALL_BYTES, color=plot.INK, lw=1.2, ls=(0, (3, 3)))
        axes.annotate("the value itself", (SMALL_BYTES, 2.42), (6, 0), textcoords="offset points")
        axes.set_title(case, pad=16)
        axes.tick_params(length=0, labelsize=15, labelcolor=plot.INK)
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)
        for place, value in enumerate(values):
            axes.annotate(
                f"{value:,.0f}", (value, place), (7, 0), textcoords="offset points", va="center"
            )
    plot.save(drawn, results, "bookkeeping")


if __name__ == "__main__":
    sys.exit(main())
