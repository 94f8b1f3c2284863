"""Every query of every dashboard answers from the real Prometheus; what it says of money is what the ledger says."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
import time
from calendar import monthrange
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

from shekel.telemetry import names

from ..programs import CONFIG, get, wait_for
from .conftest import CENT, Run
from .panels import ALL, ASKING, NAMES, Panel, ask, by, dashboard, exemplars, filled, find

SPAN = 900
"""Seconds that the panels are asked for: longer than the run."""

RULES = ("shekel:budget:burn_usd_per_hour", "shekel:budget:hours_to_limit")


def total(rows: list[dict[str, Any]]) -> float:
    return sum(sum(row["values"]) for row in rows)


@pytest.fixture(scope="session")
def ruled(ran: Run) -> float:
    """A moment when the rules, which are evaluated every minute, have seen the whole run; seconds since 1970."""

    def seen() -> float:
        now = time.time()
        spent = ran.prometheus.value('sum(shekel:budget:spend_usd:increase1h{shekel_budget_name="app"})', now) or 0.0
        return now if abs(spent - ran.load.spent_usd) < CENT else 0.0

    return float(wait_for("rules over the whole run", seen, 170))


@pytest.fixture(scope="session")
def told(ran: Run) -> Iterator[float]:
    """When Prometheus has what three processes of two services tell: 4, 4 and 3 USD of 10; seconds since 1970."""
    providers = []
    for number, (service, spent) in enumerate((("shop", 4.0), ("shop", 4.0), ("desk", 3.0))):
        exporter = OTLPMetricExporter(endpoint=f"{ran.collector.otlp_http}/v1/metrics")
        reader = PeriodicExportingMetricReader(exporter, export_interval_millis=1000)
        process = {"service.name": service, "service.instance.id": f"process {number}"}
        provider = MeterProvider([reader], Resource.create(process))
        meter = provider.get_meter(names.SCOPE)
        for metric, value in (
            (names.METRIC_BUDGET_SPENT, spent),
            (names.METRIC_BUDGET_LIMIT, 10.0),
            (names.METRIC_BUDGET_HELD, 0.0),
        ):
            rows = [
                Observation(value, {names.BUDGET_NAME: name, names.LEDGER_KIND: kind})
                for name, kind in (("together", "redis"), ("apart", "memory"))
            ]
            meter.create_observable_gauge(metric, [lambda options, rows=rows: rows], unit=names.UNIT_USD)
        providers.append(provider)

    def there() -> float:
        now = time.time()
        known = ran.prometheus.value('count(shekel_budget_spent{shekel_budget_name=~"together|apart"})', now)
        return now if known == 6 else 0.0

    try:
        yield float(wait_for("what three processes tell", there))
    finally:
        for provider in providers:
            provider.shutdown()


class TestFiles:
    def test_writing_them_again_changes_nothing(self) -> None:
        pytest.importorskip("grafana_foundation_sdk")
        done = subprocess.run(
            [sys.executable, str(CONFIG / "grafana" / "dashboards.py"), "--check"], capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (0, "")

    def test_a_changed_file_is_named(self, tmp_path: Any) -> None:
        pytest.importorskip("grafana_foundation_sdk")
        copy = tmp_path / "grafana"
        shutil.copytree(CONFIG / "grafana", copy)
        file = copy / "dashboards" / "cost.json"
        file.write_text(file.read_text().replace("shekel_cost_total", "shekel_total"))
        done = subprocess.run([sys.executable, str(copy / "dashboards.py"), "--check"], capture_output=True, text=True)
        assert done.returncode == 1
        assert "cost.json" in done.stderr

    @pytest.mark.parametrize("name", NAMES)
    def test_the_sdks_own_types_read_a_dashboard(self, name: str) -> None:
        model = pytest.importorskip("grafana_foundation_sdk.models.dashboard")
        read = model.Dashboard.from_json(dashboard(name))
        assert read.uid == f"shekel-{name}"
        assert len(read.panels) == len(dashboard(name)["panels"])

    @pytest.mark.parametrize("panel", ALL, ids=lambda panel: panel.name)
    def test_a_panel_says_what_it_is_and_asks_the_chosen_source(self, panel: Panel) -> None:
        assert len(panel.data["description"]) > 20 or panel.data["type"] == "text"
        assert panel.data["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel.targets)
        if panel.data["type"] != "text":
            defaults = panel.data["fieldConfig"]["defaults"]
            assert defaults["unit"]
            assert defaults["noValue"] == "no data"
            assert defaults["decimals"] >= 0, "sums of floats have many digits: round where people read"

    @pytest.mark.parametrize("name", NAMES)
    def test_ids_are_unique_and_panels_do_not_overlap(self, name: str) -> None:
        every = dashboard(name)["panels"]
        assert len({each["id"] for each in every}) == len(every)
        taken: set[tuple[int, int]] = set()
        for each in every:
            box = each["gridPos"]
            cells = {(x, y) for x in range(box["x"], box["x"] + box["w"]) for y in range(box["y"], box["y"] + box["h"])}
            assert not taken & cells, each["title"]
            assert box["x"] + box["w"] <= 24
            taken |= cells


class TestEveryQuery:
    @pytest.mark.parametrize("panel", ASKING, ids=lambda panel: panel.name)
    def test_it_answers_with_numbers(self, panel: Panel, ran: Run, request: pytest.FixtureRequest) -> None:
        for number, target in enumerate(panel.targets):
            late = any(rule in target["expr"] for rule in RULES)
            at = request.getfixturevalue("ruled") if late else ran.at
            rows = ask(ran.prometheus, panel, number, at, SPAN)
            assert rows, filled(panel, target["expr"], SPAN)
            values = [value for row in rows for value in row["values"]]
            assert any(math.isfinite(value) for value in values)
            assert all(value >= 0 for value in values if math.isfinite(value))

    @pytest.mark.parametrize("panel", ASKING, ids=lambda panel: panel.name)
    @pytest.mark.parametrize("chosen", [{"service": "nobody"}, {"service": ""}], ids=["unknown", "blank"])
    def test_a_service_without_data_shows_nothing(self, panel: Panel, chosen: dict[str, str], ran: Run) -> None:
        for number, target in enumerate(panel.targets):
            rows = ask(ran.prometheus, panel, number, ran.at, SPAN, **chosen)
            assert rows == [], filled(panel, target["expr"], SPAN, **chosen)

    @pytest.mark.parametrize("panel", ASKING, ids=lambda panel: panel.name)
    def test_a_model_or_budget_that_is_not_there_shows_nothing(self, panel: Panel, ran: Run) -> None:
        for number, target in enumerate(panel.targets):
            if "$model" in target["expr"] or "$budget" in target["expr"]:
                rows = ask(ran.prometheus, panel, number, ran.at, SPAN, model="no-model", budget="no-budget")
                if panel.title == "Stopped":
                    rows = [row for row in rows if row["values"] != [0.0]]
                assert rows == [], filled(panel, target["expr"], SPAN)

    @pytest.mark.parametrize("panel", ASKING, ids=lambda panel: panel.name)
    def test_before_the_first_call_there_is_nothing(self, panel: Panel, ran: Run) -> None:
        for number in range(len(panel.targets)):
            assert ask(ran.prometheus, panel, number, ran.began - 3600, SPAN) == []

    @pytest.mark.parametrize("name", NAMES)
    def test_variables_offer_what_there_is(self, name: str, ran: Run) -> None:
        for variable in dashboard(name)["templating"]["list"]:
            if variable["type"] != "query":
                continue
            match = re.fullmatch(r"label_values\((.+),\s*(\w+)\)", variable["query"]["query"])
            assert match
            selector = match[1].replace("$service", ".*")
            query = {"match[]": selector, "start": repr(ran.began), "end": repr(ran.at)}
            values = json.loads(get(f"{ran.prometheus.url}/api/v1/label/{match[2]}/values", **query))["data"]
            expected = {
                "service": {"cost": {"assistant", "worker", "odd"}}.get(name, {"assistant", "odd"}),
                "model": {"gpt-4.1", "gpt-4.1-mini", "claude-haiku-4-5"},
                "budget": {"app", "agent", "per-user"},
            }[variable["name"]]
            assert expected <= set(values)


class TestMoney:
    def value(self, ran: Run, name: str, title: str, **chosen: str) -> float:
        [row] = ask(ran.prometheus, find(name, title), 0, ran.at, SPAN, **chosen)
        [value] = row["values"]
        return float(value)

    @pytest.mark.parametrize("title", ["Today", "This month"])
    def test_what_was_spent_is_what_the_ledgers_have(self, title: str, ran: Run) -> None:
        assert self.value(ran, "cost", title) == pytest.approx(ran.total, abs=CENT)

    def test_a_service_is_what_its_ledger_has_also_where_it_sends_only_spans(self, ran: Run) -> None:
        ledgers = {"assistant": ran.load.spent_usd, "worker": ran.spans_only, "odd": ran.odd}
        for service, spent in ledgers.items():
            assert self.value(ran, "cost", "Today", service=service) == pytest.approx(spent, abs=CENT)
        shown = by(ask(ran.prometheus, find("cost", "By service"), 0, ran.at, SPAN), "job")
        assert shown == pytest.approx(ledgers, abs=CENT)

    def test_two_services_together_are_their_sum(self, ran: Run) -> None:
        shown = self.value(ran, "cost", "Today", service="(assistant|worker)")
        assert shown == pytest.approx(ran.load.spent_usd + ran.spans_only, abs=CENT)

    def test_models_are_what_the_ledger_has_of_them(self, ran: Run) -> None:
        rows = ask(ran.prometheus, find("cost", "By model"), 0, ran.at, SPAN, service="assistant")
        assert by(rows, "gen_ai_request_model") == pytest.approx(ran.load.by_model, abs=CENT)

    def test_tenants_are_what_their_calls_cost(self, ran: Run) -> None:
        expected: dict[str, float] = {}
        for span in ran.spans:
            if "tenant.id" in span:
                cost = span.get("gen_ai.usage.cost.amount", 0.0)
                expected[span["tenant.id"]] = expected.get(span["tenant.id"], 0.0) + cost
        shown = by(ask(ran.prometheus, find("cost", "By tenant"), 0, ran.at, SPAN), "tenant_id")
        assert shown == pytest.approx(expected, abs=CENT)
        assert set(shown) == {"acme", "globex", "initech"}

    def test_per_minute_is_a_fifth_of_the_last_five(self, ran: Run) -> None:
        assert ran.at - ran.began < 300, "the run is older than five minutes: this machine is too slow for this test"
        assert self.value(ran, "cost", "Per minute now") == pytest.approx(ran.total / 5, abs=CENT)

    def test_the_forecast_goes_on_like_the_last_day(self, ran: Run) -> None:
        now = datetime.fromtimestamp(ran.at, UTC)
        first = datetime(now.year, now.month, 1, tzinfo=UTC)
        left = monthrange(now.year, now.month)[1] - (now - first).total_seconds() / 86400
        expected = ran.total + ran.total * left
        assert self.value(ran, "cost", "Month, forecast") == pytest.approx(expected, rel=0.01)

    def test_the_cost_of_a_call_is_the_money_by_the_calls_that_were_sent(self, ran: Run) -> None:
        sent = sum(span["shekel.outcome"] != "refused" for span in ran.spans)
        assert self.value(ran, "cost", "Cost per call") == pytest.approx(ran.total / sent, rel=1e-3)

    def test_the_table_has_each_service_and_model_once_and_adds_up(self, ran: Run) -> None:
        panel = find("cost", "Services and models")
        spent, calls, each = (ask(ran.prometheus, panel, number, ran.at, SPAN) for number in range(3))
        assert total(spent) == pytest.approx(ran.total, abs=CENT)
        assert total(calls) == sum(span["shekel.outcome"] != "refused" for span in ran.spans)
        keys = [(row["metric"]["job"], row["metric"]["gen_ai_request_model"]) for row in spent]
        assert len(keys) == len(set(keys)) == len(each)

    def test_input_from_caches_is_what_the_calls_say(self, ran: Run) -> None:
        own = [span for span in ran.spans if span["service"] != "worker"]
        cached = sum(span.get("gen_ai.usage.cache_read.input_tokens", 0) for span in own)
        read = sum(span.get("gen_ai.usage.input_tokens", 0) for span in own)
        assert cached > 0
        assert self.value(ran, "cost", "Input from caches") == pytest.approx(cached / read, rel=1e-6)

    def test_calls_without_a_price_are_shown(self, ran: Run) -> None:
        rows = ask(ran.prometheus, find("cost", "Without a price"), 0, ran.at, SPAN)
        assert by(rows, "gen_ai_request_model") == {"house-model": 1.0}

    def test_estimates_are_what_the_calls_say(self, ran: Run) -> None:
        estimated = sum(s.get("gen_ai.usage.cost.amount", 0) for s in ran.spans if s.get("shekel.cost.estimated"))
        assert estimated > 0
        assert self.value(ran, "streams", "Estimated") == pytest.approx(estimated, abs=CENT)
        assert self.value(ran, "streams", "Estimated money") == pytest.approx(estimated / ran.total, abs=1e-3)

    def test_no_query_of_money_extrapolates(self) -> None:
        for panel in ASKING:
            for target in panel.targets:
                for metric in ("shekel_cost_total", "shekel_traced_cost_total", "shekel_cache_savings_total"):
                    for part in target["expr"].split(f"increase({metric}")[1:]:
                        assert part.partition("]")[2].startswith(" anchored"), (panel.name, target["expr"])
                    assert f"rate({metric}" not in target["expr"]


class TestBudgets:
    def shown(self, ran: Run, number: int, at: float) -> dict[str, float]:
        rows = ask(ran.prometheus, find("budgets", "Every budget"), number, at, SPAN, service="assistant")
        return by(rows, "shekel_budget_name")

    def test_spent_held_and_limit_are_the_ledgers(self, ran: Run) -> None:
        spent, held, limit = (self.shown(ran, number, ran.at) for number in range(3))
        assert spent["app"] == pytest.approx(ran.load.spent_usd, abs=CENT)
        assert limit["app"] == 500
        assert limit["agent"] == pytest.approx(0.02)
        assert set(held.values()) == {0.0}, "all calls have ended"

    def test_full_is_spent_by_limit(self, ran: Run) -> None:
        full = self.shown(ran, 3, ran.at)
        assert full["app"] == pytest.approx(ran.load.spent_usd / 500, rel=1e-6)
        assert full["agent"] > 0.5, "the agent ran until its budget stopped it"

    def test_burn_and_time_left_follow_from_what_was_spent(self, ran: Run, ruled: float) -> None:
        burn, left = self.shown(ran, 4, ruled), self.shown(ran, 5, ruled)
        assert burn["app"] == pytest.approx(4 * ran.load.spent_usd, abs=CENT)
        assert left["app"] == pytest.approx((500 - ran.load.spent_usd) / burn["app"], rel=1e-3)

    def test_decisions_are_what_happened(self, ran: Run) -> None:
        panel = find("budgets", "Decisions by budget")
        refused, cut = (
            total(ask(ran.prometheus, panel, number, ran.at, SPAN, service="assistant")) for number in range(2)
        )
        assert (refused, cut) == (ran.load.ended["refused"], ran.load.ended["cut"])
        assert refused + cut > 0, "the agent ran until its budget stopped it"
        penny = by(ask(ran.prometheus, panel, 0, ran.at, SPAN, service="odd"), "shekel_budget_name")
        assert penny == {"penny": 1.0}
        fallback = by(ask(ran.prometheus, panel, 2, ran.at, SPAN), "shekel_budget_name")
        assert fallback == {"falls": 1.0}


class TestLedgers:
    """No shared ledger runs here: three processes tell of one, and of one in memory, as real ones do, over OTLP."""

    @pytest.mark.parametrize(
        ("number", "together", "shop", "desk"), [(0, 4, 8, 3), (2, 10, 20, 10), (3, 0.4, 0.4, 0.3)]
    )
    def test_a_shared_one_counts_once_and_those_in_memory_add_up(
        self, number: int, together: float, shop: float, desk: float, ran: Run, told: float
    ) -> None:
        panel = find("budgets", "Every budget")
        rows = ask(ran.prometheus, panel, number, told, SPAN, budget="together|apart")
        shown = {(row["metric"]["shekel_budget_name"], row["metric"].get("job")): row["values"][0] for row in rows}
        assert shown == pytest.approx({("together", None): together, ("apart", "shop"): shop, ("apart", "desk"): desk})


class TestStreams:
    def test_ends_are_what_happened(self, ran: Run) -> None:
        expected: dict[str, float] = {}
        for span in ran.spans:
            expected[span["shekel.outcome"]] = expected.get(span["shekel.outcome"], 0.0) + 1
        assert by(ask(ran.prometheus, find("streams", "Ends"), 0, ran.at, SPAN), "shekel_outcome") == expected

    def test_streams_are_the_calls_that_brought_a_chunk(self, ran: Run) -> None:
        [row] = ask(ran.prometheus, find("streams", "Streams"), 0, ran.at, SPAN)
        chunked = [s for s in ran.spans if "gen_ai.response.time_to_first_chunk" in s and s["service"] != "worker"]
        assert row["values"] == [len(chunked)]


class TestTraces:
    @pytest.mark.parametrize(
        ("name", "title", "number"),
        [
            ("cost", "Cost of a call, and the most expensive traces", 2),
            ("cost", "Calls by cost", 0),
            ("streams", "Time to the first chunk", 1),
        ],
    )
    def test_the_points_of_a_panel_are_traces_that_jaeger_has(
        self, name: str, title: str, number: int, ran: Run
    ) -> None:
        panel = find(name, title)
        assert panel.targets[number]["exemplar"]
        expr = filled(panel, panel.targets[number]["expr"], SPAN)
        points = exemplars(ran.prometheus, expr, ran.began, ran.at)
        assert points
        known: dict[str, list[dict[str, Any]]] = {}
        for span in ran.spans:
            known.setdefault(span["trace"], []).append(span)
        key = "gen_ai.usage.cost.amount" if name == "cost" else "gen_ai.response.time_to_first_chunk"
        for point in points:
            calls = known[point["labels"]["trace_id"]]
            assert any(float(point["value"]) == pytest.approx(call.get(key, 0)) for call in calls)
