"""Decisions of budgets, told apart from the calls: to listeners, and as log records, an audit trail.

A refusal, a cut, a warning and a fallback are told once per condition in five seconds, to each of the two: a client
that tries a thousand times a second fills no log. A condition is what was decided, why, by which budget, for whom.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry._logs import LogRecord, SeverityNumber, get_logger
from opentelemetry.context import Context

from .. import faults, locks
from . import names
from .events import LimitEvent

if TYPE_CHECKING:
    from ..call import Call

QUIET = 5.0
"""Seconds in which a condition is told once."""

REMEMBERED = 10_000
"""Conditions that are remembered at most; beyond, the oldest is forgotten, and may be told again earlier."""

_OF_A_MODEL = ("unpriced", "unbounded", "busy")
"""Reasons that belong to the model that was asked for, and not to how full a budget is."""


clock: Callable[[], float] = time.monotonic
"""Seconds; a test may put another in its place."""


class Recent:
    """Conditions that were told within the last five seconds."""

    def __init__(self) -> None:
        self._told: OrderedDict[Hashable, float] = OrderedDict()

    def is_new(self, condition: Hashable) -> bool:
        """Whether a condition is to be told now; then it is not again for five seconds."""
        now = clock()
        with locks.books:
            told = self._told
            last = told.get(condition)
            if last is not None and now - last < QUIET:
                return False
            told[condition] = now
            told.move_to_end(condition)
            while told and (len(told) > REMEMBERED or now - next(iter(told.values())) >= QUIET):
                told.popitem(last=False)
            return True


def condition(event: LimitEvent, threshold: float | None = None) -> Hashable:
    """What makes two events the same condition."""
    model = event.model if event.reason in _OF_A_MODEL else None
    return (
        event.decision, event.reason, event.budget, event.limited, event.unit, event.limit,
        event.user_id, event.tool, model, threshold,
    )  # fmt: skip


class DecisionLog:
    """Writes decisions through the logs API of OpenTelemetry, to the provider given, else to the global one.

    Args:
        version: of the package, for the instrumentation scope.
        logger_provider: None for the global one, also where that is set later.
    """

    def __init__(self, version: str, logger_provider: Any = None) -> None:
        self._logger = get_logger(names.SCOPE, version, logger_provider, names.SCHEMA_URL)
        self._recent = Recent()

    def limit(self, event: LimitEvent, call: Call | None, threshold: float | None = None) -> None:
        """A refusal, a cut, a warning."""
        if not self._logger.enabled(severity_number=SeverityNumber.WARN, event_name=names.EVENT_DECISION):
            return
        if not self._recent.is_new(condition(event, threshold)):
            return
        attributes: dict[str, Any] = {**event.scope, names.DECISION: event.decision}
        attributes[names.DECISION_REASON] = event.reason
        if event.budget is not None:
            attributes[names.BUDGET_NAME] = event.budget
        if event.limited is not None:
            attributes[names.BUDGET_SCOPE] = event.limited
        if event.model:
            attributes[names.REQUEST_MODEL] = event.model
        if event.tool is not None:
            attributes[names.TOOL_NAME] = event.tool
        if event.unit in (None, "usd"):
            attributes[names.BUDGET_LIMIT_USD] = event.limit
            attributes[names.BUDGET_SPENT_USD] = event.used
        else:
            attributes[names.BUDGET_UNIT] = event.unit
            attributes[names.BUDGET_LIMIT] = event.limit
            attributes[names.BUDGET_USED] = event.used
        if event.status == "hard" and call is not None:
            attributes[names.ERROR_TYPE] = type(call.refusal or call.cut or call.aftermath).__name__
        self._emit(attributes, event.message, call, SeverityNumber.WARN)

    def fallback(self, call: Call) -> None:
        """A call goes to another model than the one that was asked for."""
        if not self._logger.enabled(severity_number=SeverityNumber.INFO, event_name=names.EVENT_DECISION):
            return
        owner = call.fallback_of
        name = None if owner is None else owner.name
        user = call.scope.get(names.USER_ID)
        if not self._recent.is_new(("fallback", name, call.fallback_from, call.model, user)):
            return
        attributes: dict[str, Any] = {**call.scope, names.DECISION: "fallback", names.REQUEST_MODEL: call.model}
        attributes[names.FALLBACK_FROM] = call.fallback_from
        if name is not None:
            attributes[names.BUDGET_NAME] = name
        if owner is not None and owner.limit is not None and (balance := call.balance(owner)) is not None:
            attributes[names.BUDGET_LIMIT_USD] = owner.whole / 1_000_000_000
            attributes[names.BUDGET_SPENT_USD] = balance.settled / 1_000_000_000
        self._emit(attributes, f"Calls go to {call.model} instead of {call.fallback_from}.", call, SeverityNumber.INFO)

    def _emit(self, attributes: Mapping[str, Any], text: str, call: Call | None, severity: SeverityNumber) -> None:
        span = None if call is None else call.span
        try:
            self._logger.emit(
                LogRecord(
                    timestamp=time.time_ns(),
                    context=None if span is None else trace.set_span_in_context(span, Context()),
                    severity_number=severity,
                    severity_text=severity.name,
                    body=text,
                    attributes=dict(attributes),
                    event_name=names.EVENT_DECISION,
                )
            )
        except Exception as error:
            faults.report("wrote a log record", error)
