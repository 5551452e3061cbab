"""What the dashboards show, apart from how Grafana is told: panels, expressions and units.

Tests ask a real Prometheus for every expression here, and the documentation's picture is drawn from
them, so there is one list and nothing to keep in step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Unit = Literal["s", "bytes", "Bps", "percentunit", "reqps", "cps", "short"]
Draw = Literal["lines", "stacked", "heatmap", "stat", "table"]

OF = 'job=~"$job",instance=~"$instance"'
NAMED = f'{OF},name=~"$name"'
WINDOW = "[$__rate_interval]"


@dataclass(frozen=True)
class Query:
    """An expression, and how a series of it is called in the legend."""

    expression: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """One panel. `wide` panels take a row's whole width."""

    title: str
    description: str
    unit: Unit
    queries: tuple[Query, ...]
    draw: Draw = "lines"
    wide: bool = False


@dataclass(frozen=True)
class Dashboard:
    """One dashboard. `named` ones have a variable for the name of caches."""

    uid: str
    title: str
    description: str
    panels: tuple[Panel, ...]
    named: bool = False


def _rate(metric: str, by: str = "", where: str = OF) -> str:
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} (rate({metric}{{{where}}}{WINDOW}))"


def _quantile(quantile: float, metric: str, by: str, where: str = OF) -> str:
    return f"histogram_quantile({quantile}, {_rate(metric + '_bucket', f'le, {by}', where)})"


def _quantiles(metric: str, by: str, where: str = OF) -> tuple[Query, ...]:
    return tuple(
        Query(_quantile(quantile, metric, by, where), f"p{quantile * 100:g} {{{{{by}}}}}")
        for quantile in (0.5, 0.99)
    )


def _heat(metric: str, where: str = OF) -> tuple[Query, ...]:
    return (Query(f"sum by (le) (increase({metric}_bucket{{{where}}}{WINDOW}))", "{{le}}"),)


REQUESTS = "vrange_cache_requests_total"
ALL_HITS = f'{OF},outcome=~"hot|resident|waited|peer"'
HITS = f'{NAMED},outcome=~"hot|resident|waited|peer"'
PURGED = f'{NAMED},outcome="purged"'
FREE = "vrange_time_to_free_seconds"
REALLOCATE = "vrange_time_to_reallocate_seconds"
REGENERATE = "vrange_regenerate_seconds"

_HIT_RATIO = f"{_rate(REQUESTS, 'name', HITS)} / {_rate(REQUESTS, 'name', NAMED)}"
_MEAN_COST = (
    f"{_rate(REGENERATE + '_sum', 'name', NAMED)} / {_rate(REGENERATE + '_count', 'name', NAMED)}"
)

OVERVIEW = Dashboard(
    uid="vrange-overview",
    title="vrange: overview",
    description="Whether memory comes back when somebody needs it, and how fast it is had again.",
    panels=(
        Panel(
            "Hit ratio",
            "Requests answered without computing.",
            "percentunit",
            (
                Query(
                    f"{_rate(REQUESTS, '', ALL_HITS)} / {_rate(REQUESTS)}",
                    "hits",
                ),
            ),
            draw="stat",
        ),
        Panel(
            "Rung",
            "The mechanism in use: refault is the best, eager leaves nothing to the kernel.",
            "short",
            (Query(f"sum by (rung, kernel) (vrange_info{{{OF}}})", "{{rung}}, Linux {{kernel}}"),),
            draw="stat",
        ),
        Panel(
            "Requests of caches by outcome",
            "hot: from what the cache holds; resident: from volatile memory; purged: the kernel "
            "took it; miss: not cached.",
            "reqps",
            (Query(_rate(REQUESTS, "outcome"), "{{outcome}}"),),
            draw="stacked",
        ),
        Panel(
            "Bytes by state",
            "Offered bytes are the kernel's to take at any moment, idle ones follow.",
            "bytes",
            (Query(f'sum by (state) (vrange_bytes{{{OF},state!="hot"}})', "{{state}}"),),
            draw="stacked",
        ),
        Panel(
            "Time-to-free",
            "released: what the caller waited. offered: until the kernel could take it.",
            "s",
            _quantiles(FREE, "stage"),
        ),
        Panel(
            "Time-to-reallocate",
            "resident: all was there. purged: lost, until it was put back.",
            "s",
            _quantiles(REALLOCATE, "outcome"),
        ),
        Panel(
            "Purged",
            "What the kernel took because somebody else needed it.",
            "Bps",
            (Query(_rate("vrange_purged_bytes_total", "instance"), "{{instance}}"),),
        ),
        Panel(
            "Refaults",
            "Touches of purged pages that were answered.",
            "cps",
            (Query(_rate("vrange_refaults_total", "instance"), "{{instance}}"),),
        ),
        Panel(
            "Time-to-free, released, as a heatmap",
            "Where callers' waits lie; a second band is a second reason.",
            "s",
            _heat(FREE, OF + ',stage="released"'),
            draw="heatmap",
        ),
        Panel(
            "Time-to-reallocate as a heatmap",
            "Upper band: content that was lost and put back.",
            "s",
            _heat(REALLOCATE),
            draw="heatmap",
        ),
    ),
)

