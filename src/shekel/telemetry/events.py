"""Events: what a program is told of its calls and limits, as plain facts. Built from a call that has ended; no content.

Amounts are in USD, tokens and calls are counts, times are Unix times in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..budgets.errors import BudgetExceededError, money
from ..budgets.limits import Unit
from ..budgets.part_errors import ToolBudgetExceededError
from . import names

if TYPE_CHECKING:
    from ..budgets.claims import Claim
    from ..call import Call
    from ..settlement import Cost

NANO = 1_000_000_000

_WHO = (names.USER_ID, names.SESSION_ID, names.TENANT_ID)


@dataclass(frozen=True, slots=True)
class UsageEvent:
    """What one call has consumed and cost, once it has ended.

    Attributes:
        id: the call's id, the same that `shekel.call_of` shows and `shekel.reconcile` takes.
        user_id: who paid: `user.id` of the scope; None without one.
        session_id: `session.id` of the scope.
        tenant_id: `tenant.id` of the scope.
        scope: all entries of the scope.
        timestamp: when the call ended.
        model: the model that answered, else the one that was asked for.
        provider: the provider's name in the conventions.
        input_tokens: all input, caches included; 0 where nobody knows.
        output_tokens: all output, reasoning included.
        total_tokens: both.
        cache_read_tokens: of the input, read from a cache.
        cache_write_tokens: of the input, written to a cache.
        reasoning_tokens: of the output.
        tool_calls: how often the provider ran each of its own tools ("web_search", …), or what `record` was told.
        cost_tokens: what the tokens cost.
        cost_tools: what the provider's own tools cost.
        cost_total: both; None where the price is unknown.
        estimated: whether the cost is an estimate, because the provider did not tell the usage.
        outcome: how the call ended: "complete", "cut", "closed", "dropped", "cancelled", "incomplete", "error" or
            "pending".
        stream: whether the answer was streamed.
        budget: the innermost named budget that it was charged to.
        metadata: the entries of the scope beside user, session and tenant; for `record` what it was given.
        source: "auto" for calls that were seen, "manual" for `record`.
        description: what `record` was told.
        cost_explicit: whether `record` was given the cost.
    """

    id: str
    user_id: str | None
    session_id: str | None
    tenant_id: str | None
    scope: Mapping[str, str]
    timestamp: float
    model: str
    provider: str
    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    tool_calls: Mapping[str, int] = field(default_factory=dict)
    cost_tokens: float | None = None
    cost_tools: float | None = None
    cost_total: float | None = None
    estimated: bool = False
    outcome: str = "complete"
    stream: bool = False
    budget: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    source: str = "auto"
    description: str | None = None
    cost_explicit: bool = False


@dataclass(frozen=True, slots=True)
class LimitEvent:
    """A limit was reached (hard), or a threshold of it (soft).

    Attributes:
        status: "soft" or "hard".
        decision: "warning", "refused", "cut" (a stream) or "finished" (a stream that was let to its end).
        reason: "threshold", or the error's reason: "exceeded", "stopped", "unpriced", …
        budget: the budget's or policy's name.
        limited: the scope that has the limit, such as "user.id=ada"; None for a block of code.
        unit: what the limit counts: "usd", "calls", "tokens", …; None where nobody said.
        limit: the limit, in that unit (USD for money).
        used: what is settled of it.
        held: what open calls hold of it.
        share: (used + held) / limit.
        user_id: `user.id` of the call's scope.
        session_id: `session.id` of it.
        scope: all entries of it.
        model: the model that was asked for; None for a tool.
        tool: the tool that was refused; None for a call.
        timestamp: when.
        retry_after: seconds until there is room at the earliest; None where waiting does not help.
        message: a sentence for whoever runs the program: it shows amounts.
        public_message: a sentence for an end user; None for a threshold.
    """

    status: str
    decision: str
    reason: str
    budget: str | None
    limited: str | None
    unit: str | None
    limit: float
    used: float
    held: float
    share: float
    user_id: str | None
    session_id: str | None
    scope: Mapping[str, str]
    model: str | None
    tool: str | None
    timestamp: float
    retry_after: float | None
    message: str
    public_message: str | None


_TOOLS = (("web_searches", "web_search"), ("storage_searches", "file_search"), ("code_executions", "code_execution"))


def usage_event(call: Call, cost: Cost) -> UsageEvent:
    """The event of a call that has ended."""
    usage = cost.usage
    scope = dict(call.scope)
    manual = call.manual
    tools: Mapping[str, int] = {}
    of_tools = 0
    counts: dict[str, int] = {}
    if usage is not None:
        tools = {name: count for attribute, name in _TOOLS if (count := getattr(usage, attribute))}
        if tools and cost.priced and cost.quote is not None and (manual is None or not manual.cost_explicit):
            without = replace(usage, web_searches=0, storage_searches=0, code_executions=0, also=())
            of_tools = min(cost.spent, max(0, cost.quote.cost(replace(usage, also=())) - cost.quote.cost(without)))
        counts = {
            "input_tokens": usage.input,
            "output_tokens": usage.output,
            "total_tokens": usage.input + usage.output,
            "cache_read_tokens": usage.cache_read,
            "cache_write_tokens": usage.cache_write,
            "reasoning_tokens": usage.reasoning,
        }
    answered = None if call.answer is None else call.answer.model
    return UsageEvent(
        id=call.id,
        user_id=scope.get(names.USER_ID),
        session_id=scope.get(names.SESSION_ID),
        tenant_id=scope.get(names.TENANT_ID),
        scope=scope,
        timestamp=call.moment() / 1_000_000,
        model=answered or call.model,
        provider=call.provider,
        **counts,
        tool_calls=tools if manual is None else manual.tool_calls,
        cost_tokens=(cost.spent - of_tools) / NANO if cost.priced else None,
        cost_tools=of_tools / NANO if cost.priced else None,
        cost_total=cost.spent / NANO if cost.priced else None,
        estimated=cost.estimated,
        outcome="complete" if call.outcome is None else call.outcome.value,
        stream=call.request.stream,
        budget=next((claim.name for claim in reversed(call.claims) if claim.name is not None), None),
        metadata={k: v for k, v in scope.items() if k not in _WHO} if manual is None else manual.metadata,
        source="auto" if manual is None else "manual",
        description=None if manual is None else manual.description,
        cost_explicit=manual is not None and manual.cost_explicit,
    )


def refusal_event(
    error: Any, decision: str, scope: Mapping[str, str], now: float, model: str | None = None
) -> LimitEvent | None:
    """The event of a refusal or a cut; None for an error that names no limit."""
    tool = None
    if isinstance(error, ToolBudgetExceededError):
        of_calls = error.exceeded_counter == "tool_calls"
        used, limit = (error.calls_used, error.calls_limit) if of_calls else (error.usd_spent, error.usd_limit)
        held, reason, tool = 0.0, "exceeded", error.tool_name
    elif isinstance(error, BudgetExceededError):
        used, limit, held, reason = error.spent, error.limit, error.held, error.reason
        tool = getattr(error, "tool_name", None)
        reason = "loop" if tool is not None else reason
    else:
        return None
    unit = error.exceeded_counter
    return LimitEvent(
        status="hard",
        decision=decision,
        reason=reason,
        budget=error.budget,
        limited=error.scope,
        unit="calls" if unit == "llm_calls" else unit,
        limit=limit or 0.0,
        used=used,
        held=held,
        share=(used + held) / limit if limit else 0.0,
        user_id=scope.get(names.USER_ID),
        session_id=scope.get(names.SESSION_ID),
        scope=dict(scope),
        model=None if tool is not None else model,
        tool=tool,
        timestamp=now,
        retry_after=error.retry_after,
        message=str(error),
        public_message=error.public_message,
    )


def threshold_event(
    claim: Claim, used: int, held: int, scope: Mapping[str, str], now: float, model: str | None
) -> LimitEvent:
    """The event of a threshold that was crossed."""
    by = NANO if claim.unit is Unit.USD else 1
    limit = claim.whole / by
    share = (used + held) / claim.whole if claim.whole else 0.0
    who = f"Budget {claim.name!r}" if claim.name else "The budget"
    whose = f" for {claim.scope}" if claim.scope else ""
    unit = claim.unit.value.replace("_", " ")
    usd = claim.unit is Unit.USD
    state = f"{money(used / by)} of {money(limit)}" if usd else f"{used:,} of {claim.limit:,} {unit}"
    return LimitEvent(
        status="soft",
        decision="warning",
        reason="threshold",
        budget=claim.name,
        limited=claim.scope,
        unit=claim.unit.value,
        limit=limit,
        used=used / by,
        held=held / by,
        share=share,
        user_id=scope.get(names.USER_ID),
        session_id=scope.get(names.SESSION_ID),
        scope=dict(scope),
        model=model,
        tool=None,
        timestamp=now,
        retry_after=None,
        message=f"{who}{whose} has used {state}.",
        public_message=None,
    )
