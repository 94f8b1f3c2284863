"""Runs records through the SDKs with and without instrumentation, and keeps what was seen and what was told.

A plain run and an instrumented run differ in the instrumentation alone: each has a server, clients and a tracer
provider of its own, and the same records in the same order.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from . import drive
from .clients import clients
from .collecting import collected_by_hand
from .drive import Surface
from .records import Record
from .server import WHOLE, Delivery, ReplayServer
from .transcript import Transcript, first_difference, first_difference_sent

Instrumentation = Callable[[TracerProvider, MeterProvider], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True)
class Exchange:
    """What one call showed the program, and what was told about it."""

    seen: Transcript
    spans: Sequence[ReadableSpan]
    logged: Sequence[str]


@contextmanager
def shekel(tracer_provider: TracerProvider, meter_provider: MeterProvider) -> Iterator[None]:
    """The instrumentation under test, on for the length of the block."""
    from shekel.instrumentor import ShekelInstrumentor

    ShekelInstrumentor().instrument(tracer_provider=tracer_provider, meter_provider=meter_provider)
    try:
        yield
    finally:
        ShekelInstrumentor().uninstrument()


def no_instrumentation(tracer_provider: TracerProvider, meter_provider: MeterProvider) -> AbstractContextManager[None]:
    """Nothing: the plain SDK."""
    return nullcontext()


class _Logged(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith(("shekel", "opentelemetry")):
            self.messages.append(f"{record.name}: {record.getMessage()}")


def run(
    records: Sequence[Record],
    surfaces: Mapping[str, Surface],
    *,
    is_async: bool,
    tracing: bool = False,
    instrumentation: Instrumentation = no_instrumentation,
    delivery: Delivery = WHOLE,
) -> dict[str, Exchange]:
    """Every record through every surface; the result is by "surface record-id".

    Args:
        tracing: whether anthropic's own tracing is on.
        instrumentation: what is on during the run.
        delivery: how the server hands over its answers.
    """

    async def all_of_them() -> dict[str, Exchange]:
        done: dict[str, Exchange] = {}
        with ReplayServer() as server, collected_by_hand() as collect:
            server.delivery = delivery
            its_clients = clients(server.port, is_async=is_async)
            for name, surface in surfaces.items():
                for record in records:
                    exporter.clear()
                    logged.messages.clear()
                    seen = await drive.exchange(server, its_clients, record, surface)
                    done[f"{name} {record.id}"] = Exchange(seen, exporter.get_finished_spans(), tuple(logged.messages))
                    collect()
            await its_clients.close()
        return done

    exporter, logged = InMemorySpanExporter(), _Logged()
    traces, meters = TracerProvider(), MeterProvider([InMemoryMetricReader()])
    traces.add_span_processor(SimpleSpanProcessor(exporter))
    with pytest.MonkeyPatch.context() as patch:
        # The SDK's own spans go to the global provider, which OpenTelemetry lets a process set only once.
        patch.setattr(trace, "_TRACER_PROVIDER", traces)
        patch.setenv("ANTHROPIC_OPEN_TELEMETRY", "true" if tracing else "false")
        logging.getLogger().addHandler(logged)
        try:
            with instrumentation(traces, meters):
                return asyncio.run(all_of_them()) if is_async else drive.run_now(all_of_them())
        finally:
            logging.getLogger().removeHandler(logged)
            traces.shutdown()
            meters.shutdown()


def differences(plain: Mapping[str, Exchange], other: Mapping[str, Exchange]) -> list[str]:
    """One line for each exchange that the program saw otherwise."""
    return _compared(plain, other, first_difference)


def differences_sent(plain: Mapping[str, Exchange], other: Mapping[str, Exchange]) -> list[str]:
    """One line for each exchange of which the provider was sent something else than it should."""
    return _compared(plain, other, first_difference_sent)


def _compared(
    plain: Mapping[str, Exchange],
    other: Mapping[str, Exchange],
    difference: Callable[[Transcript, Transcript], str | None],
) -> list[str]:
    assert plain.keys() == other.keys()
    assert plain, "nothing was compared"
    found = ((name, difference(exchange.seen, other[name].seen)) for name, exchange in plain.items())
    return [f"{name}: {what}" for name, what in found if what is not None]


def assert_none(found: Sequence[str], of: int) -> None:
    """Fail with the number of findings and the first few."""
    if found:
        shown = "\n  ".join(found[:8])
        raise AssertionError(f"{len(found)} of {of} exchanges:\n  {shown}")
