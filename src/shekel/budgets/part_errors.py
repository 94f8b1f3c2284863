"""Errors that name a part of a program: a node, an agent, a task, a chain, a session, a tool.

Except for a tool's own limit and a mismatch of settings they are `BudgetExceededError`s, so that one `except` catches
them all.
"""

from __future__ import annotations

import math
from typing import Any

from .errors import BudgetExceededError, amount, counter_name, frees_room, money, rebuild, used_of, who
from .public import sentence, with_text


class PartExceededError(BudgetExceededError):
    """One part of a program has used up the share that its budget gives it.

    Args:
        name: the part's name.
        spent: USD.
        limit: USD.
        **facts: the other arguments of `BudgetExceededError`.
    """

    kind = "part"

    def __init__(self, name: str, spent: float, limit: float, **facts: Any) -> None:
        self._name = name
        facts.setdefault("model", f"{self.kind}:{name}")
        super().__init__(spent, limit, **facts)

    def _who(self) -> str:
        budget = who(self.budget, self.scope)
        return f"{self.kind.capitalize()} {self._name!r} of {budget[0].lower()}{budget[1:]}"

    def _used(self) -> str:
        return used_of(self.spent, self.limit, self.exceeded_counter, part=True)


class NodeBudgetExceededError(PartExceededError):
    """A node of a graph has used up its cap. `node_name` names it."""

    kind = "node"

    def __init__(self, node_name: str, spent: float, limit: float, **facts: Any) -> None:
        self.node_name = node_name
        super().__init__(node_name, spent, limit, **facts)


class AgentBudgetExceededError(PartExceededError):
    """An agent has used up its cap. `agent_name` names it."""

    kind = "agent"

    def __init__(self, agent_name: str, spent: float, limit: float, **facts: Any) -> None:
        self.agent_name = agent_name
        super().__init__(agent_name, spent, limit, **facts)


class TaskBudgetExceededError(PartExceededError):
    """A task has used up its cap. `task_name` names it."""

    kind = "task"

    def __init__(self, task_name: str, spent: float, limit: float, **facts: Any) -> None:
        self.task_name = task_name
        super().__init__(task_name, spent, limit, **facts)


class ChainBudgetExceededError(PartExceededError):
    """A chain has used up its cap. `chain_name` names it."""

    kind = "chain"

    def __init__(self, chain_name: str, spent: float, limit: float, **facts: Any) -> None:
        self.chain_name = chain_name
        super().__init__(chain_name, spent, limit, **facts)


class SessionBudgetExceededError(PartExceededError):
    """The session of an agent that is always on has used up its budget. `window` is its length in seconds, if any."""

    kind = "session"

    def __init__(self, agent_name: str, spent: float, limit: float, window: float | None = None, **facts: Any) -> None:
        self.agent_name = agent_name
        self.window = window
        super().__init__(agent_name, spent, limit, **facts)


class AgentLoopError(BudgetExceededError):
    """The same tool was called so often in a short time that its agent is probably going round in circles.

    It is raised before the tool runs.

    Attributes:
        tool_name: the tool.
        repeat_count: how often it ran within the window, this call not counted.
        window_seconds: the window's length; 0 for all time.
        spent: USD spent on the budget.
    """

    def __init__(self, tool_name: str, repeat_count: int, window_seconds: float, spent: float, **facts: Any) -> None:
        self.tool_name = tool_name
        self.repeat_count = repeat_count
        self.window_seconds = window_seconds
        facts.setdefault("model", f"loop:{tool_name}")
        super().__init__(spent, spent, **facts)

    @property
    def public_message(self) -> str:
        """A sentence for an end user."""
        return sentence(self, "loop")

    def _sentence(self) -> str:
        times = f"in the last {self.window_seconds:g} s" if self.window_seconds > 0 else "in all (all-time)"
        return (
            f"{self._who()} takes the tool {self.tool_name!r} for a loop: it ran {self.repeat_count} times {times}, "
            f"with ${self.spent:.4f} spent, so it was not run again. Where that is meant, raise loop_guard_max_calls "
            "or shorten loop_guard_window_seconds."
        )


