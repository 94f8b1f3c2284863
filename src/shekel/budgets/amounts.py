"""Amounts: what a call that has ended is charged on each of its meters, in the unit of each. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

from ..settlement import Billing, Cost, Outcome
from ..usage import Usage
from .limits import Mode, Unit

if TYPE_CHECKING:
    from ..call import Call
    from .claims import Claim


def amounts_of(call: Call, cost: Cost) -> dict[Hashable, int]:
    """What each meter is charged: the cost for money, the usage for tokens, one for a call.

    Strict meters take the upper bound where the cost is only estimated. A shadow that would have refused the call
    takes nothing of it, and one that would have cut it, or capped its output lower, no more than it held.
    """
    amounts: dict[Hashable, int] = {}
    for index, claim in enumerate(call.claims):
        frozen = call.frozen.get(claim.meter) if call.frozen else None
        if frozen is not None:
            amounts[claim.meter] = min(frozen, _amount(call, cost, claim, index))
        elif not call.left_out or claim.shadow not in call.left_out:
            amounts[claim.meter] = _amount(call, cost, claim, index)
    return amounts


def _amount(call: Call, cost: Cost, claim: Claim, index: int) -> int:
    unit = claim.unit
    strict = claim.mode is Mode.STRICT and claim.votes
    if unit is Unit.USD:
        if not cost.priced:
            return call.held(index)  # a price unknown only at the end: the hold is what is charged
        return cost.committed if strict and cost.committed is not None else cost.spent
    if not happened(call, cost, strict=strict):
        return 0
    if unit is Unit.CALLS:
        return 1
    usage = cost.usage
    before = _failed_before(call, claim, index, strict=strict)
    if usage is None:
        billing = Billing.PROBABLY if call.failure is None else call.failure.billing
        if billing is Billing.NOTHING or (billing is Billing.PERHAPS and not strict):
            return before
    if strict and (call.answer is None or call.answer.usage is None):
        return before + _share(call, index)
    if usage is None:
        return before + call.held(index)
    return before + _tokens(usage, unit)


def _tokens(usage: Usage, unit: Unit) -> int:
    if unit is Unit.INPUT:
        return usage.input
    return usage.output if unit is Unit.OUTPUT else usage.input + usage.output


def _failed_before(call: Call, claim: Claim, index: int, *, strict: bool) -> int:
    """The tokens of the attempts before the last: what they may have taken for a strict meter, else probably have."""
    if not call.failed:
        return 0
    if strict:
        return sum(billing is not Billing.NOTHING for billing in call.failed) * _share(call, index)
    likely = 0 if call.need is None else call.need.likely_of(claim.unit)
    return call.failed.count(Billing.PROBABLY) * likely


def _share(call: Call, index: int) -> int:
    """What a strict meter holds for one of the attempts that a call may make."""
    return call.held(index) // call.attempts


def happened(call: Call, cost: Cost, *, strict: bool = False) -> bool:
    """Whether the provider did work for the call: one that failed and cost nothing does not count as a call."""
    if call.outcome is not Outcome.FAILED or cost.spent > 0 or cost.usage is not None:
        return True
    return strict and cost.committed != 0
