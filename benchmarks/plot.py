"""The common look of the plots: few inks, labels beside lines, colours anyone can tell apart."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, which stays distinct under the common kinds of colour blindness.
BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#AA4499"
INK, GREY, PALE = "#222222", "#7A7A7A", "#E4E4E4"
OURS = BLUE

# matplotlib's stubs declare each key as a literal.
STYLE: dict[Any, object] = {
    "font.family": "DejaVu Sans",
    "font.size": 14,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "text.color": INK,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "lines.linewidth": 2.2,
    "lines.solid_capstyle": "round",
}


def figure(rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    """Return a figure of 1600 × 900 and its axes: one, or an array of them."""
    plt.rcParams.update(STYLE)
    return plt.subplots(rows, columns, figsize=(16, 9), **options)


def save(drawn: Figure, results: Path, name: str) -> None:
    """Save as PNG, beside the JSON of the same name."""
    results.mkdir(parents=True, exist_ok=True)
    drawn.savefig(results / f"{name}.png", dpi=100)
    plt.close(drawn)


def label_ends(
    axes: Axes,
    ends: dict[str, float],
    colours: dict[str, str],
    x: float,
    *,
    plus: float = 0.0,
    times: float = 1.0,
) -> None:
    """Write names at the lines' right ends, moved apart if they would touch.

    The least distance is `plus` on a linear axis, and a factor of `times` on a logarithmic one.
    """
    least = None
    for name, y in sorted(ends.items(), key=lambda end: end[1]):
        at = y if least is None else max(y, least)
        least = at * times + plus
        axes.annotate(
            name,
            (x, at),
            xytext=(9, 0),
            textcoords="offset points",
            color=colours[name],
            fontsize=15,
            fontweight="bold" if name == "vrange" else "normal",
            va="center",
            annotation_clip=False,
        )


def ratio_lines(axes: Axes, ratios: dict[str, dict[str, float]]) -> list[str]:
    """Draw a line for each contender, ours on top, and one at 1. Return the cases."""
    cases = list(next(iter(ratios.values())))
    for name, found in ratios.items():
        is_ours = name == "vrange"
        axes.plot(
            range(len(cases)),
            [found[case] for case in cases],
            marker="o",
            linewidth=2.5 if is_ours else 1,
            zorder=3 if is_ours else 2,
            label=name,
        )
    axes.axhline(1, color="black", linewidth=0.8)
    return cases
