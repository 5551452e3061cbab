"""The plot of cache_under_pressure: memory and hit ratio, request by request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import plot
from benchmarks.contender import Outcome
from benchmarks.pressure_workload import PHASES

MIB = 1 << 20
SMOOTHED_SAMPLES = 4
HEADLINES = {
    "warm-up": "warm-up",
    "steady": "steady",
    "app takes memory": "the application takes 300 MB",
    "freed": "… and gives it back",
}
COLOURS = {
    "vrange": plot.BLUE,
    "polling LRU": plot.VERMILION,
    "lru_cache, 150 MB": plot.GREEN,
    "dict": plot.INK,
}
WIDTHS = {"vrange": 3.6, "dict": 1.6}
DASHES = {"dict": (0, (3, 2))}


def draw(outcomes: dict[str, Outcome], per_phase: int, limit_bytes: int, results: Path) -> None:
    shown = {name: outcomes[name] for name in COLOURS if name in outcomes}
    drawn, (memory, hits) = plot.figure(
        2, 1, sharex=True, gridspec_kw={"height_ratios": [5, 4], "hspace": 0.12}
    )
    drawn.subplots_adjust(left=0.065, right=0.865, top=0.82, bottom=0.085)
    drawn.text(
        0.065,
        0.945,
        "A cache of 400 MiB in a process that may use 512 MiB",
        fontsize=23,
        fontweight="bold",
    )
    drawn.text(
        0.065,
        0.905,
        "1600 arrays of 256 KiB, requested by Zipf's law; memory cgroup, no swap. "
        "The cache and the application are one process.",
        fontsize=14.5,
        color=plot.GREY,
    )
    _phases(memory, hits, per_phase)
    _memory(memory, shown, limit_bytes, per_phase)
    _hits(hits, shown, per_phase)
    plot.save(drawn, results, "cache_under_pressure")


def _phases(memory: Any, hits: Any, per_phase: int) -> None:
    for axes in (memory, hits):
        axes.set_xlim(0, len(PHASES) * per_phase)
        axes.axvspan(2 * per_phase, 3 * per_phase, color="#FFF4DC", lw=0, zorder=0)
        axes.tick_params(length=0)
        axes.grid(axis="y", color=plot.PALE, lw=0.8)
        axes.set_axisbelow(True)
    for number, name in enumerate(PHASES):
        memory.text(
            (number + 0.5) * per_phase,
            1.025,
            HEADLINES[name],
            transform=memory.get_xaxis_transform(),
            ha="center",
            fontsize=14.5,
            color=plot.INK,
        )
        if number:
            for axes in (memory, hits):
                axes.axvline(number * per_phase, color="#C9C9C9", lw=1, ls=(0, (2, 3)), zorder=1)


def _memory(axes: Any, shown: dict[str, Outcome], limit_bytes: int, per_phase: int) -> None:
    limit = limit_bytes / MIB
    axes.set_ylim(0, limit * 1.13)
    axes.set_ylabel("memory used, MiB")
    axes.set_yticks([0, 128, 256, 384, 512])
    axes.axhline(limit, color=plot.INK, lw=1.4)
    axes.annotate(
        "limit: beyond it the kernel kills",
        (0, limit),
        xytext=(6, 6),
        textcoords="offset points",
        fontsize=13,
    )
    requests, app = _series(shown["vrange"], "application_bytes")
    axes.fill_between(requests, app / MIB, color="#D9D2C3", lw=0, zorder=1)
    axes.text(2.62 * per_phase, 120, "the application", ha="center", fontsize=13, color="#6B6353")
    ends: dict[str, float] = {}
    for name, outcome in shown.items():
        requests, usage = _series(outcome, "usage_bytes")
        if len(requests) == 0:
            continue
        colour = COLOURS[name]
        axes.plot(
            requests,
            usage / MIB,
            color=colour,
            lw=WIDTHS.get(name, 2.0),
            ls=DASHES.get(name, "-"),
            zorder=_order(name),
        )
        if outcome.survived:
            ends[name] = usage[-1] / MIB
        else:
            axes.plot(
                requests[-1], limit, "X", ms=17, color="#B00020", mec="white", mew=1.6, zorder=9
            )
            axes.annotate(
                "KILLED: dict, and every LRU with room for 400 MB",
                (requests[-1], limit),
                xytext=(1.9 * per_phase, limit * 0.95),
                ha="right",
                va="top",
                arrowprops={"arrowstyle": "-", "color": "#B00020", "lw": 1.2, "shrinkB": 9},
                fontsize=14,
                fontweight="bold",
                color="#B00020",
            )
    plot.label_ends(axes, ends, COLOURS, len(PHASES) * per_phase, plus=limit * 0.075)


def _hits(axes: Any, shown: dict[str, Outcome], per_phase: int) -> None:
    axes.set_ylim(0.67, 1.005)
    axes.set_yticks([0.7, 0.8, 0.9, 1.0], ["70 %", "80 %", "90 %", "100 %"])
    axes.set_ylabel("hits")
    axes.set_xlabel("requests", color=plot.GREY)
    thousands = [per_phase * i / 2 for i in range(2 * len(PHASES) + 1)]
    axes.set_xticks(thousands, [f"{int(x):,}" for x in thousands])
    ends: dict[str, float] = {}
    for name, outcome in shown.items():
        requests, ratio = _series(outcome, "hit_ratio")
        if len(requests) < SMOOTHED_SAMPLES:
            continue
        ratio = np.convolve(ratio, np.ones(SMOOTHED_SAMPLES) / SMOOTHED_SAMPLES, "valid")
        requests = requests[SMOOTHED_SAMPLES - 1 :]
        axes.plot(
            requests,
            ratio,
            color=COLOURS[name],
            lw=WIDTHS.get(name, 2.0),
            ls=DASHES.get(name, "-"),
            zorder=_order(name),
        )
        if outcome.survived:
            ends[name] = float(ratio[-1])
        else:
            axes.plot(requests[-1], ratio[-1], "X", ms=13, color="#B00020", mec="white", zorder=9)
        _phase_means(axes, name, outcome, per_phase)
    plot.label_ends(axes, ends, COLOURS, len(PHASES) * per_phase, plus=0.026)


_MEANS_AT = {"vrange": 0.765, "polling LRU": 0.732, "lru_cache, 150 MB": 0.699}


def _phase_means(axes: Any, name: str, outcome: Outcome, per_phase: int) -> None:
    """Write the phase's hit ratio as a figure below the lines."""
    if name not in _MEANS_AT:
        return
    for number, phase in enumerate(outcome.told("phase")):
        if number == 0:
            continue
        axes.text(
            (number + 0.5) * per_phase,
            _MEANS_AT[name],
            f"{phase['hit_ratio']:.1%}".replace("%", " %"),
            ha="center",
            va="center",
            fontsize=14,
            fontweight="bold" if name == "vrange" else "normal",
            color=COLOURS[name],
        )


def _order(name: str) -> int:
    return {"vrange": 6, "dict": 7}.get(name, 4)


def _series(outcome: Outcome, figure: str) -> tuple[np.ndarray, np.ndarray]:
    samples = outcome.told("sample")
    requests = np.array([sample["requests"] for sample in samples])
    return requests, np.array([sample[figure] for sample in samples], float)
