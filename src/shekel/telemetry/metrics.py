"""The metrics of calls and budgets. It is told and never asks.

Histograms are the conventions' own, with their bucket boundaries; counters are what dashboards add up. Everything is
recorded in the context of the call's span, without which there are no exemplars.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Meter, Observation

from .. import faults
from ..call import Call
from ..scopes import counts
from ..settlement import Cost, Outcome
from ..shown import shown
from . import names
from .spans import decision, innermost

if TYPE_CHECKING:
    from ..usage import Usage

NANO = 1_000_000_000

BudgetRow = tuple[str, float, float, float, str]
"""Budget name, spent, limit, held in USD, and the ledger's kind."""


Scoped = tuple[tuple[str, str], ...]
"""Entries of a call's scope that are allowed on metrics."""

KEPT_SERIES = 1_000
"""How many series' attributes are kept, so that they need not be made for each call anew."""


class _Series:
    """The attributes that calls of one model at one place have in common, and those with one more. Never changed."""

    __slots__ = ("_more", "common")

    def __init__(
        self, operation: str, provider: str, model: str, answered: str | None, host: str | None, port: int | None
    ) -> None:
        self.common: dict[str, Any] = {names.OPERATION_NAME: operation, names.PROVIDER_NAME: provider}
        if model:
            self.common[names.REQUEST_MODEL] = model
        if answered:
            self.common[names.RESPONSE_MODEL] = answered
        if host:
            self.common[names.SERVER_ADDRESS] = host
            if port is not None:
                self.common[names.SERVER_PORT] = port
        self._more: dict[tuple[str, Any, Scoped], dict[str, Any]] = {}

    def plus(self, name: str, value: str | bool, scoped: Scoped = ()) -> dict[str, Any]:
        """The common attributes and one more, of few values, and what is allowed of the scope."""
        known = self._more.get((name, value, scoped))
        if known is None:
            if len(self._more) >= KEPT_SERIES:
                self._more.clear()
            # A scope key never stands for what a call is: the attributes of the call go over it.
            known = self._more[name, value, scoped] = {**dict(scoped), **self.common, name: value}
        return known


