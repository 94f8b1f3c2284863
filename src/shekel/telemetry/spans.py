"""What is written on a call's span. It is told and never asks: it reads a `Call` and its `Cost`, decides nothing.

A span of ours is started here and ended when its call ends. A span of somebody else that stands for the same call is
adopted: its own `end` is shadowed, and our attributes are written at that moment, because a span takes none later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import Span, Status, StatusCode

from .. import faults
from ..budgets.limits import Unit
from ..call import Call
from ..settlement import Cost, Failure, Outcome, assess
from . import names

if TYPE_CHECKING:
    from ..budgets.claims import Claim
    from ..providers.base import Answer

NANO = 1_000_000_000
Failing = Callable[[], "tuple[Outcome, Failure] | None"]
"""How a call fails whose error is being handled at this moment; None if none is."""

_ENDED_BY_PROGRAM = frozenset({Outcome.CLOSED, Outcome.DROPPED, Outcome.CANCELLED})


def request_attributes(call: Call, scope: Mapping[str, str]) -> dict[str, Any]:
    """Attributes that are known before the call is sent."""
    attributes: dict[str, Any] = {
        names.OPERATION_NAME: call.endpoint.operation,
        names.PROVIDER_NAME: call.provider,
        **call.request.attributes,
    }
    if call.model:
        attributes[names.REQUEST_MODEL] = call.model
    if call.host:
        attributes[names.SERVER_ADDRESS] = call.host
        if call.port is not None:
            attributes[names.SERVER_PORT] = call.port
    # A scope key never stands for what a call is: the attributes of the call go over it.
    return {**scope, **attributes} if scope else attributes


def span_name(call: Call) -> str:
    """`{operation} {model}`, as the conventions have it."""
    return f"{call.endpoint.operation} {call.model}" if call.model else call.endpoint.operation


def write_admission(call: Call, span: Span) -> None:
    """What the admission decided: fallback, cap, refusal."""
    if call.fallback_from is not None:
        span.set_attribute(names.REQUEST_MODEL, call.model)
        span.set_attribute(names.FALLBACK_FROM, call.fallback_from)
        span.update_name(span_name(call))
        span.add_event(names.EVENT_FALLBACK, {names.FALLBACK_FROM: call.fallback_from, names.REQUEST_MODEL: call.model})
    for allowance in call.allowances:
        told = {names.ALLOWANCE_AMOUNT: allowance.amount, names.ALLOWANCE_BY: allowance.by}
        span.add_event(names.EVENT_ALLOWANCE, {**told, names.ALLOWANCE_WHY: allowance.why})
    if call.cap is not None:
        span.set_attribute(names.REQUEST_MAX_TOKENS, call.cap)


def write_end(call: Call, span: Span, cost: Cost, outcome: Outcome | None, *, own: bool) -> None:
    """What is known when the call, or an adopted span, ends."""
    attributes: dict[str, Any] = dict(call.inside)
    answer = call.answer
    if answer is None and call.reader is not None:
        answer = call.reader.answer()
    if answer is not None:
        if answer.id:
            attributes[names.RESPONSE_ID] = answer.id
        if answer.model:
            attributes[names.RESPONSE_MODEL] = answer.model
        if answer.finish_reasons:
            attributes[names.RESPONSE_FINISH_REASONS] = answer.finish_reasons
    if call.first_chunk is not None:
        attributes[names.RESPONSE_TIME_TO_FIRST_CHUNK] = call.first_chunk - call.started
    _usage(attributes, call, cost)
    _money(attributes, cost)
    if outcome is not None:
        attributes[names.OUTCOME] = outcome.value
        if outcome is Outcome.PENDING:
            attributes[names.PENDING] = True
    if call.tries > 1:
        attributes[names.ATTEMPTS] = call.tries
        attributes[names.HTTP_RESEND_COUNT] = call.tries - 1
    _budget(attributes, call, cost)
    _error(attributes, call, answer, span, own=own)
    span.set_attributes(attributes)


def _usage(attributes: dict[str, Any], call: Call, cost: Cost) -> None:
    usage = cost.usage
    if usage is None:
        return
    attributes[names.USAGE_INPUT_TOKENS] = usage.input
    attributes[names.USAGE_OUTPUT_TOKENS] = usage.output
    if usage.cache_read:
        attributes[names.USAGE_CACHE_READ] = usage.cache_read
    if usage.cache_write:
        attributes[names.USAGE_CACHE_CREATION] = usage.cache_write
    if usage.reasoning:
        attributes[names.USAGE_REASONING] = usage.reasoning
    if usage.service_tier and call.endpoint.provider == "openai":
        attributes[names.OPENAI_RESPONSE_SERVICE_TIER] = usage.service_tier


def _money(attributes: dict[str, Any], cost: Cost) -> None:
    if not cost.priced:
        attributes[names.UNPRICED] = True
        return
    attributes[names.COST_AMOUNT] = cost.spent / NANO
    attributes[names.COST_CURRENCY] = names.USD
    if cost.quote is not None:
        attributes[names.COST_SOURCE] = cost.quote.source
    if cost.estimated:
        attributes[names.COST_ESTIMATED] = True
        attributes[names.COST_LOW] = cost.low / NANO
    if cost.committed is not None and cost.committed != cost.spent:
        attributes[names.COST_COMMITTED] = cost.committed / NANO


def _budget(attributes: dict[str, Any], call: Call, cost: Cost) -> None:
    shadows = [c.name or "" for c in call.claims if c.first and c.shadow in call.left_out] if call.left_out else None
    if shadows:
        attributes[names.BUDGET_SHADOWS] = shadows
    claim = innermost(call)
    if claim is None or claim.limit is None:
        return
    if claim.name is not None:
        attributes[names.BUDGET_NAME] = claim.name
    attributes[names.DECISION] = decision(call)
    if claim.part is not None:
        attributes[names.BUDGET_PART] = f"{claim.part.kind} {claim.part.name}"
    balance = call.balance(claim)
    if claim.unit is not Unit.USD:
        attributes[names.BUDGET_UNIT] = claim.unit.value
        attributes[names.BUDGET_LIMIT] = claim.limit
        if balance is not None:
            attributes[names.BUDGET_USED] = balance.settled
        return
    attributes[names.BUDGET_LIMIT_USD] = claim.whole / NANO
    if balance is not None:
        # A span that ends before its call shows the budget as it will be when the call is settled.
        spent = balance.settled + (cost.spent if call.is_open else 0)
        attributes[names.BUDGET_SPENT_USD] = spent / NANO
        attributes[names.BUDGET_REMAINING_USD] = max(0, claim.limit - max(spent, balance.settled + balance.held)) / NANO


def _error(attributes: dict[str, Any], call: Call, answer: Answer | None, span: Span, *, own: bool) -> None:
    problem = call.refusal or call.cut
    if problem is not None:
        kind = type(problem).__name__
        attributes[names.ERROR_TYPE] = kind
        reason = getattr(problem, "reason", None)
        if reason is not None:
            attributes[names.DECISION_REASON] = reason
        event = names.EVENT_CUT if call.cut is not None else names.EVENT_REFUSAL
        span.add_event(event, {k: v for k, v in attributes.items() if k in _EVENT_KEYS})
        # The exception's text shows amounts and the model; the same are attributes of this span anyway.
        span.set_status(Status(StatusCode.ERROR, str(problem)))
    elif answer is not None and answer.error is not None:
        attributes[names.ERROR_TYPE] = answer.error
        span.set_status(Status(StatusCode.ERROR))
    elif call.failure is not None and call.outcome not in _ENDED_BY_PROGRAM:
        attributes[names.ERROR_TYPE] = call.failure.type
        if own:
            span.set_status(Status(StatusCode.ERROR))


_EVENT_KEYS = frozenset(
    {
        names.BUDGET_NAME,
        names.BUDGET_PART,
        names.BUDGET_LIMIT_USD,
        names.BUDGET_SPENT_USD,
        names.BUDGET_REMAINING_USD,
        names.BUDGET_UNIT,
        names.BUDGET_LIMIT,
        names.BUDGET_USED,
        names.DECISION_REASON,
    }
)


def innermost(call: Call) -> Claim | None:
    """The budget that a span names: the one that refused, else the innermost that enforces, else the innermost."""
    refusal = call.refusal or call.cut
    if refusal is not None:
        if call.refused_claim is not None:
            return call.refused_claim
        for claim in call.claims:
            if claim.name == getattr(refusal, "budget", None) and claim.scope == getattr(refusal, "scope", None):
                return claim
    for claim in reversed(call.claims):
        if claim.limit is not None and claim.first:
            return claim
    for claim in reversed(call.claims):
        if claim.limit is not None:
            return claim
    return call.claims[-1] if call.claims else None


def decision(call: Call) -> str:
    """What the budgets decided about a call, in a word: admitted, fallback, refused or cut."""
    if call.refusal is not None:
        return "refused"
    if call.cut is not None:
        return "cut"
    return "fallback" if call.fallback_from is not None else "admitted"


def adopt(call: Call, span: Span, failing: Failing) -> None:
    """Write on somebody else's span when it ends, by shadowing `end` on the instance.

    The SDK's own hook for this (`_on_ending`) comes after a span is frozen, and such spans often end before the call
    does, so what is written is the call's state at that moment.

    Args:
        call: the call that the span stands for.
        span: somebody else's span that has just started.
        failing: how the call fails, where its error is handled when the span ends and the door has not been told yet.
    """
    stand_for(call, span)
    end = span.end

    def end_with_cost(*args: Any, **kwargs: Any) -> None:
        try:
            write_now(call, span, failing)
        except Exception as error:
            faults.report("wrote on an adopted span", error)
        end(*args, **kwargs)

    span.end = end_with_cost  # type: ignore[method-assign]


def stand_for(call: Call, span: Span) -> None:
    """Somebody else's span stands for the call: no span of ours is started, and that one is not ours to end."""
    call.span = span
    call.adopted = True


