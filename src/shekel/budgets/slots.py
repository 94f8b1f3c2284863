"""Slots: one limit of a budget, and the meters that it has had, one for each period of its window."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from ..ledgers.base import Balance, Ledger
from .claims import AtLimit
from .grants import Grants
from .limits import NANO, Limit, Unit
from .windows import FOREVER, Session, Span

KEPT_PERIODS = 4
"""Meters of past periods that a slot still knows; a correction of an earlier one is the ledger's to refuse."""


class Meter:
    """A meter in memory belongs to its budget object: two budgets of one name are two meters."""

    __slots__ = ("label",)

    def __init__(self, label: str) -> None:
        self.label = label

    def __repr__(self) -> str:
        return f"<meter {self.label}>"


@dataclass(frozen=True, slots=True)
class LimitState:
    """One limit of a budget, now. Amounts are in USD where the unit is "usd", else counts.

    Attributes:
        text: the limit as a spec.
        unit: what it counts.
        limit: the most, with what was granted for the present window.
        used: what is settled.
        held: what open calls hold.
        remaining: what new calls can still hold, at least 0; what is kept for a last call only inside its block.
        resets_at: the Unix time in seconds at which its period ends; None for other windows.
        model: the model it is for; None for all.
    """

    text: str
    unit: Unit
    limit: float
    used: float
    held: float
    remaining: float
    resets_at: float | None
    model: str | None


class Slot:
    """One limit of a budget.

    Args:
        limit: the limit; None for the meter in USD of a budget that has no limit in USD.
        label: what its meters are called in debugging.
        at_limit: what happens there, where it is not what the budget says.
        rate_of: the rate that the limit stands for.
    """

    __slots__ = ("_grants", "_label", "_meters", "at_limit", "limit", "model", "rate_of", "slides", "unit", "window")

    def __init__(
        self, limit: Limit | None, label: str, *, at_limit: AtLimit | None = None, rate_of: str | None = None
    ) -> None:
        self.limit = limit
        self.unit = Unit.USD if limit is None else limit.unit
        self.model = None if limit is None else limit.model
        window = None if limit is None else limit.window
        self.window = 0 if window is None else window.length_us
        self.slides = window is not None and window.slides
        self.at_limit = at_limit
        self.rate_of = rate_of
        self._label = label if limit is None else f"{label} {limit}"
        self._meters: dict[str | None, Meter] = {}
        lasts = self.slides or isinstance(window, Session)
        self._grants = Grants(self.window if lasts else 0, slides=self.slides)

    def span(self, now: float) -> Span:
        """Where the Unix time `now` lies in the window."""
        window = None if self.limit is None else self.limit.window
        return FOREVER if window is None else window.at(now)

    def meter(self, now: float) -> Meter:
        """The meter of the period that holds the Unix time `now`."""
        key = self.span(now).key
        meter = self._meters.get(key)
        if meter is None:
            label = self._label if key is None else f"{self._label} {key}"
            meter = self._meters.setdefault(key, Meter(label))
            while len(self._meters) > KEPT_PERIODS:
                self._meters.pop(next(iter(self._meters)), None)
        return meter

    def amount(self, now: float) -> int | None:
        """The limit, with what was granted for the present window."""
        return None if self.limit is None else self.amount_of(self.meter(now), now)

    def amount_of(self, meter: Any, now: float) -> int | None:
        """The limit of a meter, which may be that of a past period, with what was granted for it."""
        return None if self.limit is None else self.limit.amount + self._grants.of(meter, int(now * 1_000_000))

    def begin(self, now: float) -> float:
        """Let go of grants that are over at the Unix time `now`. Returns that before which no other one ends."""
        self._grants.let_go(int(now * 1_000_000))
        return self._grants.until() / 1_000_000

    def usd(self) -> float | None:
        """The same in USD, now; of a limit in USD."""
        limit = self.amount(time.time())
        return None if limit is None else limit / NANO

    def read(self, ledger: Ledger) -> Balance:
        """What its present meter shows."""
        now = time.time()
        return ledger.read(self.meter(now), int(now * 1_000_000))

    def state(self, ledger: Ledger, now: float, kept: int = 0) -> LimitState | None:
        """The limit with its numbers, of which so much is kept back; None where there is no limit."""
        limit = self.amount(now)
        if limit is None:
            return None
        balance = ledger.read(self.meter(now), int(now * 1_000_000))
        by = NANO if self.unit is Unit.USD else 1
        left = max(0, limit - kept - balance.settled - balance.held)
        return LimitState(
            str(self.limit),
            self.unit,
            limit / by,
            balance.settled / by,
            balance.held / by,
            left / by,
            self.span(now).ends,
            self.model,
        )

    def owns(self, meter: Any) -> bool:
        """Whether a meter is one of its own."""
        return any(each is meter for each in self._meters.values())

    def grant(self, meter: Any, amount: int, now: float) -> None:
        """Add to the limit of a meter, for its window at the Unix time `now`: nano-dollars, or a count."""
        self._grants.keep(self.meters())
        self._grants.add(meter, amount, int(now * 1_000_000))

    def change(self, limit: Limit) -> None:
        """Another amount; what was granted before goes with the old one."""
        self.limit = limit
        self._grants.clear()

    def reset(self, ledger: Ledger) -> None:
        """Start anew."""
        for meter in self.meters():
            ledger.reset(meter)
        self._grants.clear()

    def meters(self) -> list[Meter]:
        """All meters that it still knows."""
        return list(self._meters.values())
