"""Books: what a budget's owner reads, added up as calls open and end. It decides nothing; the ledger does.

The lock is held over the additions only: never over a callback, the ledger or I/O. A finaliser that runs inside it may
read; what it ends is ended later (see `locks`).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, TypeAlias

from .. import locks
from ..settlement import Cost
from .amounts import happened
from .limits import NANO
from .unreported import Part, Unreported

if TYPE_CHECKING:
    from ..call import Call

KEPT_CALLS = 1_000
"""How many of its last calls a budget keeps for `summary_data`; totals go on."""


Booked: TypeAlias = tuple[int, bool, bool, float, Part | None]
"""What a correction of a call that has ended must know of it: how often the books had been cleared by then, whether it
was made directly in the budget's block, whether the fallback answered, its share of the exposure, and where that
stands. A plain tuple, because ten thousand calls are remembered."""


class Books:
    """The totals of one budget, in nano-dollars, and its last calls."""

    def __init__(self) -> None:
        self.open: dict[str, tuple[Call, int]] = {}
        self.cleared = -1
        self.clear()

    def clear(self) -> None:
        """Forget what ended; what is open stays."""
        self.cleared += 1
        self.calls: deque[dict[str, Any]] = deque(maxlen=KEPT_CALLS)
        self.by_model: dict[str, dict[str, Any]] = {}
        self.count = self.total = self.direct = self.fallback = 0
        self.by_tool: dict[str, dict[str, Any]] = {}
        self.tool_count = self.tool_total = 0
        self.shadow_calls = self.shadow = 0
        self.unreported = Unreported()  # the exposure of what ended
        self.peak: float = 0
        self.switched_at: int | None = None

    def opened(self, call: Call, index: int) -> None:
        """A call holds on the budget's meter of that number among the call's."""
        with locks.books:
            now = self._came(call)
            self.open[call.id] = (call, index)
            self.peak = self.greatest(now)

    def withdrawn(self, call: Call) -> None:
        """Another call has taken its place."""
        with locks.books:
            self._came(call)
            self.open.pop(call.id, None)

    def settled(self, call: Call, cost: Cost, amount: int, *, innermost: bool, whose: object = None) -> Booked:
        """A call has ended and is charged that amount, to a budget. Returns what `corrected` will ask for."""
        fell_back = call.fallback_from is not None
        share = math.inf if cost.committed is None else max(0, cost.committed - amount)
        with locks.books:
            now = self._came(call)
            self.open.pop(call.id, None)
            part = None
            if share:
                part = self.unreported.add(share, [each for each in call.claims if each.account is whose], now)
                self.peak = self.greatest(now)
            booked = (self.cleared, innermost, fell_back, share, part)
            if amount == 0 and not happened(call, cost):
                return booked
            usage = cost.usage
            self.count += 1
            self.total += amount
            if innermost:
                self.direct += amount
            model = (call.answer.model if call.answer is not None else None) or call.model
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
        return booked

    def tool(self, name: str, amount: int, now: int, *, innermost: bool, counts: bool = True) -> None:
        """A tool runs, and is charged that amount; it is not counted where it has been."""
        with locks.books:
            self.unreported.came(now, busy=bool(self.open))
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
            self._came(call)
            self.open.pop(call.id, None)
            self.shadow += amount

    def corrected(self, call_id: str, model: str, difference: int, booked: Booked, now: int) -> Booked | None:
        """The charge of a call that ended was changed, and is known for certain now.

        Returns:
            what a further correction must know; None, and nothing changes, if the books were cleared since it ended.
        """
        cleared, direct, fell_back, share, part = booked
        with locks.books:
            if cleared != self.cleared:
                return None
            self.total += difference
            if direct:
                self.direct += difference
            if fell_back:
                self.fallback += difference
            if part is not None:
                part.add(-share)
                self.peak = self.greatest(now)  # what nothing bounded may have hidden the rest
            for each in reversed(self.calls):
                if each["call_id"] == call_id:
                    each["cost"] += difference / NANO
                    each["estimated"] = False
                    model = each["model"]
                    break
            row = self.by_model.get(model)
            if row is not None:
                row["cost"] += difference / NANO
        return cleared, direct, fell_back, 0, None

    def switched(self, spent: int) -> bool:
        """The fallback took over at that amount. Returns whether this is the first time."""
        with locks.books:
            if self.switched_at is not None:
                return False
            self.switched_at = spent
            return True

    def running(self, meter: Hashable) -> int:
        """What open streams that are charged to a meter cost so far, by estimate."""
        opened = list(self.open.values())
        return sum(call.running_on(index) for call, index in opened if call.claims[index].meter == meter)

    def exposure(self, now: int) -> float:
        """By how much spending may exceed the limit at worst, at a time in microseconds since the epoch."""
        opened = list(self.open.values())
        ended = self.unreported.at(now, busy=bool(opened)) if self.unreported else 0
        return ended + sum(call.exposed(index) for call, index in opened)

    def greatest(self, now: int) -> float:
        """The greatest finite exposure so far, that of now included."""
        exposure = self.exposure(now)
        return exposure if self.peak < exposure < math.inf else self.peak

    def _came(self, call: Call) -> int:
        """A call begins or ends. Returns the time."""
        now = call.moment()
        self.unreported.came(now, busy=bool(self.open))
        return now
