"""The rules: valid, each one tested by promtool, each alert seen silent, firing and clear, with words and a runbook."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from .programs import CONFIG, PROMETHEUS_FEATURES, binary

HERE = CONFIG / "prometheus"
GROUPS = [
    group for path in sorted((HERE / "rules").glob("*.yml")) for group in yaml.safe_load(path.read_text())["groups"]
]
RULES: list[dict[str, Any]] = [rule for group in GROUPS for rule in group["rules"]]
ALERTS = [rule for rule in RULES if "alert" in rule]
RECORDED = [rule["record"] for rule in RULES if "record" in rule]
TESTS = {path.name: yaml.safe_load(path.read_text()) for path in sorted((HERE / "tests").glob("*.yml"))}


def promtool(*arguments: str, folder: Path = HERE) -> str:
    """Run promtool, and return what it says.

    Raises:
        AssertionError: it is not content; with what it says.
    """
    done = subprocess.run(
        [str(binary("promtool")), "--enable-feature=promql-extended-range-selectors", *arguments],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


class TestPromtool:
    def test_the_configuration_is_valid(self) -> None:
        said = promtool("check", "config", "--lint=all", "--lint-fatal", "prometheus.yml")
        assert "is valid" in said
        assert len(re.findall(r"SUCCESS: \d+ rules found", said)) == len(list((HERE / "rules").glob("*.yml")))

    def test_every_rule_is_valid(self) -> None:
        said = promtool(
            "check", "rules", "--lint=all", "--lint-fatal", *sorted(map(str, (HERE / "rules").glob("*.yml")))
        )
        assert sum(map(int, re.findall(r"SUCCESS: (\d+) rules found", said))) == len(RULES)

    @pytest.mark.parametrize(
        "name", [pytest.param(name, marks=pytest.mark.slow if name == "month.yml" else ()) for name in TESTS]
    )
    def test_the_unit_tests_pass(self, name: str, tmp_path: Path) -> None:
        # `promtool test rules` of 3.13 cannot evaluate `anchored`, also with the feature: see tests/spend.yml.
        copy = shutil.copytree(HERE, tmp_path / "prometheus")
        for path in (copy / "rules").glob("*.yml"):
            path.write_text(re.sub(r" anchored\b", "", path.read_text()))
        assert "SUCCESS" in promtool("test", "rules", name, folder=copy / "tests")


class TestEveryRule:
    def test_has_a_unit_test(self) -> None:
        asked = " ".join(
            e["expr"] for file in TESTS.values() for t in file["tests"] for e in t.get("promql_expr_test", ())
        )
        for name in RECORDED:
            assert re.search(rf"(^|[^\w:]){re.escape(name)}($|[^\w:])", asked), name

    @pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: str(alert["alert"]))
    def test_an_alert_is_seen_silent_firing_and_clear(self, alert: dict[str, Any]) -> None:
        seen = [
            [bool(each["exp_alerts"]) for each in test["alert_rule_test"] if each["alertname"] == alert["alert"]]
            for name in ("alerts.yml", "month.yml")
            for test in TESTS[name]["tests"]
        ]
        assert any(True in each and not each[0] and not each[-1] for each in seen), seen

    @pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: str(alert["alert"]))
    def test_an_alert_says_what_it_means_and_what_to_do(self, alert: dict[str, Any]) -> None:
        assert alert["annotations"].keys() == {"summary", "description", "runbook"}
        assert alert["labels"]["severity"] in ("warning", "critical")
        path, _, section = alert["annotations"]["runbook"].partition("#")
        text = (CONFIG.parent / path).read_text()
        [found] = [part for part in text.split("\n## ") if part.split("\n", 1)[0].lower() == section]
        for part in ("**Means.**", "**Look.**", "**Do.**"):
            assert part in found

    def test_a_runbook_section_is_about_an_alert(self) -> None:
        sections = set(re.findall(r"^## (\w+)$", (HERE / "RUNBOOK.md").read_text(), re.MULTILINE))
        assert sections == {alert["alert"] for alert in ALERTS}


class TestConfiguration:
    def test_the_features_that_money_needs_are_named_where_they_are_needed(self) -> None:
        assert f"--enable-feature={PROMETHEUS_FEATURES}" in (HERE / "prometheus.yml").read_text()

    def test_containers_scrape_what_a_machine_scrapes(self) -> None:
        here = yaml.safe_load((HERE / "scrape.yml").read_text())
        there = yaml.safe_load((HERE / "scrape-compose.yml").read_text().replace("collector:", "127.0.0.1:"))
        assert here == there
