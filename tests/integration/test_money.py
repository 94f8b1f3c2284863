"""Money, end to end: what an app knows, what the collector shows, what Prometheus answers, and the provider's bill."""

from __future__ import annotations

import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shekel.testing import FakeProvider
from shekel.testing.bill import Outcome

from .apps import App, answers
from .conftest import Stack
from .programs import Collector, Prometheus, wait_for

NOTHING = 1e-8
"""USD by which two sums of the same money may differ: the rounding of floats, far below the price of one call here."""


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    """A stand-in whose `bill` is the truth."""
    with FakeProvider(decide=answers) as provider:
        yield provider


@pytest.fixture
def service() -> str:
    """A service name of this test's own, as the stack is shared."""
    return f"app-{uuid.uuid4().hex[:8]}"


def same(value: float | None, money: float) -> bool:
    """Whether that is this money."""
    return value is not None and abs(value - money) < NOTHING


def spent(prometheus: Prometheus, service: str, metric: str = "shekel_cost_total") -> float | None:
    """What Prometheus says a service has spent in the last hour, by this counter."""
    return prometheus.value(f'sum(increase({metric}{{job="{service}"}}[1h] anchored))')


def recorded(prometheus: Prometheus, service: str) -> float | None:
    """What the recording rules say a service has spent in the last hour."""
    return prometheus.value(f'sum(shekel:spend_usd:increase1h{{job="{service}"}})')


def settles(what: str, ask: Any, money: float) -> None:
    """Wait until an answer is this money, and see that it is still so a few scrapes later."""
    wait_for(f"{what} = {money}", lambda: same(ask(), money))


def whole(provider: FakeProvider) -> float:
    """The provider's bill in USD of what was answered to the end."""
    provider.wait_idle()
    return sum(each.cost or 0 for each in provider.bill if each.outcome is Outcome.COMPLETE) / 1e9


class TestOneLoad:
    """500 calls by 50 users: plain, streamed, left, refused, cut."""

    def test_everybody_has_the_same_total(self, stack: Stack, provider: FakeProvider, service: str) -> None:
        with App(provider, stack.collector.otlp_http, service=service) as app:
            counts = app.do("load", calls=500, users=50)
            totals = app.do("totals")
        assert set(counts) == {"plain", "stream", "messages", "left", "refused", "cut"}
        money = totals["ledger"]
        assert money > 0.1
        assert same(totals["counted"]["shekel.cost"], money)

        port, traced = stack.collector.prometheus_port, stack.collector.traced_port
        job = f'job="{service}"'
        for metric, where in (("shekel_cost_total", port), ("shekel_traced_cost_total", traced)):
            settles(
                f"{metric} of the collector",
                lambda m=metric, w=where: sum(
                    v for k, v in stack.collector.exposed(w).items() if k.startswith(m) and job in k
                ),
                money,
            )
            settles(f"{metric} of Prometheus", lambda m=metric: spent(stack.prometheus, service, m), money)
            settles(f"the sum of {metric}", lambda m=metric: stack.prometheus.value(f"sum({m}{{{job}}})"), money)
        # The app sends both: the rules count it once.
        settles("the recording rule", lambda: recorded(stack.prometheus, service), money)

        # Refusals cost nothing and are counted; cuts and streams that were left are estimates, and the rest is exact.
        calls = stack.prometheus.query(f"sum by (shekel_outcome) (shekel_calls_total{{{job}}})")
        assert {row["metric"]["shekel_outcome"]: int(row["value"][1]) for row in calls} == {
            "complete": counts["plain"] + counts["stream"] + counts["messages"],
            "closed": counts["left"],
            "refused": counts["refused"],
            "cut": counts["cut"],
        }
        exact = f'sum(shekel_cost_total{{{job}, shekel_cost_estimated="false"}})'
        assert same(stack.prometheus.value(exact), whole(provider))
        assert len(provider.bill) == 500 - counts["refused"]

    def test_traces_alone_are_enough(self, stack: Stack, provider: FakeProvider, service: str) -> None:
        with App(provider, stack.collector.otlp_http, tells="traces", service=service) as app:
            app.do("load", calls=100, users=10)
            money = app.do("totals")["ledger"]
        settles("the traced counter", lambda: spent(stack.prometheus, service, "shekel_traced_cost_total"), money)
        settles("the recording rule", lambda: recorded(stack.prometheus, service), money)
        assert spent(stack.prometheus, service) is None

    def test_metrics_alone_are_enough(self, stack: Stack, provider: FakeProvider, service: str) -> None:
        with App(provider, stack.collector.otlp_http, tells="metrics", service=service) as app:
            app.do("load", calls=100, users=10)
            money = app.do("totals")["ledger"]
        settles("the counter", lambda: spent(stack.prometheus, service), money)
        settles("the recording rule", lambda: recorded(stack.prometheus, service), money)
        assert spent(stack.prometheus, service, "shekel_traced_cost_total") is None

    def test_two_processes_of_one_service_add_up(self, stack: Stack, provider: FakeProvider, service: str) -> None:
        with (
            App(provider, stack.collector.otlp_http, service=service) as one,
            App(provider, stack.collector.otlp_http, service=service) as two,
        ):
            for _ in range(3):
                one.do("spend", calls=7)
                two.do("spend", calls=13)
            budgets = (
                one.do("against", name="shared", usd=0.001, calls=3),
                two.do("against", name="shared", usd=0.001, calls=5),
            )
            money = whole(provider)
            job = f'job="{service}", shekel_budget_name="shared"'
            settles("both", lambda: spent(stack.prometheus, service), money)
            settles("both, traced", lambda: spent(stack.prometheus, service, "shekel_traced_cost_total"), money)
            settles("the recording rule", lambda: recorded(stack.prometheus, service), money)
            # Ledgers in memory are added up, what they have spent and what they may; the fullest one is what counts.
            each = [float(budget["spent"]) for budget in budgets]
            settles("spent", lambda: stack.prometheus.value(f"shekel:budget:spent_usd{{{job}}}"), sum(each))
            settles("limit", lambda: stack.prometheus.value(f"shekel:budget:limit_usd{{{job}}}"), 0.002)
            ratio = stack.prometheus.value(f"shekel:budget:used_ratio{{{job}}}")
            assert ratio == pytest.approx(max(each) / 0.001)
            calls = f'sum(traces_span_metrics_calls_total{{service_name="{service}"}})'
            wait_for("calls of both", lambda: stack.prometheus.value(calls) == len(provider.bill))


