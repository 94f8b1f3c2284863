"""What the demo's own OpenTelemetry providers collected: spans and metrics in memory, calls read from them, export.

It reads what Shekel told, by attribute name, as any backend would; it never looks into Shekel itself.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from ..telemetry import names

_TIMEOUT = 3.0
"""Seconds that an export may take: a collector that is there answers in far less."""


@dataclass(frozen=True, slots=True)
class CallSeen:
    """One call as its span tells of it. Tokens, and USD where the name says cost."""

    name: str
    model: str
    asked: str
    input: int
    cached: int
    output: int
    cost: float
    low: float
    most: float
    estimated: bool
    outcome: str
    response_id: str
    started: int

    @property
    def sent(self) -> bool:
        """Whether the provider ever saw it."""
        return self.outcome != "refused"


@dataclass(frozen=True, slots=True)
class Sent:
    """How an export went: a sentence for the user, and whether all is well."""

    sentence: str
    ok: bool = True


class Recording:
    """The demo's tracer and meter providers, and what they collected."""

    def __init__(self) -> None:
        name = os.environ.get("OTEL_SERVICE_NAME") or "shekel-demo"
        resource = Resource.create({"service.name": name})
        self._memory = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        # The sampler is said: the environment's may drop what the demo is there to show.
        self.tracer_provider = TracerProvider(resource=resource, sampler=ALWAYS_ON, shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._memory))
        self.meter_provider = MeterProvider([self._reader], resource=resource, shutdown_on_exit=False)

    def spans(self) -> Sequence[ReadableSpan]:
        """All spans that have ended, in the order of their start."""
        return sorted(self._memory.get_finished_spans(), key=lambda span: span.start_time or 0)

    def calls(self) -> list[CallSeen]:
        """The calls among them."""
        return [call for span in self.spans() if (call := call_of(span)) is not None]

    def metric_total(self, name: str) -> float:
        """The sum of all points of a counter."""
        data = self._reader.get_metrics_data()
        total = 0.0
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    if metric.name == name:
                        total += sum(getattr(point, "value", 0) for point in metric.data.data_points)
        return total

    def export(self, endpoint: str | None) -> Sent:
        """Export everything over OTLP/HTTP, to `endpoint` or to where the environment says; to nowhere without both."""
        where = endpoint or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
        if not where:
            return Sent("To see this in your own backend: shekel demo --otlp http://localhost:4318")
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.metrics.export import MetricExportResult
        from opentelemetry.sdk.trace.export import SpanExportResult

        base = None if endpoint is None else endpoint.rstrip("/")
        spans = OTLPSpanExporter(endpoint=base and f"{base}/v1/traces", timeout=_TIMEOUT)
        metrics = OTLPMetricExporter(endpoint=base and f"{base}/v1/metrics", timeout=_TIMEOUT)
        finished, data = self.spans(), self._reader.get_metrics_data()
        log = logging.getLogger("opentelemetry.exporter.otlp.proto.http")
        level = log.level
        log.setLevel(logging.CRITICAL + 1)  # one sentence of ours says it, instead of a trace per attempt
        try:
            ok = spans.export(finished) is SpanExportResult.SUCCESS
            ok = ok and data is not None and metrics.export(data) is MetricExportResult.SUCCESS
        finally:
            log.setLevel(level)
            spans.shutdown()  # type: ignore[no-untyped-call]
            metrics.shutdown()
        if ok:
            return Sent(f"Exported {len(finished)} spans and the metrics over OTLP/HTTP to {where}")
        return Sent(
            f"Could not export over OTLP/HTTP to {where}: is a collector listening there? (HTTP is usually port 4318.)",
            ok=False,
        )

    def shutdown(self) -> None:
        self.tracer_provider.shutdown()
        self.meter_provider.shutdown()


def call_of(span: ReadableSpan) -> CallSeen | None:
    """The call that a span stands for; None if it stands for something else."""
    told: Any = span.attributes or {}
    if names.OUTCOME not in told:
        return None
    cost = told.get(names.COST_AMOUNT, 0.0)
    asked = told.get(names.REQUEST_MODEL, "")
    return CallSeen(
        name=span.name,
        model=told.get(names.RESPONSE_MODEL, asked),
        asked=told.get(names.FALLBACK_FROM, asked),
        input=told.get(names.USAGE_INPUT_TOKENS, 0),
        cached=told.get(names.USAGE_CACHE_READ, 0),
        output=told.get(names.USAGE_OUTPUT_TOKENS, 0),
        cost=cost,
        low=told.get(names.COST_LOW, cost),
        most=told.get(names.COST_COMMITTED, cost),
        estimated=told.get(names.COST_ESTIMATED, False),
        outcome=told[names.OUTCOME],
        response_id=told.get(names.RESPONSE_ID, ""),
        started=span.start_time or 0,
    )