def left_open(call: Call) -> bool:
    """Whether nobody else will end the span that stands for a call: it is ours to end, although it is not ours."""
    if not call.leaves_open or call.outcome is Outcome.COMPLETE:
        return False
    return call.leaves_refused or call.outcome is Outcome.CANCELLED or call.reader is not None


def write_now(call: Call, span: Span, failing: Failing) -> None:
    """Write the call's state at this moment on a span that is about to end; see `adopt`."""
    if not span.is_recording():
        return
    cost, outcome = call.cost, call.outcome
    if cost is None or outcome is None:
        reader = call.reader
        answer = call.answer if reader is None else reader.answer()
        complete = answer is not None and (reader is None or reader.terminal)
        failed = failing() if answer is None and reader is None else None
        outcome, failure = failed or (Outcome.COMPLETE if complete else Outcome.CLOSED, None)
        cost = assess(call, outcome, answer, failure)
    write_end(call, span, cost, outcome, own=False)


def write_traced(call: Call, span: Span, cost: Cost, outcome: Outcome) -> None:
    """What a traced call cost and what was decided of it, on the span that alone shows it. What that says stays."""
    attributes: dict[str, Any] = {names.OUTCOME: outcome.value}
    _money(attributes, cost)
    _budget(attributes, call, cost)
    if call.refusal is not None:
        _error(attributes, call, None, span, own=False)
    span.set_attributes(attributes)
