"""Refusals: the errors that say why a call may not spend, with the numbers of the moment of the decision."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import BudgetExceededError, UnboundedCallError, UnpricedModelError
from .limits import NANO

if TYPE_CHECKING:
    from ..call import Call
    from ..ledgers.base import Balance, Refusal
    from .claims import Claim
    from .holds import Need


def exceeded(call: Call, refusal: Refusal, *, cut: bool = False) -> BudgetExceededError:
    """The budget has no room for the call, or (`cut`) for more output of its stream."""
    claim = next(c for c in call.claims if c.meter == refusal.line.meter)
    balance: Balance = refusal.balance
    retry = None if claim.resets_at is None else max(0.0, claim.resets_at - call.started_wall)
    tokens = {"input": call.input_tokens, "output": 0 if call.reader is None else call.reader.units // 1000}
    spent = balance.settled + (call.running() if cut else 0)
    return BudgetExceededError(
        spent / NANO,
        (claim.limit or 0) / NANO,
        call.model,
        tokens,
        retry,
        balance.settled / NANO if claim.resets_at is not None else None,
        "usd",
        budget=claim.name,
        scope=claim.scope,
        held=balance.held / NANO,
        needed=refusal.asked / NANO,
        window_reset=claim.resets_at,
        reason="cut" if cut else "exceeded",
    )


def unpriced(call: Call, claim: Claim, settled: int) -> UnpricedModelError:
    """The model has no known price, and the budget is a limit in USD."""
    return UnpricedModelError(
        settled / NANO,
        (claim.limit or 0) / NANO,
        call.model,
        budget=claim.name,
        scope=claim.scope,
        reason="unpriced",
        detail=f"no price is known for {call.model!r}, so a limit in USD cannot hold and the call was not sent. "
        f"Give its price with shekel.configure(prices={{{call.model!r}: {{'input': …, 'output': …}}}}) in USD per "
        "million tokens, declare it free with 'free' in its place, "
        "or let it pass uncounted with unpriced='allow' on the budget.",
    )


def unbounded(call: Call, claim: Claim, settled: int, need: Need) -> UnboundedCallError | None:
    """Nothing bounds what the call can cost, and the budget is strict; None if something does."""
    if need.strict_base is None:
        field = need.unbounded or "a field that Shekel does not know"
    elif need.most is None:
        field = f"no {call.request.cap_field}, and no documented maximum output of {call.model!r}"
    else:
        return None
    return UnboundedCallError(
        settled / NANO,
        (claim.limit or 0) / NANO,
        call.model,
        budget=claim.name,
        scope=claim.scope,
        reason="unbounded",
        detail=f"mode='strict' cannot bound this call to {call.model!r} ({field}), so it was not sent. "
        "Leave the field out, or use mode='sliced'.",
    )
