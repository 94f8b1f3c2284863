"""The dashboards' files as Grafana reads them: their panels, and their queries with the variables filled in."""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..programs import CONFIG, Prometheus, get

FOLDER = CONFIG / "grafana" / "dashboards"
STEP = 60
"""Seconds between two points of a panel over time, as its minimal interval says."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel of one dashboard."""

    dashboard: str
    data: Mapping[str, Any]

    @property
    def title(self) -> str:
        return str(self.data["title"])

    @property
    def name(self) -> str:
        return f"{self.dashboard}: {self.title}"

    @property
    def targets(self) -> list[Mapping[str, Any]]:
        return list(self.data.get("targets", ()))


def dashboard(name: str) -> dict[str, Any]:
    """A dashboard's file."""
    return dict(json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")))


def panels(name: str) -> list[Panel]:
    """Its panels, without the headings."""
    return [Panel(name, each) for each in dashboard(name)["panels"] if each["type"] != "row"]


NAMES = tuple(sorted(path.stem for path in FOLDER.glob("*.json")))
ALL = [panel for name in NAMES for panel in panels(name)]
ASKING = [panel for panel in ALL if panel.targets]


def find(dashboard: str, title: str) -> Panel:
    """The panel of that title."""
    [found] = [panel for panel in panels(dashboard) if panel.title == title]
    return found


def filled(panel: Panel, expr: str, seconds: int, **chosen: str) -> str:
    """A query as Grafana would send it.

    Args:
        seconds: the length of the chosen time.
        **chosen: variable → what is chosen, instead of all.
    """
    values = {
        each["name"]: each.get("allValue", "")
        for each in dashboard(panel.dashboard)["templating"]["list"]
        if each["type"] == "query"
    }
    values |= {"__range": f"{seconds}s", "__interval": f"{STEP}s", "__rate_interval": f"{seconds}s", **chosen}
    for name in sorted(values, key=len, reverse=True):
        expr = expr.replace(f"${name}", values[name])
    assert "$" not in expr, expr
    return expr


def ask(
    prometheus: Prometheus, panel: Panel, number: int, at: float, seconds: int, **chosen: str
) -> list[dict[str, Any]]:
    """What a query of a panel answers: rows of `metric` and `values`, floats, one where it is asked for one moment."""
    target = panel.targets[number]
    expr = filled(panel, target["expr"], seconds, **chosen)
    if target.get("instant"):
        return [{"metric": row["metric"], "values": [float(row["value"][1])]} for row in prometheus.query(expr, at)]
    times = {"start": repr(at - seconds + STEP), "end": repr(at), "step": str(STEP)}
    answer = json.loads(get(f"{prometheus.url}/api/v1/query_range", query=expr, **times))
    assert answer["status"] == "success", answer
    return [
        {"metric": row["metric"], "values": [float(value) for _, value in row["values"]]}
        for row in answer["data"]["result"]
    ]


def by(rows: list[dict[str, Any]], label: str) -> dict[str, float]:
    """The sums of the values, by a label: what stacked bars and their legend show."""
    sums: dict[str, float] = {}
    for row in rows:
        key = row["metric"].get(label, "")
        sums[key] = sums.get(key, 0.0) + sum(value for value in row["values"] if value == value)
    return sums


def exemplars(prometheus: Prometheus, expr: str, start: float, end: float) -> list[dict[str, Any]]:
    """The exemplars that Grafana would draw for a query."""
    query = urllib.parse.urlencode({"query": expr, "start": repr(start), "end": repr(end)})
    answer = json.loads(get(f"{prometheus.url}/api/v1/query_exemplars?{query}"))
    return [each for series in answer["data"] for each in series["exemplars"]]
