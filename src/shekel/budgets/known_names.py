"""Known names: what a budget shows and takes under the names that programs know from the `shekel` library.

A half of `Budget`, kept apart so that the other can be read alone: it adds up nothing, and decides nothing.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Self, cast

from .. import late
from . import wiring
from .claims import AtLimit
from .family import Family
from .limits import NANO, Unit
from .loops import LoopGuard
from .parts import Part, Parts
from .queues import Queue
from .readings import Readings
from .summary import summary_of
from .tree import tree_of

if TYPE_CHECKING:
    from .budget import Budget
    from .claims import Claim, Fallback


class KnownNames(Readings):
    """See `Budget`."""

    name: str | None
    family: Family
    """Who is whose child."""
    parts: Parts
    """Caps of nodes, agents, tasks, chains and tools."""
    queue: Queue
    """Who waits for room."""
    loops: LoopGuard | None
    """What stops a tool that runs too often."""
    tenant_id: str | None = None
    made_for_call = False
    """Whether `@with_budget` made it; such budgets come and go, and may have one name."""
    price_override: dict[str, float] | None

    _fallbacks: tuple[Fallback, ...]
    _made: dict[bool, tuple[float, tuple[Claim, ...]]]
    _prices: dict[str, int]

    # Relatives

    @property
    def parent(self) -> Budget | None:
        """The budget around the block that entered this one last; None at the outside."""
        return self.family.parent

    @property
    def children(self) -> list[Budget]:
        """The budgets that were entered inside this one; of those that were left, the last 100."""
        return self.family.children

    @property
    def active_child(self) -> Budget | None:
        """The child whose block is entered now; of several, the last."""
        active = self.family.active
        return active[-1] if active else None

    @property
    def full_name(self) -> str:
        """The names from the outermost budget to this one, with dots between: "workflow.research.api"."""
        return ".".join(each.label for each in reversed([cast("Budget", self), *self.family.above(self)]))

    @property
    def label(self) -> str:
        """The name; without one, "#2" for the second child of its parent, and "unnamed" at the outside."""
        if self.name is not None:
            return self.name
        return "unnamed" if self.family.parent is None else f"#{self.family.number}"

    @property
    def spent_direct(self) -> float:
        """USD that were spent in its blocks, but not in a block inside them, since it was made or reset."""
        late.flush()
        return self._books.direct / NANO

    @property
    def spent_by_children(self) -> float:
        """USD that were spent in blocks inside its own, since it was made or reset."""
        late.flush()
        return (self._books.total - self._books.direct) / NANO

    def tree(self) -> str:
        """The budget, its parts, its children and what each has spent, as indented lines."""
        return tree_of(cast("Budget", self))

    # What is left

    @property
    def limit(self) -> float | None:
        """The limit in USD, with what was granted for the present window; no more than what it
        has spent and what the budgets around it, whose blocks are open, have left. None if there is none."""
        limit = self.max_usd
        room = None if limit is None else self._room_above(Unit.USD)
        if limit is None or room is None:
            return limit
        balance = self._slots[0].read(self._ledger())
        return min(limit, (balance.settled + balance.held) / NANO + room)

    @property
    def max_usd(self) -> float | None:
        """The limit in USD as it was given, with what was granted; None if there is none."""
        return self._slots[0].usd()

    @property
    def remaining(self) -> float | None:
        """USD that new calls can still hold: limit − settled − held, at least 0, the least over all its limits in USD
        and those of the budgets around it whose blocks are open; None without a limit of its own. A rate
        (`max_velocity`) is none of them, and what is kept for a last call counts only inside its block."""
        return self._left(Unit.USD)

    @property
    def calls_remaining(self) -> int | None:
        """Calls that are left, here and in the open budgets around; None without a limit of calls."""
        left = self._left(Unit.CALLS)
        return None if left is None else int(left)

    @property
    def tool_calls_remaining(self) -> int | None:
        """Runs of tools that are left, here and in the open budgets around; None without a limit of them."""
        left = self._left(Unit.TOOL_CALLS)
        return None if left is None else int(left)

    def _left(self, unit: Unit) -> float | None:
        own = self.room(unit)
        above = None if own is None else self._room_above(unit)
        return own if own is None or above is None else min(own, above)

    def room(self, unit: Unit) -> float | None:
        """What its own limits leave of a unit, for every model: the least of them; None without one."""
        late.flush()
        now = time.time()
        rooms = [
            state.remaining
            for slot in self._slots
            if slot.unit is unit and slot.model is None and slot.rate_of is None
            if (state := self._state(slot, now)) is not None
        ]
        return min(rooms, default=None)

    def _room_above(self, unit: Unit) -> float | None:
        rooms = [room for each in self.family.around(cast("Budget", self)) if (room := each.room(unit)) is not None]
        return min(rooms, default=None)

    # Tools

    @property
    def tool_calls_used(self) -> int:
        """Runs of tools that were counted, also those that failed."""
        return self._books.tool_count

    @property
    def tool_spent(self) -> float:
        """USD spent on tools; they are in `spent` too."""
        return self._books.tool_total / NANO

    @property
    def loop_guard_counts(self) -> dict[str, int]:
        """How often each tool ran within the window of the loop guard; empty without one."""
        if self.loops is None:
            return {}
        return self.loops.counts(self._ledger(), time.time_ns() // 1000)

    def tool_price(self, tool: str) -> int | None:
        """Nano-dollars that a run of the tool costs here; None where `tool_prices` does not say."""
        return self._prices.get(tool)

    # Parts

    def node(self, name: str, max_usd: float) -> Self:
        """Cap a node of a graph: what is called in it inside this budget's blocks may cost together, in USD.

        It is a block of that name inside (`with budget(name=…)`, or a function under `@with_budget(name=…)`), or a span
        that says it is that step: CHAIN in OpenInference, task or workflow in OpenLLMetry, `invoke_workflow`. Where the
        cap leaves no room, `NodeBudgetExceededError` is raised.

        Returns:
            The budget itself, so that caps can follow each other.

        Raises:
            ValueError: a name or an amount that is none.
        """
        self.parts.cap("node", name, max_usd)
        return self._capped()

    def agent(self, name: str, max_usd: float) -> Self:
        """Cap an agent, as `node` does a node; it raises `AgentBudgetExceededError`.

        Its span is `invoke_agent` with `gen_ai.agent.name`, AGENT in OpenInference, agent in OpenLLMetry.
        """
        self.parts.cap("agent", name, max_usd)
        return self._capped()

    def task(self, name: str, max_usd: float) -> Self:
        """Cap a task, as `node` does a node; it raises `TaskBudgetExceededError`."""
        self.parts.cap("task", name, max_usd)
        return self._capped()

    def chain(self, name: str, max_usd: float) -> Self:
        """Cap a chain, as `node` does a node; it raises `ChainBudgetExceededError`."""
        self.parts.cap("chain", name, max_usd)
        return self._capped()

    def tool(self, name: str, max_usd: float | None = None, max_calls: int | None = None) -> Self:
        """Cap a tool: what its runs, and calls to models from inside it, may cost together, and how often it may run.

        Runs of `@tool` count, and spans that stand for a run. Where the cap leaves no room for a run,
        `ToolBudgetExceededError` is raised before it; for a call from inside it, `ToolSpendExceededError`.

        Args:
            name: the tool's name.
            max_usd: USD.
            max_calls: runs.

        Returns:
            The budget itself.

        Raises:
            ValueError: a name, an amount or a count that is none, or neither of both.
        """
        self.parts.cap_tool(name, max_usd, max_calls)
        return self._capped()

    def _capped(self) -> Self:
        """A part has another cap: what stands for it must be seen, by open streams too, and who waits may have room."""
        wiring.watch()
        self._made = {}
        self.queue.freed()
        return self

    def part_runs(self, part: Part) -> int:
        """How often a tool with a cap has run."""
        return self._ledger().read(part.runs).settled

    def part_spent(self, part: Part) -> float:
        """USD that a part has spent."""
        return self._ledger().read(part).settled / NANO

    # Summaries

    def summary_data(self) -> dict[str, Any]:
        """Everything as plain data: totals since the budget was made, and its last 1,000 calls, in USD and tokens."""
        late.flush()
        books = self._books
        fallbacks = {each.model for each in self._fallbacks}
        return {
            "total_spent": books.total / NANO,
            "limit": self.max_usd,
            "calls_used": books.count,
            "calls_limit": self.max_llm_calls,
            "model_switched": books.switched_at is not None,
            "switched_at_usd": None if books.switched_at is None else books.switched_at / NANO,
            "fallback_model": self._fallbacks[-1].model if self._fallbacks else None,
            "fallback_spent": books.fallback / NANO,
            "total_calls": books.count,
            "calls": [dict(call) for call in books.calls],
            "by_model": {model: {**row, "fallback": model in fallbacks} for model, row in list(books.by_model.items())},
            "tool_calls_used": books.tool_count,
            "tool_calls_limit": self.max_tool_calls,
            "tool_spent": books.tool_total / NANO,
            "by_tool": {tool: dict(row) for tool, row in list(books.by_tool.items())},
            "tenant_id": self.tenant_id,
        }

    def summary(self) -> str:
        """What `summary_data` says, as text for a person; where limits count within windows, how far they are used up
        now."""
        windowed = any(slot.window and slot.at_limit is not AtLimit.WARN for slot in self._slots)
        return summary_of(self.name, self.summary_data(), self.limits(), windowed=windowed)

    @property
    def max_llm_calls(self) -> int | None:
        """The limit of calls as it was given, with what was granted; of several, the least; None if there is none."""
        return self._limit_of(Unit.CALLS)

    @property
    def max_tool_calls(self) -> int | None:
        """The limit of runs of tools as it was given; of several, the least; None if there is none."""
        return self._limit_of(Unit.TOOL_CALLS)

    def _limit_of(self, unit: Unit) -> int | None:
        now = time.time()
        amounts = [slot.amount(now) for slot in self._slots if slot.unit is unit and slot.model is None]
        return min((amount for amount in amounts if amount is not None), default=None)
