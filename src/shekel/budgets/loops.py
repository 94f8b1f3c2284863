"""Loop guards: how often one tool may run within a time, on one budget. A meter for each tool, in the ledger."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..ledgers.base import Ledger, Line, Meter
from ..shown import shown
from .limits import MOST
from .windows import LONGEST, SHORTEST

MICROSECONDS = 1_000_000


class _LoopMeter:
    """The meter of one tool on one budget; in memory it belongs to the guard."""

    __slots__ = ("label",)

    def __init__(self, label: str) -> None:
        self.label = label

    def __repr__(self) -> str:
        return f"<meter {self.label}>"


class LoopGuard:
    """Stops a tool that runs more than so many times within a window.

    Args:
        max_calls: how often a tool may run within the window, at least 1.
        window_seconds: the window's length, which slides; 0 for all time.

    Raises:
        ValueError: a number that makes no sense; the message names it, the value and the remedy.
    """

    def __init__(self, max_calls: int, window_seconds: float) -> None:
        if isinstance(max_calls, bool) or not isinstance(max_calls, int) or not 1 <= max_calls <= MOST:
            raise ValueError(
                f"loop_guard_max_calls must be a whole number of at least 1, such as 5, not {shown(max_calls)}."
            )
        seconds = window_seconds
        good = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
        if not good or not (seconds == 0 or SHORTEST <= seconds <= LONGEST):
            raise ValueError(
                f"loop_guard_window_seconds must be seconds from {SHORTEST} to 100 years, or 0 for all time, "
                f"not {shown(seconds)}."
            )
        self.max_calls = max_calls
        self.window_seconds = float(seconds)
        self._window = round(self.window_seconds * MICROSECONDS)
        self._meters: dict[str, Meter] = {}

    def line(self, tool: str, *, votes: bool) -> Line:
        """What a run of a tool asks of its meter."""
        meter = self._meters.get(tool)
        if meter is None:
            meter = self._meters.setdefault(tool, _LoopMeter(f"loops of {tool}"))
        return Line(meter, self.max_calls if votes else None, 1, 0, self._window, self._window > 0)

    def counts(self, ledger: Ledger, now: int) -> dict[str, int]:
        """How often each tool ran within the window that ends at `now`, in microseconds since the epoch."""
        return {tool: self.count(ledger, meter, now) for tool, meter in list(self._meters.items())}

    def count(self, ledger: Ledger, meter: Meter, now: int) -> int:
        """How often the tool of a meter ran within the window, with the runs that are just being admitted."""
        balance = ledger.read(meter, now)
        return balance.settled + balance.held

    def meters(self) -> Iterable[Any]:
        """The meters that exist, to reset or forget them."""
        return list(self._meters.values())
