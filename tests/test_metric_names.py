"""Every metric and label that dashboards, rules and pages name is one that exists: a rename here fails there.

What exists: the instruments that Shekel makes, in the names that Prometheus gives them; the collector's own, read from
collector.yaml; the rules' own. Nothing runs but Shekel's instruments.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.metrics import NoOpMeter

from shekel.telemetry import names
from shekel.telemetry.metrics import Instruments

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "collector-config"

NOT_YET = {names.METRIC_PRICES_AGE: ("gauge", "s"), names.METRIC_LEDGER_AVAILABLE: ("gauge", "")}
"""Names that are fixed, and that nothing records yet: kind and unit as they will be."""

SCOPE_LABELS = {"tenant_id"}
"""Scope keys that the example allows on metrics."""
TARGET_LABELS = {"job", "instance", "le"}
COLLECTOR_LABELS = {"exporter", "receiver", "processor"}
"""Labels of the collector's metrics of itself, `otelcol_…`."""


def prometheus_name(name: str, kind: str, unit: str) -> list[str]:
    """What the collector's Prometheus exporter calls a metric: units in braces add nothing, seconds are spelt out."""
    text = name.replace(".", "_") + {"s": "_seconds"}.get(unit, "")
    if kind == "histogram":
        return [f"{text}_{part}" for part in ("bucket", "sum", "count")]
    return [f"{text}_total" if kind == "counter" and not text.endswith("_total") else text]


class Listing(NoOpMeter):
    """A meter that notes what is made of it."""

    def __init__(self) -> None:
        super().__init__("shekel")
        self.made: dict[str, tuple[str, str]] = {}

    def create_counter(self, name: str, unit: str = "", description: str = "") -> Any:
        self.made[name] = ("counter", unit)
        return super().create_counter(name, unit, description)

    def create_histogram(self, name: str, unit: str = "", description: str = "", **more: Any) -> Any:
        self.made[name] = ("histogram", unit)
        return super().create_histogram(name, unit, description, **more)

    def create_observable_counter(self, name: str, *args: Any, unit: str = "", **more: Any) -> Any:
        self.made[name] = ("counter", unit)
        return super().create_observable_counter(name, *args, unit=unit, **more)

    def create_observable_gauge(self, name: str, *args: Any, unit: str = "", **more: Any) -> Any:
        self.made[name] = ("gauge", unit)
        return super().create_observable_gauge(name, *args, unit=unit, **more)


def instruments() -> dict[str, tuple[str, str]]:
    """Each metric that Shekel records: name → kind and unit."""
    meter = Listing()
    Instruments(meter, lambda: ())
    return {**NOT_YET, **meter.made}


def known_metrics() -> set[str]:
    own = {each for name, (kind, unit) in instruments().items() for each in prometheus_name(name, kind, unit)}
    text = (CONFIG / "collector.yaml").read_text()
    traced = {f"{name.replace('.', '_')}_total" for name in re.findall(r"- name: (shekel\.traced\.[\w.]+)", text)}
    rules = "".join(path.read_text() for path in (CONFIG / "prometheus" / "rules").glob("*.yml"))
    recorded = set(re.findall(r"record: (\S+)", rules))
    assert traced
    assert recorded
    return own | traced | recorded


def known_labels() -> set[str]:
    return (
        {
            value.replace(".", "_")
            for name, value in vars(names).items()
            if name.isupper() and isinstance(value, str) and re.fullmatch(r"[a-z_.]+", value)
        }
        | TARGET_LABELS
        | SCOPE_LABELS
    )


def queries() -> dict[str, str]:
    """Each query of dashboards and rules, by where it stands."""
    found: dict[str, str] = {}
    for path in sorted((CONFIG / "grafana" / "dashboards").glob("*.json")):
        board = json.loads(path.read_text())
        for panel in board["panels"]:
            for target in panel.get("targets", ()):
                found[f"{path.name}: {panel['title']} {target['refId']}"] = target["expr"]
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                found[f"{path.name}: ${variable['name']}"] = variable["query"]["query"]
    for path in sorted((CONFIG / "prometheus" / "rules").glob("*.yml")):
        text = re.sub(r"^\s*#.*$", "", path.read_text(), flags=re.MULTILINE)
        for number, match in enumerate(re.finditer(r"\bexpr:\s*(?:\|[-+]?\n)?((?:.+\n)(?:\s{10,}.*\n)*)", text)):
            found[f"{path.name}: rule {number}"] = match[1]
    return found


def metrics_in(text: str) -> set[str]:
    """Names that look like a metric of ours."""
    return set(re.findall(r"\b((?:shekel|gen_ai_client)[_:][\w:]+)", re.sub(r'"[^"]*"', '""', _outside(text))))


