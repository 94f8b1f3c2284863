"""ShekelSpanProcessor: where a span that stands for a call starts.

It admits a call of our own doors when its span starts, and adopts the span that an SDK starts for a call that a door
has admitted already. It never waits, asks or raises: a refusal is left in the call for its door.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from .. import context as ctx
from .. import faults
from ..call import Call
from ..telemetry import names
from ..telemetry.spans import adopt, request_attributes
from . import errors

if TYPE_CHECKING:
    from ..runtime import Runtime


class ShekelSpanProcessor(SpanProcessor):
    """Reads the meters of the scopes in a span's context, and admits the call that the span stands for.

    `ShekelInstrumentor().instrument()` adds one to each tracer provider in use; it can also be added by hand, with
    `provider.add_span_processor(ShekelSpanProcessor())`. Several on one provider do no harm.
    """

    def __init__(self, runtime: Runtime | None = None) -> None:
        if runtime is None:
            from ..runtime import the_runtime

            runtime = the_runtime()
        self._runtime = runtime

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Admit, or adopt. Anything else that starts is none of our business."""
        here = ctx.current() if parent_context is None else parent_context
        call = here.get(ctx.CALL)
        if not isinstance(call, Call) or not call.is_open:
            return
        try:
            if not call.decided:
                self._runtime.gate.admit(call, here)
            elif call.span is None and _is_native(span):
                span.set_attributes(request_attributes(call, self._runtime.scope_of(here)))
                adopt(call, span, errors.being_handled)
                self._runtime.teller.admitted(call)
        except Exception as error:
            faults.report("looked at a span that started", error)

    def on_end(self, span: ReadableSpan) -> None:
        """Nothing: a span is frozen here."""

    def shutdown(self) -> None:
        """Nothing: enforcement does not end with telemetry."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing is held back here."""
        return True


def _is_native(span: Any) -> bool:
    scope = getattr(span, "instrumentation_scope", None)
    return scope is not None and scope.name == names.ANTHROPIC_SCOPE
