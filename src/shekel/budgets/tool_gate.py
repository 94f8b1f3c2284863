"""The gate of tools: each run is counted and charged, or refused, before it happens, in one step of the ledger.

A run has its price at once, so it holds and settles in the same breath: afterwards nothing is open. It is charged to
every limit of tool calls and of money around it, and to the loop guards; limits of calls, tokens or one model pass it
by. It knows no functions: only names, prices and claims.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

from .. import faults, late
from ..ledgers.base import Ledger, Line, Refusal
from . import refusals
from .claims import AtLimit
from .errors import who
from .holds import line
from .limits import NANO, Unit
from .part_errors import AgentLoopError, ToolBudgetExceededError
from .thresholds import call_back

if TYPE_CHECKING:
    from .budget import Budget
    from .claims import Claim
    from .loops import LoopGuard

_numbers = itertools.count(1)


class _Charge(NamedTuple):
    """One meter of the run: what it asks, and on whose behalf."""

    line: Line
    claim: Claim
    guard: LoopGuard | None = None


def charge_tool(
    ledger: Ledger,
    claims: Sequence[Claim],
    name: str,
    price: Callable[[Budget | None], int],
    now: int,
    *,
    counts: bool = True,
) -> None:
    """Count and charge one run of a tool, on all its meters or on none.

    Args:
        ledger: where the meters live.
        claims: what the budgets and policies around the run say, each meter once.
        name: the tool's name.
        price: nano-dollars that the run costs on a budget; None asks for a meter that no budget object has.
        now: microseconds since the epoch.
        counts: whether it is counted; not where it has been, and only a part of its price is still to be charged.

    Raises:
        AgentLoopError: a loop guard stops the run.
        ToolBudgetExceededError: a limit has no room for it, or a budget is stopped.
    """
    charges: list[_Charge] = []
    budgets: dict[int, Budget] = {}
    for claim in claims:
        if claim.stopped:
            raise _stopped(claim, name)
        budget = _owner(claim)
        if budget is not None and id(budget) not in budgets:
            budgets[id(budget)] = budget
            if budget.loops is not None and counts:
                stops = claim.at_limit not in (AtLimit.WARN, AtLimit.SHADOW)
                charges.append(_Charge(budget.loops.line(name, votes=stops), claim, budget.loops))
        if claim.unit is Unit.TOOL_CALLS:
            if counts and (claim.part is None or claim.part.name == name):  # not another tool, which this one runs in
                charges.append(_Charge(line(claim, 1), claim))
        elif claim.unit is Unit.USD and claim.model is None and not claim.models and (amount := price(budget)):
            # A free run asks nothing of the money: also where too much of it is spent, it goes on.
            charges.append(_Charge(line(claim, amount), claim))
    for budget in budgets.values():
        budget.before_settlement(claims, now)
    left_out = _take(ledger, charges, name, price, now)
    innermost = next(reversed(budgets), None)
    for key, budget in budgets.items():
        if key in left_out:
            budget.tool_left_out(price(budget))
        else:
            budget.tool_ran(name, price(budget), now, innermost=key == innermost, counts=counts)
    for key, budget in budgets.items():  # told once all have counted it: a callback may end the program
        if key not in left_out:
            budget.after_tool(claims, now)
    for charge in charges:
        if charge.guard is not None and charge.claim.at_limit is AtLimit.WARN:
            _warn_of_loop(ledger, charge, name, now)


def _owner(claim: Claim) -> Budget | None:
    """The budget whose claim it is; a policy has none."""
    return cast("Budget | None", claim.account)


def _take(
    ledger: Ledger, charges: Sequence[_Charge], name: str, price: Callable[[Budget | None], int], now: int
) -> tuple[Hashable, ...]:
    """Hold and settle, or raise. Returns the shadow budgets that would have refused the run."""
    if not charges:
        return ()
    run = f"tool-{os.getpid()}-{next(_numbers)}"
    lines = [charge.line for charge in charges]
    try:
        answer = ledger.admit(run, 0, 0, lines, now)
        if isinstance(answer, Refusal) and late.flush():
            answer = ledger.admit(run, 0, 0, lines, now)  # a stream that was dropped unread gave its hold back
        if isinstance(answer, Refusal):
            raise _refused(ledger, charges, answer, name, price, now)
        left_out = answer.left_out
        ledger.settle(run, {each.meter: each.base for each in lines if each.shadow not in left_out}, now, final=True)
    except BaseException:
        ledger.release(run, now)
        raise
    return left_out


def _refused(
    ledger: Ledger,
    charges: Sequence[_Charge],
    refusal: Refusal,
    name: str,
    price: Callable[[Budget | None], int],
    now: int,
) -> AgentLoopError | ToolBudgetExceededError:
    """Why the run was refused. A loop is said first, however little is left of the rest."""
    for charge in reversed(charges):  # the innermost guard first
        if charge.guard is not None and charge.line.limit is not None:
            mine = charge.line.meter == refusal.line.meter
            balance = refusal.balance if mine else ledger.read(charge.line.meter, now)
            count = balance.settled + balance.held
            if mine or count >= charge.line.limit:
                budget = _owner(charge.claim)
                return AgentLoopError(
                    name,
                    count,
                    charge.guard.window_seconds,
                    budget.spent if budget is not None else 0.0,
                    budget=charge.claim.name,
                    retry_after=_seconds(refusal.frees_at, now) if mine else None,
                )
    claim = next(c.claim for c in charges if c.line.meter == refusal.line.meter)
    used = refusal.balance.settled + refusal.balance.held
    own = [
        c
        for c in charges
        if c.guard is None
        and c.claim.account is claim.account
        and c.claim.scope == claim.scope
        and c.claim.part is claim.part
    ]
    calls_used, calls_limit = _of(ledger, own, Unit.TOOL_CALLS, now)
    usd_spent, usd_limit = _of(ledger, own, Unit.USD, now)
    if claim.unit is Unit.TOOL_CALLS:
        calls_used, calls_limit = used, claim.limit
    else:
        usd_spent, usd_limit = used, claim.whole
    budget = _owner(claim)
    if calls_limit is None and budget is not None:
        calls_used = budget.tool_calls_used
    usd = (usd_spent / NANO, None if usd_limit is None else usd_limit / NANO)
    if usd_limit is None and budget is not None and claim.part is None:
        usd = (budget.spent, budget.max_usd)  # the run is free, and took nothing of them
    return ToolBudgetExceededError(
        name,
        calls_used,
        calls_limit,
        *usd,
        exceeded_counter=str(claim.unit),
        price=price(budget) / NANO,
        budget=claim.name,
        scope=claim.scope,
        retry_after=refusals.seconds_until(refusals.frees_at(claim, refusal), now),
        part=None if claim.part is None else claim.part.label,
    )


def _of(ledger: Ledger, own: Sequence[_Charge], unit: Unit, now: int) -> tuple[int, int | None]:
    """What is used of the first limit of a unit, and that limit."""
    for charge in own:
        if charge.claim.unit is unit:
            balance = ledger.read(charge.line.meter, now)
            return balance.settled + balance.held, None if charge.claim.limit is None else charge.claim.whole
    return 0, None


def _stopped(claim: Claim, name: str) -> ToolBudgetExceededError:
    return ToolBudgetExceededError(
        name,
        0,
        None,
        0.0,
        None,
        budget=claim.name,
        scope=claim.scope,
        detail=f"it is stopped, so the tool {name!r} was not run. Its resume() lets tools run again.",
    )


def _seconds(at: int | None, now: int) -> float | None:
    return None if at is None else max(0, at - now) / 1_000_000


def _warn_of_loop(ledger: Ledger, charge: _Charge, name: str, now: int) -> None:
    guard = charge.guard
    assert guard is not None
    count = guard.count(ledger, charge.line.meter, now)
    if count > guard.max_calls:
        times = f"in {guard.window_seconds:g} s" if guard.window_seconds else "in all"
        text = (
            f"{who(charge.claim.name, charge.claim.scope)} takes the tool {name!r} for a loop: {count} calls {times}, "
            f"where {guard.max_calls} are meant. It only warns, so the tool runs."
        )
        call_back("warned", faults.warn_program, text)
