"""Refusals: the errors that say why a call may not spend, with the numbers of the moment of the decision."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..ledgers.cells import slides_out
from .errors import (
    BudgetExceededError,
    BudgetPausedError,
    UnboundedCallError,
    UnpricedModelError,
)
from .limits import NANO, Unit
from .part_errors import SpendVelocityExceededError

if TYPE_CHECKING:
    from ..call import Call
    from ..ledgers.base import Balance, Ledger, Refusal
    from .claims import Claim
    from .holds import Need

COUNTERS = {Unit.CALLS: "llm_calls"}
"""What a dimension is called in `exceeded_counter`, where the field has a name for it; else its own."""


def claim_of(call: Call, refusal: Refusal) -> Claim | None:
    """The claim whose meter refused."""
    return next((claim for claim in call.claims if claim.meter == refusal.line.meter), None)


def innermost(call: Call, refusal: Refusal, ledger: Ledger) -> Refusal:
    """The refusal of the innermost part of a budget, where several of its parts refuse: that is the one to change."""
    refused = claim_of(call, refusal)
    if refused is None or refused.part is None:
        return refusal
    for claim in call.claims:
        if claim is refused:
            return refusal
        if claim.part is None or claim.account is not refused.account or claim.limit is None:
            continue
        balance = ledger.read(claim.meter, call.moment())
        if balance.settled + balance.held + refusal.asked > claim.limit:  # parts of one budget ask for the same
            return replace(refusal, line=refusal.line._replace(meter=claim.meter, limit=claim.limit), balance=balance)
    return refusal


def scale(unit: Unit) -> int:
    """By what an amount of that unit is divided for people: nano-dollars in a dollar, or nothing."""
    return NANO if unit is Unit.USD else 1


def frees_at(claim: Claim, refusal: Refusal) -> float | None:
    """The Unix time in seconds at which there is room at the earliest; None where waiting does not help."""
    if refusal.frees_at is not None:
        return refusal.frees_at / 1_000_000
    never = claim.limit is not None and refusal.asked > claim.limit
    return None if never else claim.resets_at


def starts_anew(claim: Claim, now: int) -> float | None:
    """The Unix time in seconds at which nothing counts any more of what is settled by now; None where all of it stays.

    Args:
        claim: says what is counted.
        now: microseconds since the epoch.
    """
    return slides_out(now, claim.window) / 1_000_000 if claim.slides else claim.resets_at


def exceeded(call: Call, refusal: Refusal, *, cut: bool = False) -> BudgetExceededError:
    """The budget has no room for the call, or (`cut`) for more output of its stream."""
    claim = next(c for c in call.claims if c.meter == refusal.line.meter)
    balance = refusal.balance
    by = scale(claim.unit)
    now = call.moment()
    frees = frees_at(claim, refusal)
    if frees is None and cut:  # the stream has used all of it alone; a new one may do so again
        frees = starts_anew(claim, now)
    windowed = claim.resets_at is not None or claim.window > 0
    spent = balance.settled + (running(call, claim) if cut else 0)
    arguments: dict[str, Any] = {
        "retry_after": seconds_until(frees, now),
        "window_spent": balance.settled / by if windowed else None,
        "exceeded_counter": COUNTERS.get(claim.unit, claim.unit.value),
        "budget": claim.name,
        "scope": claim.scope,
        "held": balance.held / by,
        "needed": refusal.asked / by,
        "window_reset": claim.resets_at,
        "kept": claim.kept / by,
        "reason": "cut" if cut else "exceeded",
    }
    tokens = {"input": call.input_tokens, "output": 0 if call.reader is None else call.reader.units // 1000}
    if claim.rate_of is not None and not cut:
        return SpendVelocityExceededError(
            spent / by, claim.whole / by, claim.window / 1_000_000, call.model, tokens, **arguments
        )
    if claim.part is not None:
        return claim.part.error(spent / by, claim.whole / by, model=call.model, tokens=tokens, **arguments)
    return BudgetExceededError(spent / by, claim.whole / by, call.model, tokens, **arguments)


def seconds_until(frees: float | None, now: int) -> float | None:
    """The seconds from a time in microseconds to one in seconds, at least 0; None for None."""
    return None if frees is None else max(0.0, frees - now / 1_000_000)


def running(call: Call, claim: Claim) -> int:
    """What an open stream has used so far, in the unit of a claim."""
    if claim.unit is Unit.USD:
        return call.running()
    if call.reader is None or claim.unit is Unit.CALLS:
        return 0
    output = call.reader.units // 1000
    if claim.unit is Unit.OUTPUT:
        return output
    known = call.reader.input_tokens() or call.input_tokens
    return known if claim.unit is Unit.INPUT else known + output


def waited(refusal: Any, seconds: float) -> BudgetPausedError:
    """The call waited for room, and none came in time."""
    state = {key: value for key, value in vars(refusal).items() if key not in ("reason", "detail")}
    spent, limit, model, tokens = (state.pop(key) for key in ("spent", "limit", "model", "tokens"))
    known = (
        "retry_after",
        "window_spent",
        "exceeded_counter",
        "budget",
        "scope",
        "held",
        "needed",
        "window_reset",
        "kept",
    )
    return BudgetPausedError(
        spent,
        limit,
        model,
        tokens,
        **{key: state[key] for key in known},
        reason="paused",
    )


def stopped(call: Call, claim: Claim, balance: Balance, *, cut: bool = False) -> BudgetExceededError:
    """Somebody stopped the budget by hand."""
    by = scale(claim.unit)
    return BudgetExceededError(
        balance.settled / by,
        claim.whole / by,
        call.model,
        budget=claim.name,
        scope=claim.scope,
        held=balance.held / by,
        exceeded_counter=COUNTERS.get(claim.unit, claim.unit.value),
        reason="stopped",
        detail=f"it is stopped, so the stream from {call.model} was cut. resume() lets calls pass again."
        if cut
        else None,
    )


def in_between(call: Call, claim: Claim) -> BudgetExceededError:
    """The call comes from a finaliser or a signal's handler that struck while this thread was deciding on another."""
    by = scale(claim.unit)
    return BudgetExceededError(
        0.0,
        claim.whole / by,
        call.model,
        budget=claim.name,
        scope=claim.scope,
        exceeded_counter=COUNTERS.get(claim.unit, claim.unit.value),
        reason="busy",
        detail=f"a finaliser or a signal's handler called {call.model} in the middle of another decision of the same "
        "thread, so the call was not sent. Make it from a thread or a task.",
    )


