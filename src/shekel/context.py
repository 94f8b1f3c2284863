"""What travels in the OpenTelemetry context: the budgets of the block, the scope, and the call on its way.

The context is the carrier, because it already follows the work: tasks inherit it, and thread instrumentations carry
it. Entries live under private keys, so that nothing that came from outside can be mistaken for ours. Detaching in
another context than the one attached in (a generator resumed elsewhere) is no error here: there is nothing to undo.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Token
from typing import Any

from opentelemetry import baggage
from opentelemetry import context as otel
from opentelemetry.context import Context

BUDGETS = otel.create_key("shekel-budgets")
"""A tuple of the budgets of the enclosing blocks, outermost first."""

MARKS = otel.create_key("shekel-marks")
"""A tuple of the marks of those blocks, in the same order: while one is in a context, calls are to be seen."""

LAST_CALL = otel.create_key("shekel-last-call")
"""The ids of the budgets whose reserve the calls of a block may spend."""

SCOPE = otel.create_key("shekel-scope")
"""A mapping of the scope entries that `shekel.scope` set in this process."""

TOOLS = otel.create_key("shekel-tools")
"""A tuple of the runs of tools that the context is inside, outermost first."""

RUN = otel.create_key("shekel-run")
"""The name of the tool whose run is just being admitted."""

NAMED = otel.create_key("shekel-named")
"""Keys of baggage entries that a signature from outside named before one of ours took its place."""

LOOKED = otel.create_key("shekel-looked")
"""The baggage that a scope has made, whose entries from outside were looked at before: those that count are its own."""

BAGGAGE: str = getattr(baggage, "_BAGGAGE_KEY", "baggage")
"""Where OpenTelemetry's API keeps the baggage; without it, nothing from outside is found, and so nothing counts."""

CALL = otel.create_key("shekel-call")
"""The call that is being sent."""

NOWHERE = Context()
"""In place of a context that is needed no more: one that is kept keeps its blocks in force."""

OURS = frozenset({BUDGETS, MARKS, LAST_CALL, SCOPE, CALL})
"""All of them."""

_runtime: Any = getattr(otel, "_RUNTIME_CONTEXT", None)


def last_calls(here: Context) -> frozenset[int]:
    """The ids of the budgets whose reserve calls made in a context may spend."""
    found: frozenset[int] = here.get(LAST_CALL, frozenset())  # type: ignore[assignment]
    return found


def detach(token: Token[Context]) -> None:
    """Undo `attach`. In another context than the one attached in, do nothing.

    `opentelemetry.context.detach` logs an error there; a generator that a web framework resumes in a fresh copy of
    the context for each chunk is no error of anybody's.
    """
    if _runtime is None:
        otel.detach(token)
        return
    try:
        _runtime.detach(token)
    except (ValueError, RuntimeError):
        return


_SUPPRESS = tuple(
    key
    for key in (
        getattr(otel, "_SUPPRESS_INSTRUMENTATION_KEY", None),
        "suppress_instrumentation",
        "suppress_language_model_instrumentation",
    )
    if key is not None
)


def suppressed(context: Context) -> bool:
    """Whether others asked instrumentations to be silent here. It never silences money."""
    return any(context.get(key) for key in _SUPPRESS)


attach: Callable[[Context], Token[Context]] = otel.attach
current: Callable[[], Context] = otel.get_current


def with_budgets(here: Context) -> Context:
    """A context, with the budgets of the blocks that the program is in, where whoever traces gave none of them."""
    now = current()
    if BUDGETS in here or BUDGETS not in now:
        return here
    more = {key: now[key] for key in (BUDGETS, MARKS, LAST_CALL) if key in now}
    return Context({**here, **more})