def labels_in(text: str) -> set[str]:
    """Labels that are matched, grouped by or drawn."""
    inside = [part for part in re.findall(r"\{([^{}]*)\}", text) if not part.startswith("{")]
    found = {label for part in inside for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", part)}
    for group in re.findall(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)", text):
        found |= {label.strip() for label in group.split(",") if label.strip()}
    found |= set(re.findall(r"label_values\(.*,\s*(\w+)\)", text))
    return found - {"__name__"}


def _outside(text: str) -> str:
    """A query without its matchers and groupings, in which names are labels."""
    text = re.sub(r'\{__name__=~"([^"]*)"[^}]*\}', lambda match: match[1].replace("|", " "), text)
    text = re.sub(r"\{[^{}]*\}", " ", text)
    text = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", text)
    return re.sub(r"label_values\((.*),\s*\w+\)", r"\1", text)


@pytest.mark.parametrize(("where", "query"), queries().items(), ids=queries().keys())
def test_a_query_names_what_exists(where: str, query: str) -> None:
    assert metrics_in(query) <= known_metrics()
    # `without` of the rules also drops what Prometheus itself adds.
    added = {"otel_scope_name", "otel_scope_version", "otel_scope_schema_url"}
    if "otelcol_" in query:
        added |= COLLECTOR_LABELS
    assert labels_in(query) <= known_labels() | added


def test_there_are_queries_and_they_name_much() -> None:
    every = queries()
    assert len(every) > 60
    used = set().union(*(metrics_in(query) for query in every.values()))
    assert {"shekel_cost_total", "shekel_traced_cost_total", "shekel_budget_limit"} <= used
    assert {"gen_ai_client_operation_cost_bucket", "shekel:budget:hours_to_limit"} <= used


@pytest.mark.parametrize(
    ("name", "kind", "unit", "expected"),
    [
        ("shekel.cost", "counter", "{USD}", ["shekel_cost_total"]),
        ("shekel.budget.limit", "gauge", "{USD}", ["shekel_budget_limit"]),
        ("shekel.prices.age", "gauge", "s", ["shekel_prices_age_seconds"]),
    ],
)
def test_the_translation(name: str, kind: str, unit: str, expected: Iterable[str]) -> None:
    assert prometheus_name(name, kind, unit) == expected


def test_a_rename_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "METRIC_SPEND", "shekel.money")
    monkeypatch.setattr(names, "BUDGET_NAME", "shekel.purse")
    assert "shekel_cost_total" not in known_metrics()
    assert "shekel_budget_name" not in known_labels()


def pages() -> list[Path]:
    return [
        CONFIG / "README.md",
        CONFIG / "jaeger" / "searches.md",
        *sorted((CONFIG / "prometheus").glob("*.md")),
        *sorted((CONFIG / "grafana" / "making").glob("*.py")),
    ]


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_a_page_names_what_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    attributes = {value for name, value in vars(names).items() if name.isupper() and isinstance(value, str)}
    metrics = known_metrics() | set(instruments()) | known_labels() | attributes
    spans = set(re.findall(r"- name: (shekel\.traced\.[\w.]+)", (CONFIG / "collector.yaml").read_text()))
    for quoted in re.findall(r"`([^`\n]+)`", text):
        for word in re.findall(r"\b((?:shekel|gen_ai)[._:][\w.:]+\w)", quoted):
            if not re.match(r"shekel\.(configure|testing|scope|cli)", word):
                family = any(each.startswith(f"{word}:") for each in metrics)  # `shekel:spend_usd:*`
                assert family or word in metrics | spans, f"{page.name} names {word}"
    # The searches of Jaeger: attributes of spans, and the tags that jaeger.yaml adds.
    tags = set(re.findall(r"key: (cost\.over\.[\d.]+)", (CONFIG / "jaeger" / "jaeger.yaml").read_text()))
    for word in re.findall(r"%22([a-z_]+\.[\w.]+)%22%3A", text):
        assert word in attributes | tags, f"{page.name} searches for {word}"


def test_the_pages_of_jaeger_link_attributes_that_exist() -> None:
    config = json.loads((CONFIG / "jaeger" / "ui-config.json").read_text())
    attributes = {value for name, value in vars(names).items() if name.isupper() and isinstance(value, str)}
    for link in config["linkPatterns"]:
        assert link["key"] in attributes
        # Only a tag's own value is surely there: without one that it names, Jaeger draws no link.
        assert set(re.findall(r"#\{([^}]+)\}", link["url"])) == {link["key"]}
    for prefix in config["topTagPrefixes"]:
        assert any(each.startswith(prefix) for each in attributes), prefix
