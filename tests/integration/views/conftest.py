"""A stack of its own with the data of one known run: the example load, a service that sends only spans, oddities."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import openai
import pytest

import shekel
from shekel import BudgetExceededError, ShekelInstrumentor, budget, faults
from shekel.cli.exporting import Exporting
from shekel.cli.load import Shape, Tally, run
from shekel.testing import FakeProvider, Reply

from ..apps import App
from ..programs import CONFIG, Collector, Program, Prometheus, _answers, binary, free_ports, get, wait_for

MESSAGES: list[Any] = [{"role": "user", "content": "Name three rivers."}]
CENT = 0.0001
"""A hundredth of a cent: as far as the views may be from the ledger."""


class ConfiguredJaeger(Program):
    """Jaeger with jaeger.yaml as it is: only environment variables are set.

    Attributes:
        url: of its pages and its API.
        otlp_grpc: "host:port" that takes traces.
    """

    def __init__(self, folder: Path, prometheus: str, **environment: str) -> None:
        otlp, ui, grpc, self.health_port = free_ports(4)
        self.url = f"http://127.0.0.1:{ui}"
        self.otlp_grpc = f"127.0.0.1:{otlp}"
        variables = {
            "JAEGER_OTLP": str(otlp),
            "JAEGER_UI": str(ui),
            "JAEGER_GRPC": str(grpc),
            "JAEGER_HEALTH": str(self.health_port),
            "JAEGER_DATA": str(folder / "data"),
            "JAEGER_UI_FILE": str(CONFIG / "jaeger" / "ui-config.json"),
            "PROMETHEUS_URL": prometheus,
        }
        command = [str(binary("jaeger")), "--config", str(CONFIG / "jaeger" / "jaeger.yaml")]
        super().__init__("jaeger", command, folder, {**variables, **environment})

    def alive(self) -> bool:
        """Its health check says so: the address that compose.yaml asks."""
        return _answers(f"http://127.0.0.1:{self.health_port}/status")


@dataclass
class Run:
    """What ran, and what is known of it without asking the views.

    Attributes:
        at: when Prometheus had everything, seconds since 1970.
        began: before the first call.
        load: what the example load did; its service is "assistant".
        spans_only: what the ledger of "worker" has, which sends no metrics; USD.
        odd: what the ledger of "odd" has, USD.
    """

    collector: Collector
    prometheus: Prometheus
    jaeger: ConfiguredJaeger
    began: float
    load: Tally
    spans_only: float
    odd: float
    at: float = math.nan
    spans: list[dict[str, Any]] = field(default_factory=list)

    @property
    def total(self) -> float:
        """What all ledgers together have, USD."""
        return self.load.spent_usd + self.spans_only + self.odd


@pytest.fixture(scope="session")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """The stack after the run, with everything told; it stays up."""
    for name in ("otelcol", "prometheus", "jaeger"):
        binary(name)
    folder = tmp_path_factory.mktemp("views")
    with ExitStack() as running:
        [port] = free_ports(1)
        jaeger = running.enter_context(ConfiguredJaeger(folder / "jaeger", f"http://127.0.0.1:{port}"))
        collector = running.enter_context(
            Collector(folder / "collector", jaeger.otlp_grpc, SHEKEL_METRIC_SCOPES="tenant.id")
        )
        prometheus = Prometheus(folder / "prometheus", collector, port=port)
        # Burn and time left are sums over minutes: the rules run every minute here, as they are written.
        shutil.copytree(CONFIG / "prometheus" / "rules", prometheus.folder / "config" / "rules", dirs_exist_ok=True)
        running.enter_context(prometheus)
        began = time.time()
        spans_only = _spans_only(collector)
        odd = _odd(collector)
        with mock.patch.dict(os.environ, {"OTEL_SERVICE_NAME": "assistant"}):
            shape = Shape(seconds=20, users=12, rate=12, agent_every=40, pace=0.001)
            load = run(collector.otlp_http, shape, say=lambda line: None)
        done = Run(collector, prometheus, jaeger, began, load, spans_only, odd)
        _wait_until_told(done)
        yield done


def _spans_only(collector: Collector) -> float:
    with FakeProvider() as provider, App(provider, collector.otlp_http, "traces", "worker") as app:
        app.do("spend", calls=20, users=4, tenant_id="acme")
        return float(app.do("totals")["ledger"])


def _odd(collector: Collector) -> float:
    """What should be rare, each once: no price, a fallback, a refusal, a broken bound, a fault of Shekel's own."""
    instrumentor = ShekelInstrumentor()
    with mock.patch.dict(os.environ, {"OTEL_SERVICE_NAME": "odd"}):
        telemetry = Exporting(collector.otlp_http)
    with telemetry, FakeProvider() as provider, openai.OpenAI(base_url=provider.openai_url, api_key="test") as client:
        instrumentor.instrument(tracer_provider=telemetry.tracer_provider, meter_provider=telemetry.meter_provider)
        try:
            create = client.chat.completions.create
            create(model="house-model", messages=MESSAGES)
            with budget(name="everything") as everything, shekel.scope(user_id="odd one"):
                with budget(0.01, name="falls", fallback={"at_pct": 0.0001, "model": "gpt-4o-mini"}):
                    create(model="gpt-4o", messages=MESSAGES, max_tokens=100)
                    create(model="gpt-4o", messages=MESSAGES, max_tokens=100)
                with budget(0.01, name="bounded", mode="strict"):
                    provider.reply(Reply(input_tokens=100_000))
                    create(model="gpt-4o-mini", messages=MESSAGES, max_tokens=50)
                with budget(0.000001, name="penny"), suppress(BudgetExceededError):
                    create(model="gpt-4o-mini", messages=MESSAGES, max_tokens=50)
            faults.report("made a fault for a test", RuntimeError("on purpose"))
            return everything.spent
        finally:
            instrumentor.uninstrument()


def _wait_until_told(done: Run) -> None:
    """Wait until Prometheus and Jaeger have it all: here it is only said how much, not what the views must show."""
    services = {"assistant": sum(done.load.ended.values()), "worker": 20, "odd": 5}

    def traced() -> list[dict[str, Any]] | None:
        spans = [span for service in services for span in spans_of(done.jaeger, service)]
        return spans if len(spans) >= sum(services.values()) else None

    done.spans = wait_for("all calls in Jaeger", traced)

    def counted() -> bool:
        own = done.prometheus.value("sum(shekel_cost_total)") or 0.0
        spans = done.prometheus.value("sum(shekel_traced_cost_total)") or 0.0
        return abs(own + done.spans_only - done.total) < CENT and abs(spans - done.total) < CENT

    wait_for("all money in Prometheus", counted)
    done.at = time.time()


def spans_of(jaeger: ConfiguredJaeger, service: str, **tags: str) -> list[dict[str, Any]]:
    """The calls of a service in Jaeger, as attribute → value; with tags, as its search finds them."""
    query = {"service": service, "limit": "1500", "lookback": "1h"}
    if tags:
        query["tags"] = json.dumps(tags)
    found = json.loads(get(f"{jaeger.url}/api/traces", **query))["data"]
    return [
        {**attributes, "trace": trace["traceID"], "name": span["operationName"], "service": service}
        for trace in found
        for span in trace["spans"]
        if "shekel.outcome" in (attributes := {tag["key"]: tag["value"] for tag in span["tags"]})
    ]
