"""The dashboards as Grafana's JSON, by grafana-foundation-sdk."""

from __future__ import annotations

from string import ascii_uppercase
from typing import Any

from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import heatmap as heatmap_models
from grafana_foundation_sdk.models import prometheus as prometheus_models

from dashboards.panels import DASHBOARDS, Dashboard, Panel, Query

SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
TAG = "vrange"
COLUMNS, HALF, HEIGHT = 24, 12, 8


def _target(query: Query, letter: str, draw: str) -> prometheus.Dataquery:
    # Grafana's backend tells the answers to a panel's queries apart by refId only.
    target = prometheus.Dataquery().expr(query.expression).legend_format(query.legend)
    target = target.ref_id(letter)
    if draw == "heatmap":
        return target.format(prometheus_models.PromQueryFormat.HEATMAP)
    return target


def _panel(panel: Panel, place: int) -> Any:
    built: Any
    if panel.draw == "heatmap":
        # The buckets come from Prometheus: Grafana must not compute its own.
        colours = (
            heatmap.HeatmapColorOptions()
            .mode(heatmap_models.HeatmapColorMode.SCHEME)
            .scheme("Blues")
            .scale(heatmap_models.HeatmapColorScale.EXPONENTIAL)
            .steps(64)
        )
        y_axis = heatmap.YAxisConfig().unit(panel.unit)
        built = heatmap.Panel().calculate(False).color(colours).y_axis(y_axis)
    elif panel.draw == "stat":
        built = stat.Panel().unit(panel.unit)
    else:
        built = timeseries.Panel().unit(panel.unit).min(0)
        if panel.draw == "stacked":
            stacking = common.StackingConfig().mode(common_models.StackingMode.NORMAL)
            built = built.stacking(stacking).fill_opacity(40)
    built = built.id(place + 1).title(panel.title).description(panel.description)
    built = built.datasource(SOURCE)
    for letter, query in zip(ascii_uppercase, panel.queries, strict=False):
        built = built.with_target(_target(query, letter, panel.draw))
    return built.grid_pos(
        models.GridPos(h=HEIGHT, w=HALF, x=HALF * (place % 2), y=HEIGHT * (place // 2))
    )


def _label_variable(name: str, metric: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .datasource(SOURCE)
        .query(f"label_values({metric}, {name})")
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(models.VariableOption(selected=True, text="All", value="$__all"))
    )


def _links() -> dashboard.DashboardLink:
    """Return a menu of all dashboards that have our tag, with the range and the variables kept."""
    return (
        dashboard.DashboardLink("vrange")
        .type(models.DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .as_dropdown(True)
        .keep_time(True)
        .include_vars(True)
    )


def build(shown: Dashboard) -> str:
    """Return a dashboard's JSON, as it is committed."""
    builder = (
        dashboard.Dashboard(shown.title)
        .uid(shown.uid)
        .description(shown.description)
        .tags([TAG])
        .links([_links()])
        .time("now-1h", "now")
        .refresh("30s")
        .with_variable(dashboard.DatasourceVariable("datasource").type("prometheus"))
        .with_variable(_label_variable("job", "vrange_info"))
        .with_variable(_label_variable("instance", 'vrange_info{job=~"$job"}'))
    )
    if shown.named:
        metric = 'vrange_cache_requests_total{job=~"$job",instance=~"$instance"}'
        builder = builder.with_variable(_label_variable("name", metric))
    for place, panel in enumerate(shown.panels):
        builder = builder.with_panel(_panel(panel, place))
    return JSONEncoder(sort_keys=True, indent=2).encode(builder.build()) + "\n"


def files() -> dict[str, str]:
    """Return the committed files: name and content."""
    return {f"{shown.uid.removeprefix('vrange-')}.json": build(shown) for shown in DASHBOARDS}
