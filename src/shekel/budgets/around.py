"""The budgets around a call: those of the blocks that it was made in, and that of the whole process."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from opentelemetry.context import Context

from .. import context, enclosing
from ..roles import Role
from . import wiring
from .claims import Claim

if TYPE_CHECKING:
    from .budget import Budget


def around(here: Context) -> tuple[Budget, ...]:
    """The budgets that a call made in this context is charged to, outermost first."""
    stack: tuple[Budget, ...] = here.get(context.BUDGETS, ())  # type: ignore[assignment]
    return stack if wiring.everywhere is None else (wiring.everywhere, *stack)


def patient(here: Context) -> list[Budget]:
    """Those of them that wait, or ask."""
    return [budget for budget in dict.fromkeys(around(here)) if budget.patient]


class BudgetsOfContext:
    """The payer for the blocks around a call."""

    def claims(self, here: Context, now: float, *, provider: str | None = None) -> Iterable[Claim]:
        opened = context.last_calls(here)
        stack = around(here)
        if len(stack) == 1 and not stack[0].parts:
            return stack[0].claims(now, last_call=id(stack[0]) in opened)
        claims: list[Claim] = []
        roles: Sequence[Role] | None = None
        for number, each in enumerate(stack):
            own = each.claims(now, last_call=id(each) in opened)
            claims += own
            if each.parts:
                roles = enclosing.roles(here) if roles is None else roles
                claims += each.parts.claims(own[0], (inner.name for inner in stack[number + 1 :]), roles)
        return claims
