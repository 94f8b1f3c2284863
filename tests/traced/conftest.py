"""A tracer provider that Shekel watches, and what was exported from it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from shekel import ShekelInstrumentor
from shekel.runtime import the_runtime


@pytest.fixture(autouse=True)
def nothing_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is expected of a model depends on the calls before: not on those of other tests."""
    monkeypatch.setattr(the_runtime().estimator, "_models", {})


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer_provider(exporter: InMemorySpanExporter) -> TracerProvider:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider


@pytest.fixture
def reader() -> InMemoryMetricReader:
    return InMemoryMetricReader()


@pytest.fixture
def watched(tracer_provider: TracerProvider, reader: InMemoryMetricReader) -> Iterator[TracerProvider]:
    """The provider while Shekel is instrumented."""
    meters = MeterProvider([reader])
    ShekelInstrumentor().instrument(tracer_provider=tracer_provider, meter_provider=meters)
    yield tracer_provider
    ShekelInstrumentor().uninstrument()
