"""The span of one run of a tool: `execute_tool {name}`, with the tool's name and how it ended. Never what went into it
or came out.
"""

from __future__ import annotations

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer

from . import names


def start_tool(tracer: Tracer, name: str, here: Context) -> Span:
    """Start the span of a tool's run in a context."""
    return tracer.start_span(
        f"{names.EXECUTE_TOOL} {name}",
        context=here,
        kind=SpanKind.INTERNAL,
        attributes={names.OPERATION_NAME: names.EXECUTE_TOOL, names.TOOL_NAME: name},
        record_exception=False,
        set_status_on_exception=False,
    )


def end_tool(span: Span, error: BaseException | None) -> None:
    """End it, with the type of the error that ended the run; an error's text may quote what the tool was given."""
    if error is not None and span.is_recording():
        kind = type(error)
        module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
        span.set_attribute(names.ERROR_TYPE, f"{module}{kind.__qualname__}")
        span.set_status(Status(StatusCode.ERROR))
    span.end()


def refuse_tool(span: Span, refusal: Exception) -> None:
    """End somebody else's span of a run that is refused, with why."""
    if not span.is_recording():
        return
    span.set_attribute(names.DECISION, "refused")
    told: dict[str, str] = {}
    if (budget := getattr(refusal, "budget", None)) is not None:
        told[names.BUDGET_NAME] = budget
    if (part := getattr(refusal, "part", None)) is not None:
        told[names.BUDGET_PART] = part
    if (unit := getattr(refusal, "exceeded_counter", None)) is not None:
        told[names.BUDGET_UNIT] = unit
    span.set_attributes(told)
    span.add_event(names.EVENT_REFUSAL, told)
    end_tool(span, refusal)