CACHE = Dashboard(
    uid="vrange-cache",
    title="vrange: caches",
    description="Each cache by name: what it answers, what it loses, and whether it is worth it.",
    named=True,
    panels=(
        Panel(
            "Hit ratio by cache",
            "Requests answered without computing.",
            "percentunit",
            (Query(_HIT_RATIO, "{{name}}"),),
        ),
        Panel(
            "Lost to the kernel by cache",
            "Share of the requests whose value had been cached and was taken.",
            "percentunit",
            (
                Query(
                    f"{_rate(REQUESTS, 'name', PURGED)} / {_rate(REQUESTS, 'name', NAMED)}",
                    "{{name}}",
                ),
            ),
        ),
        Panel(
            "Requests by cache and outcome",
            "A second's requests.",
            "reqps",
            (Query(_rate(REQUESTS, "name, outcome", NAMED), "{{name}} {{outcome}}"),),
            draw="stacked",
        ),
        Panel(
            "Bytes by cache and state",
            "hot is what the cache holds itself: a part of pinned, and objects outside ranges.",
            "bytes",
            (
                Query(
                    f"sum by (name, state) (vrange_bytes{{{NAMED}}})",
                    "{{name}} {{state}}",
                ),
            ),
        ),
        Panel(
            "Computing a value: mean by cache",
            "What a miss or a loss costs.",
            "s",
            (Query(_MEAN_COST, "{{name}}"),),
        ),
        Panel(
            "Computing a value: quantiles by cache",
            "Buckets are four octaves wide: coarse, but enough to see two kinds of values.",
            "s",
            _quantiles(REGENERATE, "name", NAMED),
        ),
        Panel(
            "Time saved by hits, and time spent computing",
            "Seconds a second. A cache whose spent line is above its saved line is not worth it.",
            "short",
            (
                Query(
                    f"{_rate(REQUESTS, 'name', HITS)} * ({_MEAN_COST})",
                    "{{name}} saved",
                ),
                Query(_rate(REGENERATE + "_sum", "name", NAMED), "{{name}} spent"),
            ),
        ),
        Panel(
            "Computing a value as a heatmap",
            "All chosen caches together.",
            "s",
            _heat(REGENERATE, NAMED),
            draw="heatmap",
        ),
    ),
)

_STACK = f'{OF},kind="stack"'

