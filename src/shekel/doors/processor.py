"""ShekelSpanProcessor: where a span that stands for a call starts. FirstToEnd: what ends before a provider does.

It admits a call of our own doors when its span starts, and adopts the span that an SDK starts for a call that a door
has admitted already: there it never waits, asks or raises, and a refusal is left in the call for its door. Spans of
other instrumentations that stand for calls are the second door (`traced`): what they may not send, they are told where
their span starts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from .. import context as ctx
from .. import dialects, faults, late
from ..call import Call
from ..telemetry import names
from ..telemetry.spans import adopt, request_attributes
from . import errors, surroundings, traced

if TYPE_CHECKING:
    from ..runtime import Runtime


class ShekelSpanProcessor(SpanProcessor):
    """Reads the meters of the scopes in a span's context, and admits the call that the span stands for.

    `ShekelInstrumentor().instrument()` adds one to each tracer provider in use; it can also be added by hand, with
    `provider.add_span_processor(ShekelSpanProcessor())`. Several on one provider do no harm. One that was added by hand
    works on its own, without `instrument()` too; the others rest while nobody needs Shekel.
    """

    def __init__(self, runtime: Runtime | None = None) -> None:
        self._by_hand = runtime is None
        if runtime is None:
            from ..runtime import the_runtime

            runtime = the_runtime()
        self._runtime = runtime

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Admit, or adopt. A span that stands for no call is none of our business.

        Raises:
            BudgetExceededError: the call behind a span of another instrumentation may not be sent. The span is ended.
            ToolBudgetExceededError: the same for the run of a tool.
        """
        here = ctx.current() if parent_context is None else parent_context
        runtime = self._runtime
        if self._by_hand or runtime.wanted:
            surroundings.started(runtime, span, here)
        call = here.get(ctx.CALL)
        refusal = None
        try:
            if not isinstance(call, Call) or not call.is_open:
                if self._by_hand or runtime.wanted:
                    refusal = traced.begin(runtime, span, here, told=self._by_hand or runtime.telling())
            elif not call.decided:
                runtime.gate.admit(call, here)
            elif call.span is None and _stands_for(span):
                span.set_attributes(request_attributes(call, runtime.scope_of(here)))
                adopt(call, span, errors.being_handled)
                runtime.teller.admitted(call)
        except Exception as error:
            faults.report("looked at a span that started", error)
        if refusal is not None:
            raise refusal

    def on_end(self, span: ReadableSpan) -> None:
        """Nothing is written, as a span is frozen here; calls may go on inside it."""
        surroundings.ended(span)

    def shutdown(self) -> None:
        """End the spans of streams that were dropped, and go on: enforcement does not end with telemetry."""
        late.told()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """End the spans of streams that were dropped. Those wait for a moment only, and nothing else is held back.

        Args:
            timeout_millis: how long to wait at most, in milliseconds.

        Returns:
            Whether all have ended.
        """
        return late.told(timeout_millis / 1_000)


class FirstToEnd(SpanProcessor):
    """Ends the spans of streams that were dropped, before the processors that were there first flush or shut down."""

    def shutdown(self) -> None:
        """See `ShekelSpanProcessor`."""
        late.told()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """The same; at most half of the time is taken from those that come after it."""
        return late.told(min(timeout_millis / 2_000, late.PATIENCE))


def end_first(provider: Any) -> None:
    """Put a `FirstToEnd` before all processors of a provider.

    A provider has no way to do so that is public. Where it keeps them otherwise, those that were there before us flush
    first, as they did.
    """
    kept: Any = getattr(provider, "_active_span_processor", None)
    lock = getattr(kept, "_lock", None)
    if lock is not None and isinstance(getattr(kept, "_span_processors", None), tuple):
        with lock:
            kept._span_processors = (FirstToEnd(), *kept._span_processors)


def _stands_for(span: Span) -> bool:
    """Whether it is the SDK's own span of the call that it started in, or another instrumentation's."""
    scope = getattr(span, "instrumentation_scope", None)
    name = "" if scope is None else scope.name or ""
    if name in (names.ANTHROPIC_SCOPE, names.SCOPE):
        return name != names.SCOPE  # a span that our own teller is just starting is no adopted one
    return dialects.find(dialects.Seen(name, span.name, span.attributes or {})) is not None
