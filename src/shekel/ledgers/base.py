"""The ledger protocol: where spending is kept, and the one place that decides whether a call may spend.

Theory of operation. A ledger knows meters and integers, nothing else: no budgets, models, prices, clocks or SDKs.
Money is in nano-dollars, tokens and calls are counts. A meter has `settled` (spent) and `held` (promised to open
calls). A call holds on several meters at once, all or none, and ends in exactly one of SETTLED and RELEASED:

    (none) → HELD → SETTLED | RELEASED
    (none) → RELEASED          a tombstone: a late `admit` of that id meets it

`admit`, `extend`, `settle` and `release` are each one atomic step over all meters of the call, idempotent by call id,
and name absolute totals, so that a repetition changes nothing. No lock is held over anything but arithmetic.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

Meter = Hashable
"""The name of a meter. In memory any hashable object; a shared ledger uses strings."""


@dataclass(frozen=True, slots=True)
class Line:
    """What a call asks of one meter: `base + g × rate`, for a grant of g output tokens.

    Attributes:
        meter: the meter's name. A meter that is named twice counts once (the first line).
        limit: the most that `settled + held` may reach; None for a meter that only tracks and never refuses.
        base: what the call needs whatever it generates (nano-dollars, tokens or calls; at least 0).
        rate: what each further output token needs, in the same unit (at least 0).
    """

    meter: Meter
    limit: int | None
    base: int
    rate: int = 0


@dataclass(frozen=True, slots=True)
class Balance:
    """What a meter shows: spent, promised, and how many calls hold something on it."""

    settled: int = 0
    held: int = 0
    holds: int = 0


@dataclass(frozen=True, slots=True)
class Grant:
    """The call holds. `tokens` is how many output tokens it may generate in all, need ≤ tokens ≤ want."""

    tokens: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """The call holds nothing more than before. The tightest meter says why.

    Attributes:
        line: the line that lacks the most room for `need`.
        balance: that meter, before the call.
        asked: what the line would have needed, base + need × rate.
    """

    line: Line
    balance: Balance
    asked: int


class Ledger(Protocol):
    """Where meters live."""

    kind: str
    """"memory", "sqlite", "redis": an attribute of what is told."""

    def admit(self, call: str, need: int, want: int, lines: Sequence[Line]) -> Grant | Refusal:
        """Take a hold for a call on all its meters, or on none.

        Grants the largest g with need ≤ g ≤ want for which `settled + held + base + g × rate ≤ limit` on every line
        with a limit; each meter then holds `base + g × rate`. Refuses if and only if even g = need does not fit.

        A call id that already holds gets its old grant again; one that was settled or released gets Grant(0) with
        nothing held.
        """
        ...

    def extend(self, call: str, need: int, want: int, lines: Sequence[Line], *, force: bool = False) -> Grant | Refusal:
        """Raise the hold of an open call to the totals named (never below what it holds now).

        `need`, `want`, `base` and `rate` are totals since admission, as if the call were admitted anew in place of
        its present hold. A refusal leaves the present hold untouched. With `force` the hold is taken at `need` even
        where it does not fit. A call that is not open gets Grant(0) with nothing held.
        """
        ...

    def settle(self, call: str, amounts: Mapping[Meter, int]) -> None:
        """End a call: its hold goes, and `amounts` are added to the meters' `settled`.

        For a call already settled this is a correction: its former amounts are replaced. For a call that was never
        admitted (a charge without a hold), or was released, it is a plain charge.
        """
        ...

    def release(self, call: str) -> None:
        """End a call without a charge. Releasing an unknown id leaves a tombstone that a late `admit` meets."""
        ...

    def read(self, meter: Meter) -> Balance:
        """What a meter shows now. An unknown meter shows zeros."""
        ...

    def reset(self, meter: Meter) -> None:
        """Zero a meter's `settled`, keep its holds, and drop corrections to calls settled before."""
        ...

    def forget(self, meter: Meter) -> None:
        """Drop a meter that holds nothing, as when its budget is gone. A meter with holds goes when they end."""
        ...
