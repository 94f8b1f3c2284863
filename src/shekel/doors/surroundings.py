"""What calls run inside: spans of agents, tools and workflows that start and end, as the span processor sees them.

A span of somebody else's that stands for a run of a tool is counted and charged as `@tool` does, before the tool runs:
where that is refused, the span is marked and ended, and the error is raised out of its start. Some frameworks swallow
what is raised there; their tools run all the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry.context import Context

from .. import context as ctx
from .. import enclosing, faults
from ..budgets.around import around
from ..budgets.part_errors import AgentLoopError, ToolBudgetExceededError
from ..roles import tool_of
from ..telemetry import names
from ..telemetry.tools import refuse_tool

if TYPE_CHECKING:
    from ..budgets.budget import Budget
    from ..runtime import Runtime


def started(runtime: Runtime, span: Any, here: Context) -> None:
    """A span has started.

    Raises:
        ToolBudgetExceededError: it stands for the run of a tool that a budget has no room for; it is ended.
        AgentLoopError: the same for a tool that runs too often.
    """
    try:
        here = ctx.with_budgets(here)
        limited = bool(around(here)) or bool(runtime.policies.keys)
        if not limited and not enclosing.wanted:
            return
        if enclosing.is_known(span):
            return
        tool = tool_of(span.attributes or {}, span.name, enclosing.scope_of(span))
        if tool is None:
            if enclosing.wanted:
                enclosing.started(span, here)
            return
        _tool_started(runtime, span, here, tool, limited)
    except (ToolBudgetExceededError, AgentLoopError) as refusal:
        refuse_tool(span, refusal)
        raise
    except Exception as error:
        faults.report("looked at a span that calls may run inside", error)


def _tool_started(runtime: Runtime, span: Any, here: Context, tool: str, limited: bool) -> None:
    scope = enclosing.scope_of(span)
    enclosure = enclosing.started(span, here)
    if scope == names.SCOPE:  # `@tool` charges by itself
        return
    known = enclosing.charged_above(here, tool, scope)
    if known is None:
        known = enclosing.Charge(tool, scope)
        if limited:
            inside = enclosing.inside_tool(here, tool, scope)
            runtime.gate.admit_tool(tool, lambda budget: _price(budget, tool), inside, counts=True)
    enclosure.charged = known


def _price(budget: Budget | None, tool: str) -> int:
    return 0 if budget is None else budget.tool_price(tool) or 0


def ended(span: Any) -> None:
    """A span has ended."""
    try:
        enclosing.ended(span)
    except Exception as error:
        faults.report("looked at a span that ended", error)
