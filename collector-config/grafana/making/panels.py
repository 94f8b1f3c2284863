"""How a panel of ours is made: with a description, a unit, the data source of the variable, and words for no data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import common, heatmap, prometheus, stat, table, text, timeseries
from grafana_foundation_sdk.builders.dashboard import (
    Dashboard,
    DashboardLink,
    DatasourceVariable,
    QueryVariable,
    Row,
    TextBoxVariable,
    ThresholdsConfig,
)
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    GraphDrawStyle,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    GridPos,
    Threshold,
    ThresholdsMode,
    VariableHide,
    VariableOption,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from grafana_foundation_sdk.models.text import TextMode

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
NOTHING = "no data"
USD, SHARE, SECONDS, COUNT, TOKENS = "currencyUSD", "percentunit", "s", "short", "short"

_OUTAGE = "What arrives in one piece after an outage of more than five minutes is in no bar, but in every total."
"""`anchored` looks for the sample before a bar as far back as Prometheus looks for any: five minutes."""

TODAY, MONTH = "now/d", "now/M"
"""Calendar periods of the dashboard's time zone, which is UTC: that of the budgets."""


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a panel.

    Attributes:
        expr: PromQL.
        legend: how its series are called: `{{label}}`.
        exemplars: also ask for the traces behind it.
    """

    expr: str
    legend: str = ""
    exemplars: bool = False


def single(
    title: str, description: str, query: str, unit: str, *, decimals: int = 2, period: str = "", limits: Any = None
) -> stat.Panel:
    """One number.

    Args:
        period: a period of its own instead of the dashboard's.
        limits: values from which it is orange, and red.
    """
    panel = _described(stat.Panel(), title, description, unit, decimals)
    panel = panel.with_target(_instant(Query(query), 0)).graph_mode(BigValueGraphMode.NONE)
    panel = panel.color_mode(BigValueColorMode.VALUE if limits else BigValueColorMode.NONE)
    panel = panel.thresholds(_thresholds(limits)).reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    if period:
        panel = panel.time_from(period)
    return panel.span(4).height(4)


def lines(
    title: str, description: str, queries: list[Query], unit: str, *, decimals: int = 2, bars: bool = False
) -> timeseries.Panel:
    """Values over time; as bars they are stacked, and each is the amount of its own interval."""
    if bars:
        description = f"{description} {_OUTAGE}"
    panel = _described(timeseries.Panel(), title, description, unit, decimals)
    for number, query in enumerate(queries):
        panel = panel.with_target(_over_time(query, number))
    panel = panel.legend(
        common.VizLegendOptions()
        .display_mode(LegendDisplayMode.TABLE)
        .placement(LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs(["sum"] if bars else ["lastNotNull", "max"])
    ).tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
    panel = panel.axis_soft_min(0).interval("1m")
    if bars:
        panel = panel.draw_style(GraphDrawStyle.BARS).fill_opacity(70).line_width(0)
        panel = panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    return panel.span(12).height(8)


def rows(
    title: str,
    description: str,
    columns: dict[str, tuple[str, str, int]],
    labels: dict[str, str],
    *,
    sort: str,
    links: tuple[tuple[str, str, str], ...] = (),
) -> table.Panel:
    """A table: a row for each combination of labels, a column for each query.

    Args:
        columns: the column's name → (query, unit, decimals).
        labels: label → the name of its column.
        sort: the column that it is sorted by, the greatest first.
        links: (column, title, URL).
    """
    panel = _described(table.Panel(), title, description, COUNT, 0)
    renamed = dict(labels)
    for number, (name, (expr, unit, decimals)) in enumerate(columns.items()):
        panel = panel.with_target(_instant(Query(expr), number).format(PromQueryFormat.TABLE))
        # Grafana calls the only value of a table "Value", and those of several "Value #A", "Value #B".
        renamed["Value" if len(columns) == 1 else f"Value #{_ref(number)}"] = name
        panel = panel.override_by_name(
            name, [DynamicConfigValue("unit", unit), DynamicConfigValue("decimals", decimals)]
        )
    for column, name, url in links:
        link = {"title": name, "url": url, "targetBlank": True}
        panel = panel.override_by_name(column, [DynamicConfigValue("links", [link])])
    panel = panel.with_transformation(DataTransformerConfig(id_val="merge", options={}))
    panel = panel.with_transformation(
        DataTransformerConfig(
            id_val="organize",
            options={"excludeByName": {"Time": True}, "renameByName": renamed, "indexByName": {}},
        )
    )
    panel = panel.sort_by([common.TableSortByFieldState().display_name(sort).desc(True)])
    return panel.span(12).height(8)


def spread(title: str, description: str, query: Query, unit: str) -> heatmap.Panel:
    """A histogram over time, with the traces behind it."""
    panel = _described(heatmap.Panel(), title, description, unit, 2)
    target = _over_time(query, 0).format(PromQueryFormat.HEATMAP)
    panel = panel.with_target(target).interval("1m").calculate(False)
    return panel.exemplars_color("rgba(255,0,255,0.7)").span(12).height(8)


def words(title: str, description: str, content: str) -> text.Panel:
    """Markdown."""
    panel = text.Panel().title(title).description(description).datasource(SOURCE)
    return panel.mode(TextMode.MARKDOWN).content(content).span(12).height(8)


def dashboard(uid: str, title: str, description: str, variables: list[Any]) -> Dashboard:
    """A dashboard with our variables, in UTC."""
    made = (
        Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["shekel", "cost"])
        .timezone("utc")
        .time("now-6h", "now")
        .refresh("1m")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .readonly()
        .link(
            DashboardLink("Costs")
            .type(DashboardLinkType.DASHBOARDS)
            .tags(["shekel"])
            .keep_time(True)
            .include_vars(False)
        )
    )
    for variable in [_source(), *variables, _jaeger()]:
        made = made.with_variable(variable)
    return made


def filled(made: Dashboard, *panels: Any) -> Dashboard:
    """A dashboard with these panels and rows in their order, from left to right, each line as high as its highest."""
    x = y = high = 0
    for number, panel in enumerate(panels, 1):
        box = (24, 1) if isinstance(panel, Row) else (panel.build().grid_pos.w, panel.build().grid_pos.h)
        if x + box[0] > 24:
            x, y, high = 0, y + high, 0
        panel = panel.id(number).grid_pos(GridPos(h=box[1], w=box[0], x=x, y=y))
        made = made.with_row(panel) if isinstance(panel, Row) else made.with_panel(panel)
        x, high = x + box[0], max(high, box[1])
    return made


def choice(name: str, label: str, description: str, query: str, everything: str) -> QueryVariable:
    """A variable of label values; several, or all.

    Args:
        query: `label_values(metric, label)`.
        everything: the regular expression that "All" stands for.
    """
    return (
        QueryVariable(name)
        .label(label)
        .description(description)
        .datasource(SOURCE)
        .query({"query": query, "refId": name, "qryType": 1})
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(everything)
        .current(VariableOption(text="All", value="$__all", selected=True))
    )


def row(title: str) -> Row:
    """A heading."""
    return Row(title)


def _source() -> DatasourceVariable:
    return DatasourceVariable("datasource").label("Prometheus").type("prometheus")


def _jaeger() -> TextBoxVariable:
    address = "http://127.0.0.1:16686"
    return (
        TextBoxVariable("jaeger")
        .label("Jaeger")
        .description("The address of Jaeger's pages, as your browser sees it; links lead there.")
        .default_value(address)
        .current(VariableOption(text=address, value=address, selected=True))
        .hide(VariableHide.DONT_HIDE)
    )


def _described(panel: Any, title: str, description: str, unit: str, decimals: int) -> Any:
    panel = panel.title(title).description(description).datasource(SOURCE)
    return panel.unit(unit).decimals(decimals).no_value(NOTHING)


def _thresholds(limits: Any) -> ThresholdsConfig:
    steps = [Threshold(value=None, color="green")]
    if limits:
        steps += [Threshold(value=limits[0], color="orange"), Threshold(value=limits[1], color="red")]
    return ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def _instant(query: Query, number: int) -> prometheus.Dataquery:
    return _query(query, number).instant()


def _over_time(query: Query, number: int) -> prometheus.Dataquery:
    return _query(query, number).range().exemplar(query.exemplars)


def _query(query: Query, number: int) -> prometheus.Dataquery:
    made = prometheus.Dataquery().datasource(SOURCE).expr(query.expr).ref_id(_ref(number))
    return made.legend_format(query.legend) if query.legend else made


def _ref(number: int) -> str:
    return chr(ord("A") + number)
