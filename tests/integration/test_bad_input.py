"""What a collector says of bad input: one sentence that names it, at the start, and never a wrong number later."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from shekel.testing import FakeProvider

from .apps import App
from .programs import CONFIG, Collector, Prometheus, binary, wait_for


def refused(folder: Path, *more: str, **environment: str) -> str:
    """Start a collector that must not start, and return the sentence that it ends with."""
    good = Collector(folder).environment
    done = subprocess.run(
        [*(str(part) for part in (binary("otelcol"), "--config", CONFIG / "collector.yaml")), *more],
        env={**good, **environment},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done.stdout[-2000:]
    return done.stdout[done.stdout.index("\nError: ") if "\nError: " in done.stdout else 0 :].strip()


class TestVariables:
    @pytest.mark.parametrize(
        ("name", "value", "said"),
        [
            ("SHEKEL_OTLP_GRPC", "", 'otlp_grpc/SHEKEL_OTLP_GRPC: requires a non-empty "endpoint"'),
            ("SHEKEL_OTLP_HTTP", "", 'otlp_grpc/SHEKEL_OTLP_HTTP: requires a non-empty "endpoint"'),
            ("SHEKEL_OTLP_HTTP", "nonsense", "address nonsense: missing port"),
            ("SHEKEL_OTLP_HTTP", "127.0.0.1:port", 'invalid port "port"'),
            ("SHEKEL_METRICS", "", "expecting a non-blank address"),
            ("SHEKEL_METRICS", "127.0.0.1", "address 127.0.0.1: missing port"),
            ("SHEKEL_TRACED", "", "expecting a non-blank address"),
            ("SHEKEL_JAEGER", "", 'otlp_grpc/jaeger: requires a non-empty "endpoint"'),
            ("SHEKEL_JAEGER", "jaeger", "address jaeger: missing port"),
            ("SHEKEL_HEALTH", "", "health_check::config: http endpoint required"),
            ("SHEKEL_MEMORY_MIB", "", "memory_limiter: 'limit_mib'"),
            ("SHEKEL_MEMORY_MIB", "lots", "memory_limiter"),
            ("SHEKEL_SPAN_SECONDS", "", "'metrics_flush_interval' time: invalid duration"),
            ("SHEKEL_SPAN_SECONDS", "soon", "'metrics_flush_interval' time: invalid duration"),
            ("SHEKEL_TELEMETRY_PORT", "", "port must be specified"),
            ("SHEKEL_METRIC_SCOPES", 'tenant"id', "failed to parse keys_expression"),
        ],
    )
    def test_one_that_makes_no_sense_stops_the_collector(
        self, tmp_path: Path, name: str, value: str, said: str
    ) -> None:
        assert said in refused(tmp_path, **{name: value})

    def test_a_port_in_use_is_named(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            assert f"listen tcp {address}: bind: address already in use" in refused(tmp_path, SHEKEL_METRICS=address)

    def test_a_part_that_the_collector_does_not_have_is_named(self, tmp_path: Path) -> None:
        said = refused(tmp_path, "--config", "yaml:processors::redaction::allow_all_keys: true")
        assert 'unknown type: "redaction"' in said


class TestParts:
    def test_the_collector_has_the_parts_of_the_configuration_and_no_others(self) -> None:
        listed = subprocess.run(
            [str(binary("otelcol")), "components"], text=True, capture_output=True, check=True
        ).stdout
        have = {line.split(": ", 1)[1].strip() for line in listed.splitlines() if line.lstrip().startswith("- name:")}
        config = (CONFIG / "collector.yaml").read_text()
        loaded = yaml.safe_load(config)
        kinds = ("receivers", "processors", "exporters", "connectors", "extensions")
        named = {name.partition("/")[0] for kind in kinds for name in loaded[kind]}
        assert have == named


class TestScopes:
    @pytest.mark.parametrize("value", ["tenant.id,team", "tenant.id, team", ",tenant.id,, team"])
    def test_a_list_may_have_spaces_and_the_money_is_the_same(self, tmp_path: Path, value: str) -> None:
        with (
            FakeProvider() as provider,
            Collector(tmp_path, SHEKEL_METRIC_SCOPES=value) as collector,
            App(provider, collector.otlp_http, tells="traces") as app,
        ):
            app.do("spend", calls=3, tenant_id="acme", team="red")
            app.do("spend", calls=2)
            port = collector.traced_port
            money = float(provider.bill.usd)
            wait_for("all of it", lambda: collector.total("shekel_traced_cost_total", port) == pytest.approx(money))
            series = [each for each in collector.exposed(port) if each.startswith("shekel_traced_cost_total")]
            assert len(series) == 2
            assert len([each for each in series if 'tenant_id="acme"' in each and 'team="red"' in each]) == 1
            assert not [each for each in series if "user_id" in each]


class TestUsers:
    def test_users_on_an_apps_metrics_are_added_up_and_gone(self, tmp_path: Path) -> None:
        """Somebody has put `user.id` on metrics: the collector adds the users up, and no one's value wins."""
        with (
            FakeProvider() as provider,
            Collector(tmp_path / "collector") as collector,
            Prometheus(tmp_path / "prometheus", collector) as prometheus,
            App(provider, collector.otlp_http, tells="metrics", SHEKEL_METRIC_SCOPES="user.id,tenant.id") as app,
        ):
            for _ in range(3):
                app.do("spend", calls=20, users=20, tenant_id="acme")
            money = float(provider.bill.usd)
            query = "sum(increase(shekel_cost_total[1h] anchored))"
            wait_for("the sum", lambda: prometheus.value(query) == pytest.approx(money))
            assert prometheus.value('count(shekel_cost_total{user_id!=""})') is None
            [row] = prometheus.query("shekel_cost_total")
            assert row["metric"]["tenant_id"] == "acme"


class TestBuildScript:
    def test_it_says_where_and_that_go_is_missing(self, tmp_path: Path) -> None:
        environment = {"PATH": str(tmp_path), "SHEKEL_STACK": str(tmp_path / "stack"), "HOME": str(tmp_path)}
        script = [sys.executable, str(CONFIG / "build.py")]
        where = subprocess.run([*script, "--where"], env=environment, text=True, capture_output=True, check=True)
        assert where.stdout.strip() == str(tmp_path / "stack")
        built = subprocess.run([*script, "promtool"], env=environment, text=True, capture_output=True, check=False)
        assert built.returncode == 1
        assert "promtool is not built yet, and Go is needed to build it" in built.stderr
        assert not (tmp_path / "stack").exists()
