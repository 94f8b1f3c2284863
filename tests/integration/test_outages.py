"""The collector away and back, Jaeger away and back: calls, budgets and money do not notice; what is lost is spans."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import pytest

from shekel.testing import FakeProvider

from .apps import App
from .programs import Collector, Jaeger, Prometheus, settled, wait_for

NOTHING = 1e-8
SPENT = "sum(increase(shekel_cost_total[1h] anchored))"
TRACED = "sum(increase(shekel_traced_cost_total[1h] anchored))"


def timed(app: App, calls: int) -> float:
    """Make calls, and return the seconds that one took."""
    started = time.monotonic()
    app.do("spend", calls=calls)
    return (time.monotonic() - started) / calls


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [3, 60])
def test_a_collector_that_is_away_costs_an_app_nothing(tmp_path: Path, seconds: int) -> None:
    with (
        FakeProvider() as provider,
        Collector(tmp_path / "collector") as collector,
        Prometheus(tmp_path / "prometheus", collector) as prometheus,
        App(provider, collector.otlp_http) as app,
    ):
        before = [timed(app, 20) for _ in range(3)]
        # What has not been scraped when a collector ends is gone from what it counted itself: from spans.
        for query in (SPENT, TRACED):
            wait_for(query, lambda q=query: prometheus.value(q) == pytest.approx(float(provider.bill.usd)))

        collector.stop()
        away: list[float] = []
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            away.append(timed(app, 10))
        budget: dict[str, Any] = app.do("against", name="held", usd=0.001, calls=40)
        collector.start()
        app.do("spend", calls=5)
        money = app.do("totals")["ledger"]

        # The calls were all made, as fast as before; the budget stopped them where it should; the ledger has it all.
        assert statistics.median(away) < 5 * statistics.median(before)
        one = float(provider.bill.usd) / len(provider.bill)
        assert 0 < budget["admitted"] < 40
        assert budget["spent"] == pytest.approx(budget["admitted"] * one)
        assert abs(money - float(provider.bill.usd)) < NOTHING
        # The app sends totals: the first one after the outage has all of it.
        wait_for("all of the money", lambda: abs((prometheus.value(SPENT) or 0) - money) < NOTHING)
        # Spans are tried for ten seconds and then given up: what is counted from them lacks calls, and has none twice.
        app.end()
        traced = settled(lambda: prometheus.value(TRACED) or 0.0)
        lost = len(provider.bill) - round(traced / one)
        assert traced == pytest.approx((len(provider.bill) - lost) * one)
        assert 0 <= lost < 10 * len(away) + budget["admitted"] + 20
        assert lost > 0 or seconds < 20


@pytest.mark.slow  # Jaeger takes ten seconds to stop, and the collector some to find it again
def test_jaeger_away_loses_nothing(tmp_path: Path) -> None:
    with FakeProvider() as provider, Jaeger(tmp_path / "jaeger") as jaeger:
        with (
            Collector(tmp_path / "collector", jaeger.otlp_grpc) as collector,
            Prometheus(tmp_path / "prometheus", collector) as prometheus,
            App(provider, collector.otlp_http) as app,
        ):
            app.do("spend", calls=10)
            wait_for("the first traces", lambda: len(jaeger.traces("app")) == 10)
            jaeger.stop()
            app.do("spend", calls=30)
            money = float(provider.bill.usd)
            for query in (SPENT, TRACED):
                wait_for(query, lambda q=query: abs((prometheus.value(q) or 0) - money) < NOTHING)
            jaeger.start()
            wait_for("the other traces", lambda: len(jaeger.traces("app")) == 40)
