"""Every end is an end: thirteen ends of a stream, sync and async, five ways to stream; each is one span and one charge.

The program sees what the plain SDK shows it; the provider sees the connection closed; nobody is warned.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from shekel import budget
from shekel.instrumentor import ShekelInstrumentor

from .endings import ENDS, End
from .run import Ended, run
from .ways import WAYS, Way

EVERY = [
    pytest.param(way, end, kind == "async", id=f"{end.name}-{way.name}-{kind}")
    for end in ENDS
    for way in WAYS
    for kind in end.kinds
]


@contextmanager
def shekel(exporter: InMemorySpanExporter) -> Iterator[None]:
    """Shekel on, with providers of its own."""
    traces, meters = TracerProvider(), MeterProvider()
    traces.add_span_processor(SimpleSpanProcessor(exporter))
    ShekelInstrumentor().instrument(tracer_provider=traces, meter_provider=meters)
    try:
        yield
    finally:
        ShekelInstrumentor().uninstrument()
        traces.shutdown()
        meters.shutdown()


@dataclass(frozen=True, slots=True)
class Metered:
    """One end, plain and metered, and what Shekel knew of it then."""

    plain: Ended
    ended: Ended
    spans: tuple[ReadableSpan, ...]
    held: float
    spent: float
    remaining: float | None
    calls: list[dict[str, Any]]


def compared(way: Way, end: End, is_async: bool, monkeypatch: pytest.MonkeyPatch) -> Metered:
    """Run one end with the plain SDK and with ours. The program must see the same, and nobody be warned."""
    monkeypatch.setenv("ANTHROPIC_OPEN_TELEMETRY", "false")
    # What the plain SDK never closes is not waited for.
    plain = run(way, end, is_async=is_async, settled=lambda: True, patience=0.0)

    exporter = InMemorySpanExporter()
    with shekel(exporter), budget(max_usd=5, name="x") as limited:
        ended = run(way, end, is_async=is_async, settled=lambda: limited.held == 0.0)
        held, spent, calls = limited.held, limited.spent, limited.summary_data()["calls"]
        remaining = limited.remaining

    assert ended.error == plain.error, "the program sees another exception"
    assert ended.seen == plain.seen, "the program sees other events"
    assert ended.noise == [], "somebody is warned"
    return Metered(plain, ended, exporter.get_finished_spans(), held, spent, remaining, calls)


@pytest.mark.parametrize(("way", "end", "is_async"), EVERY)
def test_one_span_one_charge_and_nothing_left(
    way: Way, end: End, is_async: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    metered = compared(way, end, is_async, monkeypatch)
    plain, ended, finished = metered.plain, metered.ended, metered.spans
    held, spent, calls = metered.held, metered.spent, metered.calls
    assert len(finished) == 1, f"spans: {[span.name for span in finished]}"
    span = finished[0]
    attributes = dict(span.attributes or {})
    failed = end.failed if end.failed is not None else bool(plain.error)
    assert span.status.status_code is (StatusCode.ERROR if failed else StatusCode.UNSET), attributes
    assert ("error.type" in attributes) == failed, attributes
    assert held == 0.0, "a hold is left"
    assert len(calls) == 1, calls
    assert spent > 0, "nothing was charged"
    assert metered.remaining == pytest.approx(5 - spent)
    assert calls[0]["cost"] == pytest.approx(spent), calls
    assert attributes.get("gen_ai.usage.cost.amount") == pytest.approx(spent)
    if end.name == "exhausted":
        assert spent == pytest.approx(ended.bill), "the charge is not the provider's bill"
    assert ended.closed, "the provider still has the connection open"
