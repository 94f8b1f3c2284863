"""The floor: what telemetry itself costs. The same span and the same metric records, made by hand around a plain call.

What is told of a call is listened to once (`Listener`) and then repeated by `Floor`: a span with the same name, kind
and attributes, those known before the call set when it starts, the others before it ends; and the same amounts on the
same instruments, with as many attribute dicts. Nothing is measured, counted or decided by it, and nothing is made
current.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from opentelemetry.context import Context
from opentelemetry.metrics import MeterProvider
from opentelemetry.sdk.metrics import MeterProvider as SdkMeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.trace import SpanKind, set_span_in_context


class _Heard:
    """Instruments of a real meter, whose records are listened to."""

    def __init__(self, real: Any, records: list[tuple[str, Any, dict[str, Any]]]) -> None:
        self._real = real
        self._records = records

    def __getattr__(self, name: str) -> Any:
        create = getattr(self._real, name)
        if name not in ("create_counter", "create_histogram"):
            return create

        def made(instrument: str, *args: Any, **kwargs: Any) -> Any:
            real = create(instrument, *args, **kwargs)
            verb = "add" if name == "create_counter" else "record"
            return _HeardInstrument(instrument, getattr(real, verb), verb, self._records)

        return made


class _HeardInstrument:
    def __init__(self, name: str, real: Callable[..., None], verb: str, records: list[Any]) -> None:
        def tell(amount: float, attributes: Any = None, context: Any = None) -> None:
            records.append((name, amount, attributes))
            real(amount, attributes, context)

        setattr(self, verb, tell)


class HearingMeterProvider(MeterProvider):
    """A meter provider that passes everything on to a real one, and keeps what was recorded."""

    def __init__(self, real: SdkMeterProvider) -> None:
        self._real = real
        self.records: list[tuple[str, Any, dict[str, Any]]] = []

    def get_meter(self, *args: Any, **kwargs: Any) -> Any:
        return _Heard(self._real.get_meter(*args, **kwargs), self.records)


class HearingProcessor(SpanProcessor):
    """Keeps what spans were told at their start and at their end."""

    def __init__(self) -> None:
        self.started: dict[str, Any] = {}
        self.ended: ReadableSpan | None = None

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        self.started = dict(span.attributes or {})

    def on_end(self, span: ReadableSpan) -> None:
        self.ended = span


@dataclass(frozen=True, slots=True)
class Told:
    """What was told of one call.

    Attributes:
        name, before, after: the span's name, and its attributes from its start and from its end.
        records: instrument, amount, and which of `dicts` goes with it.
        dicts: the attributes of the records, each dict once.
    """

    name: str
    before: dict[str, Any]
    after: dict[str, Any]
    records: tuple[tuple[str, Any, int], ...]
    dicts: tuple[dict[str, Any], ...]


class Listener:
    """Providers to run one call under, to learn what is told of it."""

    def __init__(self) -> None:
        self._spans = HearingProcessor()
        self.tracer_provider = TracerProvider()
        self.tracer_provider.add_span_processor(self._spans)
        self.meter_provider = HearingMeterProvider(SdkMeterProvider([InMemoryMetricReader()]))

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen to the one call that is made in this block."""
        self.meter_provider.records.clear()
        self._spans.ended = None
        yield

    def told(self) -> Told:
        """What was told of that call; one span, which has ended."""
        span = self._spans.ended
        assert span is not None, "no span ended"
        after = {k: v for k, v in (span.attributes or {}).items() if self._spans.started.get(k) != v}
        dicts: list[dict[str, Any]] = []
        records = []
        for name, amount, attributes in self.meter_provider.records:
            at = next((n for n, known in enumerate(dicts) if known is attributes), len(dicts))
            if at == len(dicts):
                dicts.append(attributes)
            records.append((name, amount, at))
        return Told(span.name, self._spans.started, after, tuple(records), tuple(dict(d) for d in dicts))


class Floor:
    """Tells the same of each call, by hand.

    Args:
        told: what to tell.
        tracer_provider, meter_provider: as those of the measured instrumentation.
    """

    def __init__(self, told: Told, tracer_provider: TracerProvider, meter_provider: SdkMeterProvider) -> None:
        self._told = told
        self._tracer = tracer_provider.get_tracer("floor")
        meter = meter_provider.get_meter("floor")
        histograms = {name for name, _, _ in told.records if name.startswith("gen_ai.")}
        made = {
            name: meter.create_histogram(name).record if name in histograms else meter.create_counter(name).add
            for name in {name for name, _, _ in told.records}
        }
        self._records = tuple((made[name], amount, at) for name, amount, at in told.records)

    def start(self) -> Any:
        """Start the span."""
        return self._tracer.start_span(self._told.name, kind=SpanKind.CLIENT, attributes=dict(self._told.before))

    def end(self, span: Any) -> None:
        """Write, record, end."""
        told = self._told
        span.set_attributes(dict(told.after))
        context = set_span_in_context(span, Context())
        dicts = [dict(attributes) for attributes in told.dicts]
        for record, amount, at in self._records:
            record(amount, dicts[at], context)
        span.end()
