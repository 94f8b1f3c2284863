"""Asking: the question that `on_exceed` gets, what it may answer, and how often one call asks."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import faults
from .grants import counted
from .limits import NANO, Unit, money

if TYPE_CHECKING:
    from ..call import Call
    from .budget import Budget
    from .claims import Claim

FURTHER = 3
"""Questions of one call beyond one for each of its limits: where others took what was granted before it could."""


@dataclass(frozen=True, slots=True)
class Exceeded:
    """The question that `on_exceed` gets: a call does not fit.

    Amounts are in USD where `unit` is "usd", else counts.

    Attributes:
        budget: the budget.
        unit: what the limit counts: "usd", "calls", "input_tokens", "output_tokens", "tokens".
        limit: the limit, with what was granted so far.
        spent: what is settled.
        held: what open calls hold.
        needed: what the call would hold.
        lacking: by how much it does not fit.
        model: the model that is asked for.
        scope: the scope that the budget limits, if any.
        part: the part of the budget whose limit it is, such as "agent researcher"; None for the budget's own.
    """

    budget: Budget
    unit: str
    limit: float
    spent: float
    held: float
    needed: float
    lacking: float
    model: str
    scope: str | None = None
    part: str | None = None


@dataclass(frozen=True, slots=True)
class Allowance:
    """An amount granted beyond a limit, for the present window; `on_exceed` returns it.

    On a window that slides, a rate too, it counts as long as an amount would that is settled at that moment; on a
    session, until the session is over.

    Attributes:
        amount: USD for a limit in USD, else a count; above 0. A fraction of a count is the next whole one, and so it
            is recorded.
        by: who granted it.
        why: the reason.
        at: Unix time in seconds; set when it is recorded.
    """

    amount: float
    by: str = ""
    why: str = ""
    at: float | None = None


def allowance_of(answer: Any, question: Exceeded) -> Allowance | None:
    """What the program granted: an Allowance, an amount, True for what is lacking; anything else is a no."""
    if answer is None or answer is False:
        return None
    if answer is True:
        return Allowance(question.lacking)
    try:
        allowance = answer if isinstance(answer, Allowance) else Allowance(answer)
        if isinstance(allowance.amount, str):
            raise TypeError("what on_exceed grants is a number, and no text")
        money(allowance.amount, "what on_exceed grants")
    except (TypeError, ValueError) as error:
        faults.report("read what on_exceed granted", error)
        return None
    return allowance


class Questions:
    """What one call has asked.

    Each limit is asked about once. Where it granted enough, and another call took that first, it is asked about again,
    so long as the call has not asked more often than it has limits, and `FURTHER` times more.
    """

    __slots__ = ("_asked", "_count")

    def __init__(self) -> None:
        self._asked: dict[Hashable, bool] = {}
        self._count = 0

    def may(self, claim: Claim, call: Call) -> bool:
        """Whether the call may ask about a limit."""
        return self._asked.get(claim.meter, True) and self._count < len(call.claims) + FURTHER

    def asked(self, claim: Claim, call: Call, budget: Budget) -> Exceeded:
        """The question about a limit, which has refused the call."""
        refusal = call.refused
        assert refusal is not None
        self._count += 1
        self._asked[claim.meter] = False
        scale = NANO if claim.unit is Unit.USD else 1
        balance, limit = refusal.balance, claim.limit or 0
        return Exceeded(
            budget, claim.unit.value, claim.whole / scale, balance.settled / scale, balance.held / scale,
            refusal.asked / scale, (balance.settled + balance.held + refusal.asked - limit) / scale,
            call.model, claim.scope, None if claim.part is None else claim.part.label,
        )  # fmt: skip

    def granted(self, claim: Claim, question: Exceeded, allowance: Allowance) -> None:
        """What was granted for a limit."""
        self._asked[claim.meter] = counted(allowance.amount, claim.unit) >= counted(question.lacking, claim.unit)