def finished(call: Call, claim: Claim, balance: Balance, refusal: Refusal | None) -> BudgetExceededError:
    """The stream was let end, and has carried the budget over its limit.

    Args:
        call: the stream's.
        claim: the limit.
        balance: what its meter shows.
        refusal: what the least that anybody could ask for would be answered.
    """
    by = scale(claim.unit)
    windowed = claim.resets_at is not None or claim.window > 0
    return BudgetExceededError(
        balance.settled / by,
        claim.whole / by,
        call.model,
        exceeded_counter=COUNTERS.get(claim.unit, claim.unit.value),
        budget=claim.name,
        scope=claim.scope,
        held=balance.held / by,
        retry_after=None if refusal is None else seconds_until(frees_at(claim, refusal), call.moment()),
        window_spent=balance.settled / by if windowed else None,
        window_reset=claim.resets_at,
        reason="finished",
    )


def unpriced(call: Call, claim: Claim, settled: int) -> UnpricedModelError:
    """The model has no known price, and the budget is a limit in USD."""
    return UnpricedModelError(
        settled / NANO,
        claim.whole / NANO,
        call.model,
        budget=claim.name,
        scope=claim.scope,
        reason="unpriced",
        detail=f"no price is known for {call.model!r}, so a limit in USD cannot hold and the call was not sent. "
        f"Give its price with shekel.configure(prices={{{call.model!r}: {{'input': …, 'output': …}}}}) in USD per "
        "million tokens, declare it free with 'free' in its place, "
        "or let it pass uncounted with unpriced='allow' on the budget.",
    )


def unbounded(call: Call, claim: Claim, ledger: Ledger, need: Need) -> UnboundedCallError | None:
    """Nothing bounds what the call can take of a strict meter; None if something does."""
    if need.bound is None and claim.unit is not Unit.OUTPUT:
        field = need.unbounded or "a field that Shekel does not know"
    elif need.most is None and claim.unit is not Unit.INPUT:
        field = f"no {call.request.cap_field}, and no documented maximum output of {call.model!r}"
    else:
        return None
    return _unbounded(
        call,
        claim,
        ledger,
        f"mode='strict' cannot bound this call to {call.model!r} ({field}), so it was not sent. "
        "Leave the field out, or use mode='sliced'.",
    )


def only_a_span(call: Call, claim: Claim, ledger: Ledger) -> UnboundedCallError:
    """Only a span of another instrumentation shows the call, and a strict meter has to know what it can cost."""
    return _unbounded(
        call,
        claim,
        ledger,
        f"mode='strict' cannot bound a call to {call.model or 'a model'!r} that only the span of another "
        "instrumentation shows, so it was not sent. Use mode='sliced', or let such calls pass, held by what they "
        "probably cost, with shekel.configure(traced_in_strict='expect').",
    )


def _unbounded(call: Call, claim: Claim, ledger: Ledger, detail: str) -> UnboundedCallError:
    by = scale(claim.unit)
    return UnboundedCallError(
        ledger.read(claim.meter, call.moment()).settled / by,
        claim.whole / by,
        call.model,
        budget=claim.name,
        scope=claim.scope,
        reason="unbounded",
        detail=detail,
    )
