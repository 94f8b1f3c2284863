"""`Budget.summary()`: what `summary_data()` and `limits()` say, as text for a person."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .errors import money
from .limits import Unit
from .slots import LimitState

SHOWN_CALLS = 100
"""How many of the last calls are listed; the totals are of all."""

NAMELESS = "no model"
"""What stands for the model where the program recorded spending of none."""


def summary_of(name: str | None, data: Mapping[str, Any], limits: Sequence[LimitState], *, windowed: bool) -> str:
    """A summary in lines: the whole, the limits, the calls, the models, the tools.

    Args:
        name: the budget's name.
        data: its totals.
        limits: its limits, now.
        windowed: whether one counts within a window: then no total is a part of it, and each has a line of its own.
    """
    if windowed:
        data = {**data, "limit": None, "calls_limit": None, "tool_calls_limit": None}
    return "\n".join(_lines(name, data, limits, windowed))


def _lines(name: str | None, data: Mapping[str, Any], limits: Sequence[LimitState], windowed: bool) -> Iterator[str]:
    limit, spent = data["limit"], data["total_spent"]
    status = "OK"
    if data["model_switched"]:
        status = "SWITCHED"
    elif any(each.used > each.limit for each in limits):
        status = "EXCEEDED"
    yield f"Budget {name}" if name else "Budget"
    if data["tenant_id"]:
        yield f"  Tenant: {data['tenant_id']}"
    of = f" of {money(limit)}" if limit is not None else "" if windowed else ", no limit"
    yield f"  Total: ${spent:.4f}{of}, {_of(data['calls_used'], data['calls_limit'], 'calls')}. Status: {status}"
    for each in limits if windowed else ():
        yield f"  Limit {each.text}: {_amount(each.used, each.unit)} used, {_amount(each.remaining, each.unit)} left"
    calls = data["calls"][-SHOWN_CALLS:]
    if calls:
        yield f"  {'call':>6}  {'model':<28} {'input':>9} {'output':>9} {'cost':>11}"
        first = data["total_calls"] - len(calls) + 1
        for number, call in enumerate(calls, first):
            mark = "  fallback" if call["fallback"] else ""
            model = call["model"] or NAMELESS
            yield (
                f"  {number:>6}  {model:<28} {call['input_tokens']:>9,} {call['output_tokens']:>9,} "
                f"{_usd(call['cost']):>11}{mark}"
            )
    for model, row in data["by_model"].items():
        role = " (fallback)" if row["fallback"] else ""
        yield f"  {model or NAMELESS}{role}: {row['calls']} calls, {_usd(row['cost'])}"
    if data["switched_at_usd"] is not None:
        yield f"  Switched at {_usd(data['switched_at_usd'])} to {data['fallback_model']}"
    if data["tool_calls_used"] or data["tool_calls_limit"] is not None:
        used = _of(data["tool_calls_used"], data["tool_calls_limit"], "tool calls")
        yield f"  Tools: {used}, {_usd(data['tool_spent'])}"
        for tool, row in data["by_tool"].items():
            yield f"    {tool}: {row['calls']} calls, {_usd(row['cost'])} [{row['framework']}]"


def _of(used: int, limit: int | None, what: str) -> str:
    return f"{used} {what}" if limit is None else f"{used} of {limit} {what}"


def _amount(amount: float, unit: Unit) -> str:
    return money(amount) if unit is Unit.USD else f"{amount:,.0f}"


def _usd(amount: float) -> str:
    return f"${amount:.4f}"
