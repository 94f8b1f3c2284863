"""One stage for a case: ours and theirs put on in an order, one tracer provider, one stand-in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from shekel import ShekelInstrumentor
from shekel.testing import FakeProvider

from . import calls
from .instrumentations import ALL, Theirs, as_it_was

COST = "gen_ai.usage.cost.amount"


@dataclass(slots=True)
class Stage:
    """What a case sees: the clients, the stand-in, and the spans that were exported."""

    sdk: str
    theirs: tuple[Theirs, ...]
    provider: FakeProvider
    tracer_provider: TracerProvider
    exporter: InMemorySpanExporter
    clients: tuple[Any, Any] = field(init=False)

    def __post_init__(self) -> None:
        own = self.tracer_provider if any(not each.module for each in self.theirs) else None
        self.clients = calls.clients(self.sdk, self.provider, own)

    @property
    def spans(self) -> list[ReadableSpan]:
        self.tracer_provider.force_flush()  # those of streams that were dropped end in a thread of ours
        return [span for span in self.exporter.get_finished_spans() if not _http(span)]

    def spans_of(self, scope: str) -> list[ReadableSpan]:
        return [span for span in self.spans if scope_of(span) == scope]

    @property
    def priced(self) -> list[ReadableSpan]:
        """The spans that carry a cost."""
        return [span for span in self.spans if COST in (span.attributes or {})]


def scope_of(span: ReadableSpan) -> str:
    return "" if span.instrumentation_scope is None else span.instrumentation_scope.name


def _http(span: ReadableSpan) -> bool:
    return "httpx" in scope_of(span)


@contextmanager
def stage(sdk: str, names: Iterable[str], *, ours: str | None, provider: FakeProvider) -> Iterator[Stage]:
    """Put theirs on, and ours before (`ours="first"`), after ("last"), in between ("between") or not at all (None)."""
    theirs = tuple(ALL[name] for name in names)
    exporter = InMemorySpanExporter()
    tracer_provider = TracerProvider()
    tracer_provider.add_span_processor(SimpleSpanProcessor(exporter))
    with as_it_was():
        order: list[Theirs | None] = list(theirs)
        if ours is not None:
            order.insert({"first": 0, "between": 1, "last": len(order)}[ours], None)
        for each in order:
            if each is None:
                ShekelInstrumentor().instrument(tracer_provider=tracer_provider)
            else:
                each.on(tracer_provider)
        try:
            on = Stage(sdk, theirs, provider, tracer_provider, exporter)
            yield on
            on.clients[0].close()
        finally:
            if ours is not None:
                ShekelInstrumentor().uninstrument()
            for each in theirs:
                each.off()