class SpendVelocityExceededError(BudgetExceededError):
    """Money is spent faster than `max_velocity` allows.

    Attributes:
        spent_in_window: USD spent within the window.
        limit_usd: USD that it allows.
        window_seconds: its length.
        velocity_per_min: USD per minute that were spent.
        limit_per_min: USD per minute that are allowed.
    """

    def __init__(
        self,
        spent_in_window: float,
        limit_usd: float,
        window_seconds: float,
        model: str = "unknown",
        tokens: dict[str, int] | None = None,
        **facts: Any,
    ) -> None:
        self.spent_in_window = spent_in_window
        self.limit_usd = limit_usd
        self.window_seconds = window_seconds
        per_minute = 60 / window_seconds if window_seconds > 0 else math.inf
        self.velocity_per_min = spent_in_window * per_minute if spent_in_window else 0.0
        self.limit_per_min = limit_usd * per_minute
        super().__init__(spent_in_window, limit_usd, model, tokens, **facts)

    def _state(self) -> str:
        text = (
            f"{self._who()} may spend {money(self.limit_usd)} in {self.window_seconds:g} s "
            f"({money(self.limit_per_min)} per minute) and has spent {money(self.spent_in_window)}"
        )
        return f"{text}, with {money(self.held)} held by open calls" if self.held else text


class ToolBudgetExceededError(Exception):
    """A tool was not run, because a budget has no calls of tools, or no money, left for it.

    Not a `BudgetExceededError`: code that stops at the end of the money can go on where a tool is refused.

    Attributes:
        tool_name: the tool.
        calls_used: calls of tools that the budget has counted.
        calls_limit: how many it allows; None without such a limit.
        usd_spent: USD spent on the budget.
        usd_limit: its limit in USD; None without one.
        framework: who called the tool: "manual" for `@tool`.
        exceeded_counter: the dimension that refused: "tool_calls" or "usd"; None where nobody said.
        price: USD of this call.
        budget: the budget's name, None if it has none.
        scope: the scope that it limits; None for a block of code.
        retry_after: seconds until the window frees room at the earliest; None where waiting does not help.
        part: the part of the budget whose cap it is, such as "tool search"; None for the budget's own limit.
    """

    def __init__(
        self,
        tool_name: str,
        calls_used: int,
        calls_limit: int | None,
        usd_spent: float,
        usd_limit: float | None,
        framework: str = "manual",
        *,
        exceeded_counter: str | None = None,
        price: float = 0.0,
        budget: str | None = None,
        scope: str | None = None,
        retry_after: float | None = None,
        detail: str | None = None,
        part: str | None = None,
    ) -> None:
        self.tool_name = tool_name
        self.calls_used = calls_used
        self.calls_limit = calls_limit
        self.usd_spent = usd_spent
        self.usd_limit = usd_limit
        self.framework = framework
        self.exceeded_counter = None if exceeded_counter is None else counter_name(exceeded_counter)
        self.price = price
        self.budget = budget
        self.scope = scope
        self.retry_after = retry_after
        self.detail = detail
        self.part = part
        super().__init__(self._sentence())

    @property
    def public_message(self) -> str:
        """A sentence for an end user: it shows no amounts, no tool and no scope."""
        return sentence(self, "tool")

    def _sentence(self) -> str:
        name = who(self.budget, self.scope)
        if self.part is not None:
            kind, _, part = self.part.partition(" ")
            name = f"{kind.capitalize()} {part!r} of {name[0].lower()}{name[1:]}"
        if self.detail:
            return f"{name}: {self.detail}"
        call = f"the tool {self.tool_name!r}"
        if self.usd_limit is not None and (self.exceeded_counter == "usd" or self.calls_limit is None):
            state = used_of(self.usd_spent, self.usd_limit, "usd", part=self.part is not None)
            costs = f", which costs {amount(self.price, 'usd')}," if self.price else ""
            return f"{name} {state}: {call}{costs} does not fit and was not run.{frees_room(self.retry_after)}"
        if self.calls_limit is None:
            return f"{name} has {self.calls_used:,} tool calls used: {call} was not run.{frees_room(self.retry_after)}"
        state = used_of(self.calls_used, self.calls_limit, "tool_calls")
        return f"{name} {state}: {call} was not run.{frees_room(self.retry_after)}"

    def __reduce__(self) -> tuple[Any, ...]:
        return (rebuild, (type(self), with_text(self), self.args))


class ToolSpendExceededError(PartExceededError, ToolBudgetExceededError):
    """A call to a model from inside a tool that has used up its cap (`Budget.tool`). The call was not sent.

    It is an error of both kinds: of the money, and of the tool, so that code that goes on where a tool is refused does
    so here too.

    Attributes:
        usd_spent: USD that the tool has spent: its runs, and calls from inside it.
        usd_limit: its cap.
    """

    kind = "tool"

    def __init__(self, tool_name: str, spent: float, limit: float, **facts: Any) -> None:
        self.tool_name = tool_name
        self.calls_used = 0
        self.calls_limit = None
        self.usd_spent = spent
        self.usd_limit = limit
        self.framework = "manual"
        self.price = 0.0
        super().__init__(tool_name, spent, limit, **facts)


class BudgetConfigMismatchError(Exception):
    """A shared ledger knows a budget of this name with other limits or windows."""
