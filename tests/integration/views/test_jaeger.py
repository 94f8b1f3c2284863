"""Jaeger with our configuration keeps the calls' traces, and finds them by cost, by a budget's decision and by user."""

from __future__ import annotations

import json
import re
import urllib.parse
from typing import Any

import pytest

from ..programs import CONFIG, get, wait_for
from .conftest import Run, spans_of

PAGE = CONFIG / "jaeger" / "searches.md"
COST = "gen_ai.usage.cost.amount"


def costs(spans: list[dict[str, Any]], above: float) -> list[float]:
    return sorted(span[COST] for span in spans if span.get(COST, 0.0) >= above)


class TestSearch:
    def test_every_call_is_there_and_the_spans_add_up_to_the_ledgers(self, ran: Run) -> None:
        assert sum(span.get(COST, 0.0) for span in ran.spans) == pytest.approx(ran.total, abs=1e-6)

    def test_a_call_is_found_by_its_cost(self, ran: Run) -> None:
        dearest = max(ran.spans, key=lambda span: span.get(COST, 0.0))
        found = spans_of(ran.jaeger, dearest["service"], **{COST: str(dearest[COST])})
        assert dearest["trace"] in {span["trace"] for span in found}

    @pytest.mark.parametrize("over", [0.001, 0.01])
    def test_the_calls_over_an_amount_are_found(self, over: float, ran: Run) -> None:
        tag = f"cost.over.{over:g}"
        traces = {span["trace"] for span in spans_of(ran.jaeger, "assistant", **{tag: "true"})}
        of_service = [span for span in ran.spans if span["service"] == "assistant"]
        assert traces == {span["trace"] for span in of_service if span.get(COST, 0.0) >= over}
        tagged = [span for span in spans_of(ran.jaeger, "assistant") if tag in span]
        assert costs(tagged, 0.0) == costs(of_service, over)

    def test_calls_are_found_by_user_and_by_tenant(self, ran: Run) -> None:
        for key in ("user.id", "tenant.id"):
            values = {span[key] for span in ran.spans if key in span and span["service"] == "assistant"}
            assert len(values) >= 3
            for value in values:
                found = spans_of(ran.jaeger, "assistant", **{key: value})
                expected = [span for span in ran.spans if span.get(key) == value and span["service"] == "assistant"]
                assert {span["trace"] for span in found} == {span["trace"] for span in expected}

    @pytest.mark.parametrize("decision", ["refused", "cut"])
    def test_what_a_budget_stopped_is_found_with_its_reason(self, decision: str, ran: Run) -> None:
        found = [
            span
            for service in ("assistant", "odd")
            for span in spans_of(ran.jaeger, service, **{"shekel.decision": decision})
            if span["shekel.decision"] == decision
        ]
        assert len(found) == ran.load.ended[decision] + (decision == "refused")
        assert found
        for span in found:
            assert span["shekel.decision.reason"] == {"refused": "exceeded", "cut": "cut"}[decision]
            assert span["error.type"] == "BudgetExceededError"
            assert span["shekel.budget.name"]
            assert span["shekel.budget.limit_usd"] > 0

    def test_a_fallback_says_what_was_asked_for(self, ran: Run) -> None:
        [span] = [
            span
            for span in spans_of(ran.jaeger, "odd", **{"shekel.decision": "fallback"})
            if span["shekel.decision"] == "fallback"
        ]
        assert (span["shekel.fallback.from"], span["gen_ai.request.model"]) == ("gpt-4o", "gpt-4o-mini")


class TestMonitor:
    @pytest.mark.parametrize("metric", ["calls", "latencies", "errors"])
    def test_it_answers_for_our_spans(self, metric: str, ran: Run) -> None:
        def answered() -> list[dict[str, Any]]:
            more = {"quantile": "0.95"} if metric == "latencies" else {}
            answer = json.loads(
                get(
                    f"{ran.jaeger.url}/api/metrics/{metric}",
                    service="assistant",
                    spanKind="client",
                    groupByOperation="true",
                    lookback="600000",
                    step="5000",
                    ratePer="60000",
                    **more,
                )
            )
            return [
                each
                for each in answer["metrics"]
                if any(point["gaugeValue"]["doubleValue"] not in (0, "NaN") for point in each["metricPoints"])
            ]

        operations = {
            label["value"]
            for each in wait_for(f"{metric} of our spans", answered)
            for label in each["labels"]
            if label["name"] == "operation"
        }
        assert operations <= {span["name"] for span in ran.spans}
        if metric == "calls":
            assert operations >= {"chat gpt-4.1-mini", "chat gpt-4.1", "chat claude-haiku-4-5"}


class TestPages:
    def test_the_pages_get_our_configuration(self, ran: Run) -> None:
        # Built from source, Jaeger has a placeholder for its pages; the file is read and watched all the same.
        config = json.loads((CONFIG / "jaeger" / "ui-config.json").read_text())
        assert config["monitor"]["menuEnabled"]
        assert config["topTagPrefixes"][0] == "gen_ai.usage.cost."
        assert "ui-config.json" in ran.jaeger.log or "UI" in ran.jaeger.log

    def test_links_lead_to_dashboards_and_variables_that_exist(self) -> None:
        from .panels import NAMES, dashboard

        variables = {f"shekel-{name}": {v["name"] for v in dashboard(name)["templating"]["list"]} for name in NAMES}
        text = (CONFIG / "jaeger" / "ui-config.json").read_text()
        found = re.findall(r"/d/([\w-]+)(?:\?([^\"]*))?", text)
        assert {uid for uid, _ in found} == set(variables)
        for uid, query in found:
            for name, _ in urllib.parse.parse_qsl(query):
                assert name.removeprefix("var-") in variables[uid]

    def test_the_ready_searches_are_urls_that_jaeger_answers_with_calls(self, ran: Run) -> None:
        urls = re.findall(r"\((http://127\.0\.0\.1:16686/search\?[^)\s]+)\)", PAGE.read_text(encoding="utf-8"))
        assert len(urls) >= 8
        answered = 0
        for url in urls:
            query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query, strict_parsing=True))
            assert query.pop("service") == "shekel-demo"
            tags = json.loads(query["tags"])
            answer = json.loads(get(f"{ran.jaeger.url}/api/traces", service="assistant", **{**query, "limit": "1500"}))
            expected = {
                span["trace"]
                for span in ran.spans
                if span["service"] == "assistant" and all(_text(span.get(key)) == tags[key] for key in tags)
            }
            assert {trace["traceID"] for trace in answer["data"]} == expected, url
            answered += bool(expected)
        assert answered >= 5


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


class TestRestart:
    def test_traces_are_there_after_a_restart(self, ran: Run) -> None:
        ran.jaeger.stop()
        ran.jaeger.start()
        again = wait_for("traces after the restart", lambda: spans_of(ran.jaeger, "odd"))
        assert sum(span.get(COST, 0.0) for span in again) == pytest.approx(ran.odd, abs=1e-6)
