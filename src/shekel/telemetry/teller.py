"""The teller: tells of each call, once, by a span and by metrics, wherever the program's OpenTelemetry sends them.

It is bound by `instrument()`, and until then it is silent; money does not depend on it. The tracer and the meter come
from the providers given, else from the global ones, also where those are set later.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind

from .. import faults, locks
from ..call import Call
from ..context import suppressed
from ..settlement import Cost, Outcome
from . import listeners, names
from .decisions import DecisionLog, Recent, condition
from .events import LimitEvent, refusal_event, threshold_event, usage_event
from .metrics import BudgetRow, Instruments
from .spans import left_open, request_attributes, span_name, write_admission, write_end
from .tools import start_tool

if TYPE_CHECKING:
    from ..budgets.claims import Claim
    from ..budgets.thresholds import Thresholds
    from ..ledgers.base import Balance


class Teller:
    """Starts and ends spans, records metrics.

    Args:
        budgets: what the budget gauges show.
        version: of the package, for the instrumentation scope.
    """

    def __init__(self, budgets: Callable[[], Iterable[BudgetRow]], version: str) -> None:
        self.bound = False
        self.metric_scopes: tuple[str, ...] = ()
        self._budgets = budgets
        self._version = version
        self.tracer_provider: Any = None
        self._tracer: Any = None
        self._instruments: Instruments | None = None
        self._log: DecisionLog | None = None
        self._recent = Recent()
        self._meters: dict[int, tuple[Any, Instruments]] = {}

    def bind(self, tracer_provider: Any = None, meter_provider: Any = None, logger_provider: Any = None) -> None:
        """Tell from now on, to these providers, or to the global ones (None)."""
        self.tracer_provider = tracer_provider
        self._tracer = trace.get_tracer(names.SCOPE, self._version, tracer_provider, schema_url=names.SCHEMA_URL)
        provider = meter_provider if meter_provider is not None else metrics.get_meter_provider()
        known = self._meters.get(id(provider))
        if known is None or known[0] is not provider:
            # Instruments are made once per provider: a second set of the same gauges would report twice.
            meter = metrics.get_meter(names.SCOPE, self._version, meter_provider, schema_url=names.SCHEMA_URL)
            known = self._meters[id(provider)] = (provider, Instruments(meter, self._budgets))
        self._instruments = known[1]
        self._log = DecisionLog(self._version, logger_provider)
        self.bound = True

    def unbind(self) -> None:
        """Fall silent."""
        self.bound = False
        self._tracer = None
        self._instruments = None
        self._log = None
        self.tracer_provider = None

    def provider(self) -> Any:
        """The tracer provider in use now."""
        return self.tracer_provider if self.tracer_provider is not None else trace.get_tracer_provider()

    def start(self, call: Call, context: Context, scope: Mapping[str, str]) -> Span | None:
        """Start the span of a call in `context`, which carries the call; None while silent."""
        tracer = self._tracer
        if tracer is None or not call.told:
            return None
        span: Span = tracer.start_span(
            span_name(call),
            context=context,
            kind=SpanKind.CLIENT,
            attributes=request_attributes(call, scope),
            record_exception=False,
            set_status_on_exception=False,
        )
        call.span = span
        return span

    def tool(self, name: str, here: Context) -> Span | None:
        """Start the span of a tool's run; None while silent, or where spans are suppressed."""
        return None if self._tracer is None or suppressed(here) else start_tool(self._tracer, name, here)

    def admitted(self, call: Call) -> None:
        """What the admission decided, on the span."""
        span = call.span
        decided = call.fallback_from is not None or call.cap is not None or call.allowances
        if span is not None and decided and span.is_recording():
            write_admission(call, span)
        if decided and call.fallback_from is not None and self._log is not None and call.told:
            with locks.Telling():
                self._log.fallback(call)

    def finished(self, call: Call, cost: Cost) -> None:
        """Tell of a call that has ended. Never raises."""
        with locks.Telling():
            self._finished(call, cost)
        try:
            problem = call.refusal or call.cut or call.aftermath
            if problem is not None:
                self._decided(call, problem)
            if call.outcome is not Outcome.REFUSED and (told := listeners.of(listeners.USAGE)):
                event = usage_event(call, cost)
                for each in told:
                    each.tell(event)
        except Exception as error:
            faults.report("told of a call", error)

    def _finished(self, call: Call, cost: Cost) -> None:
        span = call.span
        try:
            if span is not None and not call.adopted and span.is_recording():
                write_end(call, span, cost, call.outcome, own=True)
        except Exception as error:
            faults.report("wrote a span", error)
        try:
            if self._instruments is not None and call.told:
                context = None if span is None else trace.set_span_in_context(span, Context())
                self._instruments.record(call, cost, context, self.metric_scopes)
        except Exception as error:
            faults.report("recorded metrics", error)
        finally:
            if span is not None and (not call.adopted or left_open(call)):
                span.end()

    # Decisions

    def _decided(self, call: Call, problem: Exception) -> None:
        """A call was refused or cut, or a stream was let to its end."""
        decision = "refused" if call.refusal is not None else "cut" if call.cut is not None else "finished"
        event = refusal_event(problem, decision, call.scope, call.moment() / 1_000_000, call.model)
        if event is not None:
            self._tell(event, call, listeners.HARD)

    def tool_refused(self, problem: Exception, here: Context, scope: Mapping[str, str]) -> None:
        """A tool was refused. Never raises."""
        try:
            event = refusal_event(problem, "refused", scope, time.time())
            if event is not None:
                self._tell(event, None, listeners.HARD, silent=suppressed(here))
        except Exception as error:
            faults.report("told of a tool", error)

    def warned(self, claim: Claim, used: int, share: float, call: Call | None) -> None:
        """A budget's own threshold was crossed."""
        scope, model = ({}, None) if call is None else (call.scope, call.model)
        self._tell(threshold_event(claim, used, 0, scope, time.time(), model), call, listeners.SOFT, share)

    def watching(self, claim: Claim, now: int) -> None:
        """A limit before a settlement at a time: see `watched`, and `Thresholds` for why."""
        for _, thresholds in _without_own(claim):
            thresholds.arm(claim, now)

    def watched(self, call: Call, claim: Claim, balance: Balance) -> None:
        """What a limit shows after a settlement, for those who listen for limits without thresholds of their own."""
        for each, thresholds in _without_own(claim):
            for share in thresholds.crossed(claim, balance.settled, call.moment()):
                event = threshold_event(claim, balance.settled, balance.held, call.scope, time.time(), call.model)
                if self._recent.is_new((id(each), condition(event, share))):
                    each.tell(event)

    def _tell(
        self, event: LimitEvent, call: Call | None, kind: str, share: float | None = None, *, silent: bool = False
    ) -> None:
        """To the log, where it is wanted, and to those who listen; each once per condition in five seconds."""
        if self._log is not None and not silent and (call is None or call.told):
            with locks.Telling():
                self._log.limit(event, call, share)
        told = listeners.of(kind)
        if told and self._recent.is_new((kind, condition(event, share))):
            for each in told:
                each.tell(event)

    def event(self, call: Call, name: str, attributes: Mapping[str, Any]) -> None:
        """An event on the call's span."""
        if call.span is not None and call.span.is_recording():
            call.span.add_event(name, dict(attributes))

    def overran(self, name: str | None, nano: int, cause: str) -> None:
        """A meter went over its limit."""
        if self._instruments is not None:
            self._instruments.overran(name, nano, cause)

    def shadowed(self, name: str | None, decision: str) -> None:
        """What a shadow budget would have decided."""
        if self._instruments is not None:
            self._instruments.shadowed(name, decision)

    def violated(self, model: str) -> None:
        """A call cost more than its bound."""
        if self._instruments is not None:
            self._instruments.violated(model)


def _without_own(claim: Claim) -> Iterator[tuple[listeners.Subscription, Thresholds]]:
    """Who is told at a threshold of his own of a limit that has none."""
    owner = claim.account or claim.row
    if not claim.votes or (owner is not None and owner.warns):
        return
    for each in listeners.of(listeners.SOFT):
        if each.thresholds is not None:
            yield each, each.thresholds
