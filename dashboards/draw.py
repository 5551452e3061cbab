"""Draws panels from what a real Prometheus stored of the example: `python -m dashboards.draw FILE`.

It is what Grafana would show, as far as lines and heatmaps go, for where no Grafana is at hand.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from examples.thumbnails.running import Load, Prometheus, Service, free_port

from dashboards.panels import CACHE, OVERVIEW, Panel

SECONDS, STEP = 75, 1.0
SHOWN = (
    *(panel for panel in OVERVIEW.panels if panel.draw != "stat" and panel.title != "Refaults"),
    *(panel for panel in CACHE.panels if panel.title.startswith(("Hit ratio", "Time saved"))),
)
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#AA4499", "#E69F00", "#56B4E9", "#7A7A7A")


def main() -> int:
    """Run the example for a while, and draw."""
    file = Path(sys.argv[1])
    with tempfile.TemporaryDirectory(prefix="vrange-draw-") as name:
        directory = Path(name)
        environment = {"VRANGE_RUNTIME_DIR": name}
        with (
            Service("gunicorn", free_port(), directory, **environment) as service,
            Prometheus([service.target], directory) as prometheus,
        ):
            began = time.time()
            with Load(service, pause=0.002):
                for second in range(SECONDS):
                    time.sleep(1)
                    # Memory runs short in the middle third, so to say.
                    if SECONDS / 3 < second < 2 * SECONDS / 3:
                        service.discard()
            time.sleep(1.5)
            draw(prometheus, began, time.time(), file)
    return 0


def draw(prometheus: Prometheus, began: float, ended: float, file: Path) -> None:
    """All panels into one picture."""
    rows = math.ceil(len(SHOWN) / 2)
    plt.rcParams.update(
        {"font.family": "DejaVu Sans", "font.size": 10, "axes.titlelocation": "left"}
    )
    figure, places = plt.subplots(rows, 2, figsize=(16, 3.2 * rows), layout="constrained")
    for panel, axes in zip(SHOWN, places.flat, strict=False):
        _draw_panel(prometheus, panel, axes, began, ended)
    for axes in list(places.flat)[len(SHOWN) :]:
        axes.axis("off")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=80)


def _draw_panel(
    prometheus: Prometheus, panel: Panel, axes: Any, began: float, ended: float
) -> None:
    axes.set_title(panel.title, fontweight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    told: list[tuple[str, np.ndarray, np.ndarray]] = []
    for query in panel.queries:
        expression = query.expression.replace("$__rate_interval", "5s")
        for variable in ("$job", "$instance", "$name"):
            expression = expression.replace(variable, ".*")
        for series in prometheus.query_range(expression, began, ended, STEP):
            legend = query.legend
            for label, value in series["metric"].items():
                legend = legend.replace(f"{{{{{label}}}}}", value)
            points = np.array([[float(x), float(y)] for x, y in series["values"]])
            told.append((legend, points[:, 0] - began, points[:, 1]))
    if panel.draw == "heatmap":
        _heatmap(axes, told)
        return
    if panel.draw == "stacked":
        at = np.arange(0, ended - began, STEP)
        heights = [np.interp(at, x, y, left=0, right=0) for _, x, y in told]
        axes.stackplot(at, heights, labels=[name for name, _, _ in told], colors=COLOURS, alpha=0.7)
    else:
        for place, (name, x, y) in enumerate(told):
            axes.plot(x, y, label=name, color=COLOURS[place % len(COLOURS)], lw=1.6)
    if panel.unit == "s":
        axes.set_yscale("log")
        axes.set_ylabel("seconds")
    elif panel.unit == "percentunit":
        axes.set_ylim(0, 1.02)
        axes.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0))
    elif panel.unit in ("bytes", "Bps"):
        axes.yaxis.set_major_formatter(lambda value, _: f"{value / 2**20:.0f} MiB")
    axes.set_xlim(0, ended - began)
    axes.legend(fontsize=8, frameon=False, loc="upper left", ncols=2)


def _heatmap(axes: Any, told: list[tuple[str, np.ndarray, np.ndarray]]) -> None:
    bounds = sorted((float(le), x, y) for le, x, y in told if le != "+Inf")
    times = bounds[-1][1]
    below = np.array([np.interp(times, x, y) for _, x, y in bounds])
    counts = np.diff(below, axis=0, prepend=0)
    counts[counts <= 0] = np.nan
    edges = [bound for bound, _, _ in bounds]
    norm = matplotlib.colors.LogNorm()
    axes.pcolormesh(times, edges, counts, cmap="Blues", norm=norm, shading="nearest")
    axes.set_yscale("log")
    axes.set_ylabel("seconds")


if __name__ == "__main__":
    sys.exit(main())