class TestRestarts:
    def test_an_app_that_restarts_loses_nothing(self, stack: Stack, provider: FakeProvider, service: str) -> None:
        for calls in (20, 5, 30):
            with App(provider, stack.collector.otlp_http, service=service) as app:
                app.do("spend", calls=calls)
        money = whole(provider)
        settles("the counter", lambda: spent(stack.prometheus, service), money)
        settles("the traced counter", lambda: spent(stack.prometheus, service, "shekel_traced_cost_total"), money)
        settles("the recording rule", lambda: recorded(stack.prometheus, service), money)

    def test_nor_does_one_that_keeps_its_name_and_starts_from_nothing(
        self, stack: Stack, provider: FakeProvider, service: str
    ) -> None:
        """The instance is the pod's, say: its counters go back to nothing. The second run is the longer one.

        Prometheus sees that where it is shown less than before, once: hence a call by itself first (COUNTING.md).
        """
        for calls in (5, 20, 10):
            with App(
                provider,
                stack.collector.otlp_http,
                service=service,
                OTEL_RESOURCE_ATTRIBUTES="service.instance.id=pod-1",
            ) as app:
                for each in (1, calls - 1):
                    app.do("spend", calls=each)
                    settles("this run", lambda: spent(stack.prometheus, service), whole(provider))
        settles("the recording rule", lambda: recorded(stack.prometheus, service), whole(provider))

    def test_a_collector_that_restarts_loses_nothing(self, tmp_path: Path, provider: FakeProvider) -> None:
        with (
            Collector(tmp_path / "collector") as collector,
            Prometheus(tmp_path / "prometheus", collector) as prometheus,
            App(provider, collector.otlp_http) as both,
            App(provider, collector.otlp_http, tells="traces", service="traces") as traces,
        ):
            for how in (signal.SIGTERM, signal.SIGKILL, None):
                both.do("spend", calls=10)
                traces.do("spend", calls=25)
                money = whole(provider)
                # What the trace counters have not shown Prometheus before the collector ends is gone with it.
                settles("all so far", lambda: prometheus.value("sum(shekel:spend_usd:increase1h)"), money)
                if how is not None:
                    collector.stop(how)
                    both.do("spend", calls=10)
                    collector.start()
            metrics, traced = spent(prometheus, "app"), spent(prometheus, "traces", "shekel_traced_cost_total")
            assert metrics is not None
            assert same(traced, whole(provider) - metrics)