STACKS = Dashboard(
    uid="vrange-stacks",
    title="vrange: stacks",
    description="Deep calls: how far down they go, and what is given back.",
    panels=(
        Panel(
            "Nearest to a stack's end",
            "High-water mark as a share of its stack, for the deep stack that came nearest.",
            "percentunit",
            (
                Query(
                    f"max by (instance) (vrange_stack_high_water_bytes{{{OF}}} / "
                    f"vrange_stack_limit_bytes{{{OF}}})",
                    "{{instance}}",
                ),
            ),
        ),
        Panel(
            "High-water mark and size of that stack",
            "In bytes.",
            "bytes",
            (
                Query(f"max by (instance) (vrange_stack_high_water_bytes{{{OF}}})", "used"),
                Query(f"max by (instance) (vrange_stack_limit_bytes{{{OF}}})", "size"),
            ),
        ),
        Panel(
            "Given back",
            "Bytes of stacks offered or discarded.",
            "Bps",
            (Query(_rate("vrange_stack_returned_bytes_total", "instance"), "{{instance}}"),),
        ),
        Panel(
            "Trims",
            "Trims of stacks and heaps that gave something back.",
            "cps",
            (Query(_rate("vrange_trims_total", "instance"), "{{instance}}"),),
        ),
        Panel(
            "Giving a stack back",
            "Time-to-free of stacks.",
            "s",
            _quantiles(FREE, "stage", _STACK),
        ),
        Panel(
            "Having a stack again",
            "Time-to-reallocate of stacks.",
            "s",
            _quantiles(REALLOCATE, "outcome", _STACK),
        ),
    ),
)

MEMORY = Dashboard(
    uid="vrange-memory",
    title="vrange: process memory",
    description="The memory limit, what of the usage the kernel may take, and what it may not.",
    panels=(
        Panel(
            "Usage and limit",
            "Of what the tightest limit limits: a cgroup, or the machine.",
            "bytes",
            (
                Query(f"vrange_memory_usage_bytes{{{OF}}}", "usage"),
                Query(f"vrange_memory_limit_bytes{{{OF}}}", "limit"),
            ),
        ),
        Panel(
            "The kernel's to take at any moment",
            "Resident all the same, and counted as usage: LazyFree of /proc/PID/smaps_rollup.",
            "bytes",
            (Query(f"sum by (instance) (vrange_process_lazyfree_bytes{{{OF}}})", "{{instance}}"),),
        ),
        Panel(
            "Pressure",
            "How near the limit is, what the kernel can take at once left out: 0 normal, "
            "1 elevated, 2 critical.",
            "short",
            (Query(f"max by (instance) (vrange_pressure_level{{{OF}}})", "{{instance}}"),),
        ),
        Panel(
            "Done under pressure",
            "What the watcher did as the level changed: hot values let go, stacks and heap "
            "trimmed, callbacks called.",
            "cps",
            (
                Query(
                    _rate("vrange_pressure_actions_total", "action, outcome"),
                    "{{action}}, {{outcome}}",
                ),
            ),
        ),
        Panel(
            "What can't be taken",
            "Pinned bytes and hot objects as a share of the limit. Past a third a process begins "
            "to be in danger.",
            "percentunit",
            (
                Query(
                    f'sum by (instance) (vrange_bytes{{{OF},state=~"pinned|object"}}) / '
                    f"max by (instance) (vrange_memory_limit_bytes{{{OF}}})",
                    "{{instance}}",
                ),
            ),
        ),
        Panel(
            "Bytes by name",
            "Of caches, arrays and arenas, whatever their state.",
            "bytes",
            (
                Query(
                    f'sum by (name) (vrange_bytes{{{OF},state=~"pinned|idle|offered"}})',
                    "{{name}}",
                ),
            ),
            draw="stacked",
        ),
        Panel(
            "Until the kernel could take it, as a heatmap",
            "Time-to-free, stage offered: how long what is released stays out of the kernel's "
            "reach.",
            "s",
            _heat(FREE, OF + ',stage="offered"'),
            draw="heatmap",
        ),
        Panel(
            "Processes",
            "Workers in the figures.",
            "short",
            (Query(f"sum by (instance) (vrange_processes{{{OF}}})", "{{instance}}"),),
        ),
    ),
)

DASHBOARDS = (OVERVIEW, CACHE, STACKS, MEMORY)