class Instruments:
    """All instruments of one meter.

    Args:
        meter: made with the name and the schema of the scope.
        budgets: what the gauges show, from a local snapshot.
    """

    def __init__(self, meter: Meter, budgets: Callable[[], Iterable[BudgetRow]]) -> None:
        self._series: dict[tuple[Any, ...], _Series] = {}
        self._tokens = meter.create_histogram(
            names.METRIC_TOKEN_USAGE,
            unit=names.UNIT_TOKEN,
            description="Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=list(names.TOKEN_BUCKETS),
        )
        self._duration = meter.create_histogram(
            names.METRIC_DURATION,
            unit=names.UNIT_SECOND,
            description="GenAI operation duration.",
            explicit_bucket_boundaries_advisory=list(names.DURATION_BUCKETS),
        )
        self._first_chunk = meter.create_histogram(
            names.METRIC_TIME_TO_FIRST_CHUNK,
            unit=names.UNIT_SECOND,
            description="Time to the first chunk of a streamed answer.",
            explicit_bucket_boundaries_advisory=list(names.DURATION_BUCKETS),
        )
        self._cost = meter.create_histogram(
            names.METRIC_COST,
            unit=names.UNIT_USD,
            description="Cost of one call.",
            explicit_bucket_boundaries_advisory=list(names.COST_BUCKETS),
        )
        self._spend = meter.create_counter(names.METRIC_SPEND, unit=names.UNIT_USD, description="Money spent.")
        self._all_tokens = meter.create_counter(names.METRIC_TOKENS, unit=names.UNIT_TOKEN, description="Tokens used.")
        self._calls = meter.create_counter(names.METRIC_CALLS, unit=names.UNIT_CALL, description="Calls by outcome.")
        self._decisions = meter.create_counter(
            names.METRIC_DECISIONS, unit=names.UNIT_CALL, description="What budgets decided about calls."
        )
        self._savings = meter.create_counter(
            names.METRIC_CACHE_SAVINGS, unit=names.UNIT_USD, description="What cache reads saved against full price."
        )
        self._unpriced = meter.create_counter(
            names.METRIC_UNPRICED, unit=names.UNIT_CALL, description="Calls whose model has no known price."
        )
        self._overrun = meter.create_counter(
            names.METRIC_OVERRUN, unit=names.UNIT_USD, description="Money by which a limit was exceeded, by cause."
        )
        self._violations = meter.create_counter(
            names.METRIC_BOUND_VIOLATIONS, unit=names.UNIT_CALL, description="Calls that cost more than their bound."
        )
        meter.create_observable_counter(
            names.METRIC_ERRORS, [_faults], unit="{error}", description="Shekel's own faults."
        )
        meter.create_observable_counter(
            names.METRIC_BAGGAGE_DROPPED,
            [_reasons(counts.dropped)],
            unit="{baggage}",
            description="Baggage from outside that did not count.",
        )
        meter.create_observable_counter(
            names.METRIC_SCOPE_UNRESOLVED,
            [_reasons(counts.unresolved)],
            unit="{request}",
            description="Requests whose resolver gave no scope.",
        )
        for index, (name, text) in enumerate(
            (
                (names.METRIC_BUDGET_SPENT, "Money spent on a budget; of many meters, the fullest."),
                (names.METRIC_BUDGET_LIMIT, "The limit of a budget."),
                (names.METRIC_BUDGET_HELD, "Money that open calls hold on a budget."),
            )
        ):
            meter.create_observable_gauge(name, [_gauge(budgets, index + 1)], unit=names.UNIT_USD, description=text)

    def record(self, call: Call, cost: Cost, context: Context | None, scopes: tuple[str, ...] = ()) -> None:
        """Record a call that has ended.

        Where a span of another instrumentation stands for it, the conventions' histograms of tokens and times are that
        instrumentation's to record: two of them would count twice. Ours are what it does not know: money and budgets.

        Args:
            scopes: the keys of its scope that go on the counters of money, tokens and calls.
        """
        scope = call.scope
        scoped: Scoped = tuple((key, scope[key]) for key in scopes if key in scope) if scopes else ()
        series = self._series_of(call)
        common = plain = series.common
        problem = call.refusal or call.cut
        if problem is not None:
            plain = {**common, names.ERROR_TYPE: type(problem).__name__}
        elif call.failure is not None:
            plain = {**common, names.ERROR_TYPE: call.failure.type}
        elif call.answer is not None and call.answer.error is not None:
            plain = {**common, names.ERROR_TYPE: call.answer.error}
        if call.claims:
            self._decisions.add(1, self._decision(call), context)
        if call.outcome is not None:
            self._calls.add(1, series.plus(names.OUTCOME, call.outcome.value, scoped), context)
        if call.outcome is Outcome.REFUSED:
            return
        if call.ended is not None and not call.traced:
            self._duration.record(call.ended - call.started, plain, context)
        if call.first_chunk is not None and not call.traced:
            self._first_chunk.record(call.first_chunk - call.started, common, context)
        if cost.usage is not None:
            self._record_tokens(series, cost.usage, context, scoped, told_elsewhere=call.traced)
        if not cost.priced:
            self._unpriced.add(1, common, context)
        elif cost.spent:
            usd = cost.spent / NANO
            self._cost.record(usd, common, context)
            self._spend.add(usd, series.plus(names.COST_ESTIMATED, cost.estimated, scoped), context)
            usage, quote = cost.usage, cost.quote
            if usage is not None and quote is not None and usage.cache_read:
                saved = quote.cost(replace(usage, cache_read=0, cache_read_audio=0)) - quote.cost(usage)
                if saved > 0:
                    self._savings.add(saved / NANO, common, context)

    def _series_of(self, call: Call) -> _Series:
        answered = None if call.answer is None else call.answer.model
        key = (call.endpoint.operation, call.provider, call.model, answered, call.host, call.port)
        series = self._series.get(key)
        if series is None:
            if len(self._series) >= KEPT_SERIES:
                self._series.clear()
            series = self._series[key] = _Series(*key)
        return series

    def _record_tokens(
        self, series: _Series, usage: Usage, context: Context | None, scoped: Scoped, *, told_elsewhere: bool
    ) -> None:
        if not told_elsewhere:
            self._tokens.record(usage.input, series.plus(names.TOKEN_TYPE, "input"), context)
            self._tokens.record(usage.output, series.plus(names.TOKEN_TYPE, "output"), context)
        self._all_tokens.add(usage.input, series.plus(names.TOKEN_TYPE, "input", scoped), context)
        self._all_tokens.add(usage.output, series.plus(names.TOKEN_TYPE, "output", scoped), context)
        for count, kind in (
            (usage.cache_read, "cache_read"),
            (usage.cache_write, "cache_creation"),
            (usage.reasoning, "reasoning"),
        ):
            if count:
                self._all_tokens.add(count, series.plus(names.TOKEN_TYPE, kind, scoped), context)

    def _decision(self, call: Call) -> dict[str, Any]:
        attributes: dict[str, Any] = {names.DECISION: decision(call)}
        claim = innermost(call)
        if claim is not None and claim.name is not None:
            attributes[names.BUDGET_NAME] = claim.name
        return attributes

    def overran(self, name: str | None, nano: int, cause: str) -> None:
        """A meter went over its limit by this much."""
        attributes = {names.OVERRUN_CAUSE: cause}
        if name is not None:
            attributes[names.BUDGET_NAME] = name
        self._overrun.add(nano / NANO, attributes)

    def shadowed(self, name: str | None, decision: str) -> None:
        """A shadow budget would have refused a call, or cut a stream."""
        attributes = {names.DECISION: decision}
        if name is not None:
            attributes[names.BUDGET_NAME] = name
        self._decisions.add(1, attributes)

    def violated(self, model: str) -> None:
        """A call cost more than the bound that was stated for it."""
        self._violations.add(1, {names.REQUEST_MODEL: model})


