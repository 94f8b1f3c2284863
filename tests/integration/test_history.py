"""The rules over hours in which things went wrong, on a real Prometheus: what `anchored` is for, and what it is not."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from .programs import CONFIG, Collector, Prometheus, binary, get

MINUTE = 60
SPEND: list[dict[str, Any]] = yaml.safe_load((CONFIG / "prometheus" / "rules" / "spend.yml").read_text())["groups"][0]
RULES: dict[str, str] = {rule["record"]: rule["expr"] for rule in SPEND["rules"]}  # type: ignore[call-overload]

NOTHING: list[float | None] = [None]
HISTORY: dict[str, list[float | None]] = {
    # A dollar a minute. The process restarts under its name, and the second run is as long as the first.
    "restarts": [*map(float, range(21)), *map(float, range(21)), *[20.0] * 20],
    # The collector is away for ten minutes; the app goes on, and sends its total when the collector is back.
    "away": [*map(float, range(11)), *NOTHING * 10, *map(float, range(21, 41)), *[40.0] * 20],
    # A process that lives for three minutes.
    "short": [*NOTHING * 10, 0.0, 7.0, 7.0, 7.0],
}
SPENT = {"restarts": 40.0, "away": 40.0, "short": 7.0}


@pytest.fixture(scope="module")
def begin() -> int:
    """When the first hour began: three hours ago, at a whole minute."""
    return int(time.time()) // MINUTE * MINUTE - 180 * MINUTE


@pytest.fixture(scope="module")
def prometheus(begin: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that has seen the history."""
    folder = tmp_path_factory.mktemp("history")
    lines = ["# TYPE shekel_cost counter"]
    for job, values in HISTORY.items():
        lines += [
            f'shekel_cost_total{{job="{job}",instance="a"}} {value} {begin + n * MINUTE}'
            for n, value in enumerate(values)
            if value is not None
        ]
    (folder / "history.txt").write_text("\n".join([*lines, "# EOF", ""]))
    subprocess.run(
        [str(binary("promtool")), "tsdb", "create-blocks-from", "openmetrics", "history.txt", "prometheus/data"],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    with Prometheus(folder / "prometheus", Collector(folder / "nobody")) as prometheus:
        yield prometheus


def minutes(prometheus: Prometheus, begin: int) -> dict[str, list[float]]:
    """What the rule for a minute records, minute after minute, for two hours."""
    found = json.loads(
        get(
            f"{prometheus.url}/api/v1/query_range",
            query=f"sum by (job) ({RULES['shekel:spend_usd:minute']})",
            start=str(begin),
            end=str(begin + 120 * MINUTE),
            step=str(MINUTE),
        )
    )["data"]["result"]
    return {row["metric"]["job"]: [float(value) for _, value in row["values"]] for row in found}


class TestHours:
    def test_the_sum_of_the_minutes_is_what_was_spent(self, prometheus: Prometheus, begin: int) -> None:
        seen = minutes(prometheus, begin)
        assert {job: sum(values) for job, values in seen.items()} == pytest.approx(SPENT)
        assert min(value for values in seen.values() for value in values) == 0
        assert max(seen["restarts"]) == 1
        assert max(seen["away"]) == 11  # came in one piece when the collector was back

    @pytest.mark.parametrize("window", ["1h", "1d"])
    def test_so_is_the_increase_over_a_time(self, prometheus: Prometheus, begin: int, window: str) -> None:
        rows = prometheus.query(
            f"sum by (job) ({RULES[f'shekel:spend_usd:increase{window}']})", at=float(begin + 60 * MINUTE)
        )
        assert {row["metric"]["job"]: float(row["value"][1]) for row in rows} == pytest.approx(SPENT)

    def test_increase_alone_makes_more_of_what_is_short(self, prometheus: Prometheus, begin: int) -> None:
        """Without `anchored` Prometheus stretches what it has seen to the ends of the range."""
        expression = 'increase(shekel_cost_total{job="short"}[5m])'
        at = float(begin + 14 * MINUTE)
        stretched = prometheus.value(expression, at=at)
        assert stretched == pytest.approx(7 * 4 / 3)
        assert prometheus.value(expression.replace("[5m]", "[5m] anchored"), at=at) == 7
