"""Tracer and meter providers that export over OTLP/HTTP while the program runs, as a service's own would."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Self

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

_EVERY_MS = 5_000
"""Between two exports of metrics: soon enough for somebody who watches."""

_SPANS_EVERY_MS = 1_000


class Exporting:
    """Set up on entering; on leaving everything is exported, then shut down. Global providers stay as they are.

    Args:
        endpoint: the base URL of an OTLP/HTTP receiver, such as http://localhost:4318.
    """

    def __init__(self, endpoint: str) -> None:
        base = endpoint.rstrip("/")
        resource = Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME") or "shekel-demo"})
        # The sampler is said: the environment's may drop what the demo is there to show.
        self.tracer_provider = TracerProvider(resource=resource, sampler=ALWAYS_ON, shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(
            BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{base}/v1/traces"), schedule_delay_millis=_SPANS_EVERY_MS)
        )
        reader = PeriodicExportingMetricReader(
            OTLPMetricExporter(endpoint=f"{base}/v1/metrics"), export_interval_millis=_EVERY_MS
        )
        self.meter_provider = MeterProvider([reader], resource=resource, shutdown_on_exit=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.tracer_provider.shutdown()
        self.meter_provider.shutdown()