def scope_keys(given: Iterable[str]) -> tuple[str, ...]:
    """Scope keys that may go on metrics, each once; empty ones are left out.

    Raises:
        ValueError: one text instead of several, or a key that is no text.
    """
    if isinstance(given, str):
        raise ValueError(f"metric_scopes takes a list of scope keys: metric_scopes=[{shown(given)}].")
    if not isinstance(given, Iterable) or isinstance(given, Mapping):
        raise ValueError(f"metric_scopes must be a list of scope keys such as ['tenant.id'], not {shown(given)}.")
    keys: dict[str, None] = {}
    for key in given:
        if not isinstance(key, str):
            raise ValueError(f"a scope key must be a text such as 'tenant.id', not {shown(key)}.")
        if key.strip():
            keys[key.strip()] = None
    return tuple(keys)


def _faults(options: CallbackOptions) -> Iterable[Observation]:
    return [Observation(count, {names.FAULT: place}) for place, count in list(faults.counted.items())]


def _reasons(counted: Mapping[Any, int]) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(options: CallbackOptions) -> Iterable[Observation]:
        return [Observation(count, {names.REASON: str(reason)}) for reason, count in list(counted.items())]

    return observe


def _gauge(
    budgets: Callable[[], Iterable[BudgetRow]], column: int
) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(options: CallbackOptions) -> Iterable[Observation]:
        return [
            Observation(float(row[column]), {names.BUDGET_NAME: row[0], names.LEDGER_KIND: row[4]}) for row in budgets()
        ]

    return observe
