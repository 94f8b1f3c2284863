"""How many series there are: no more than COUNTING.md calculates, however many users there are."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from shekel.testing import FakeProvider

from .apps import App, answers
from .programs import CONFIG, Collector, Prometheus, get, settled, wait_for

COUNTING = (CONFIG / "prometheus" / "COUNTING.md").read_text()
ROWS = {
    what: (int(each), int(scoped))
    for what, each, scoped in re.findall(r"^\| ([a-z ]+?) \| (\d+) \| (\d+) \|$", COUNTING, re.MULTILINE)
}


def most(processes: int, models: int, budgets: int, scopes: int = 1) -> int:
    """The most series of one service, as COUNTING.md calculates them.

    Args:
        processes, models, budgets: how many the service has.
        scopes: combinations of values of the allowed scope keys.
    """
    times = {
        "model of a process": processes * models,
        "budget of a process": processes * budgets,
        "process": processes,
        "model of a service": models,
        "budget of a service": budgets,
        "service": 1,
        "collector": 1,
    }
    assert times.keys() == ROWS.keys()
    return sum(count * (ROWS[what][0] + ROWS[what][1] * scopes) for what, count in times.items())


def series(prometheus: Prometheus) -> int:
    """How many series Prometheus holds."""
    return int(json.loads(get(f"{prometheus.url}/api/v1/status/tsdb"))["data"]["headStats"]["numSeries"])


def test_the_examples_are_calculated_as_the_table_says() -> None:
    [stated] = re.findall(r"has at most ([\d,]+) series", COUNTING)
    assert most(10, 3, 5) == int(stated.replace(",", ""))
    [more] = re.findall(r"with 100 tenants adds at most ([\d,]+)\.", " ".join(COUNTING.split()))
    assert most(10, 3, 5, 100) - most(10, 3, 5) == int(more.replace(",", ""))


@pytest.mark.slow
@pytest.mark.parametrize("users", [200, 10_000])
def test_users_make_no_series(tmp_path: Path, users: int) -> None:
    """Ten minutes of scrapes every 15 seconds, at one a second: every user calls once, in one app."""
    with (
        FakeProvider(decide=answers) as provider,
        Collector(tmp_path / "collector") as collector,
        Prometheus(tmp_path / "prometheus", collector) as prometheus,
        App(provider, collector.otlp_http) as app,
    ):
        app.do("against", name="runaway", usd=0.0003, calls=20)
        app.do("load", calls=16, users=16)
        query = "sum(increase(shekel_cost_total[1h] anchored))"
        money = app.do("totals")["ledger"]
        wait_for("the money of a few users", lambda: prometheus.value(query) == pytest.approx(money))
        few = settled(lambda: series(prometheus))
        started = time.monotonic()
        for first in range(0, users, 100):
            app.do("crowd", calls=100, seed=first)
        if users == 10_000:
            wait_for("forty scrapes", lambda: time.monotonic() - started > 40)
        money = app.do("totals")["ledger"]
        wait_for("the money of all", lambda: prometheus.value(query) == pytest.approx(money))
        many = settled(lambda: series(prometheus))

        assert many <= few + 5
        # Four models; "everything" is a budget without a limit; "penny", "short" and "runaway" have one.
        assert most(1, 4, 4) / 5 < many <= most(1, 4, 4)
        assert prometheus.value('count({user_id!=""} or {session_id!=""})') is None
