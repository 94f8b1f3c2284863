"""Books: what a budget's owner reads, added up as calls open and end. It decides nothing; the ledger does.

The lock is held over the additions only: never over a callback, the ledger or I/O. A finaliser that runs inside it may
read; what it ends is ended later (see `locks`).
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any

from .. import locks
from ..settlement import Cost
from .amounts import happened
from .limits import NANO

if TYPE_CHECKING:
    from ..call import Call

KEPT_CALLS = 1_000
"""How many of its last calls a budget keeps for `summary_data`; totals go on."""


class Books:
    """The totals of one budget, in nano-dollars, and its last calls."""

    def __init__(self) -> None:
        self.open: dict[str, tuple[Call, int]] = {}
        self.residual: float = 0
        self.peak: float = 0
        self.clear()

    def clear(self) -> None:
        """Forget what ended; what is open stays."""
        self.calls: deque[dict[str, Any]] = deque(maxlen=KEPT_CALLS)
        self.by_model: dict[str, dict[str, Any]] = {}
        self.count = self.total = self.direct = self.fallback = 0
        self.by_tool: dict[str, dict[str, Any]] = {}
        self.tool_count = self.tool_total = 0
        self.shadow_calls = self.shadow = 0
        self.residual = self.peak = 0
        self.switched_at: int | None = None

    def opened(self, call: Call, index: int) -> None:
        """A call holds on the budget's meter of that number among the call's."""
        with locks.books:
            self.open[call.id] = (call, index)
            exposure = self.exposure()
            if self.peak < exposure < math.inf:
                self.peak = exposure

    def withdrawn(self, call: Call) -> None:
        """Another call has taken its place."""
        with locks.books:
            self.open.pop(call.id, None)

    def settled(self, call: Call, cost: Cost, amount: int, *, innermost: bool) -> None:
        """A call has ended and is charged that amount."""
        with locks.books:
            self.open.pop(call.id, None)
            self.residual += math.inf if cost.committed is None else max(0, cost.committed - amount)
            if amount == 0 and not happened(call, cost):
                return
            usage = cost.usage
            self.count += 1
            self.total += amount
            if innermost:
                self.direct += amount
            model = (call.answer.model if call.answer is not None else None) or call.model
            fell_back = call.fallback_from is not None
            if fell_back:
                self.fallback += amount
            tokens_in, tokens_out = (0, 0) if usage is None else (usage.input, usage.output)
            self.calls.append(
                {
                    "model": model,
                    "cost": amount / NANO,
                    "input_tokens": tokens_in,
                    "output_tokens": tokens_out,
                    "fallback": fell_back,
                    "estimated": cost.estimated,
                    "outcome": str(call.outcome),
                    "call_id": call.id,
                }
            )
            row = self.by_model.setdefault(model, {"calls": 0, "cost": 0.0, "input_tokens": 0, "output_tokens": 0})
            row["calls"] += 1
            row["cost"] += amount / NANO
            row["input_tokens"] += tokens_in
            row["output_tokens"] += tokens_out

    def tool(self, name: str, amount: int, *, innermost: bool, counts: bool = True) -> None:
        """A tool runs, and is charged that amount; it is not counted where it has been."""
        with locks.books:
            self.tool_count += counts
            self.tool_total += amount
            self.total += amount
            if innermost:
                self.direct += amount
            row = self.by_tool.setdefault(name, {"calls": 0, "cost": 0.0, "framework": "manual"})
            row["calls"] += counts
            row["cost"] += amount / NANO

    def tool_left_out(self, amount: int) -> None:
        """A tool runs that the limit would have refused; it is not charged."""
        with locks.books:
            self.shadow_calls += 1
            self.shadow += amount

    def left_out(self) -> None:
        """A call goes on that the limit would have refused or cut."""
        with locks.books:
            self.shadow_calls += 1

    def saved(self, call: Call, amount: int) -> None:
        """Such a call has ended; so much of it is not charged."""
        with locks.books:
            self.open.pop(call.id, None)
            self.shadow += amount

    def corrected(self, call_id: str, model: str, difference: int) -> None:
        """The charge of a call that ended was changed."""
        with locks.books:
            self.total += difference
            for each in reversed(self.calls):
                if each["call_id"] == call_id:
                    each["cost"] += difference / NANO
                    each["estimated"] = False
                    model = each["model"]
                    break
            row = self.by_model.get(model)
            if row is not None:
                row["cost"] += difference / NANO

    def switched(self, spent: int) -> bool:
        """The fallback took over at that amount. Returns whether this is the first time."""
        with locks.books:
            if self.switched_at is not None:
                return False
            self.switched_at = spent
            return True

    def running(self) -> int:
        """What open streams cost so far, by estimate."""
        return sum(call.running_on(index) for call, index in list(self.open.values()))

    def exposure(self) -> float:
        """By how much spending may exceed the limit at worst, now."""
        return self.residual + sum(call.exposed(index) for call, index in list(self.open.values()))
