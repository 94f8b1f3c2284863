"""The ledger protocol: where spending is kept, and the one place that decides whether a call may spend.

Theory of operation. A ledger knows meters and integers, nothing else: no budgets, models, prices, clocks or SDKs.
Money is in nano-dollars, tokens and calls are counts, time is in microseconds since the epoch and is passed in. A meter
has `settled` (spent) and `held` (promised to open calls). A call holds on several meters at once, all or none, and ends
in exactly one of SETTLED and RELEASED:

    (none) → HELD → SETTLED | RELEASED
    (none) → RELEASED          a tombstone: a late `admit` of that id meets it

`admit`, `extend`, `settle` and `release` are each one atomic step over all meters of the call, idempotent by call id,
and name absolute totals, so that a repetition changes nothing. No lock is held over anything but arithmetic.

A meter forgets by the window that the first line names it with, for as long as it lives:

    window = 0              never.
    window > 0, slides      what was settled longer ago than `window` is out. It is counted in 64 slots: never less than
                            an exact window of that length would count, never more than an exact one of 65/64 of it.
                            A settlement is stamped when it settles, a correction keeps that stamp, open holds count.
    window > 0, no slides   once nothing is held and nothing was admitted or ended for `window`, and not before `until`,
                            the meter starts anew at zero (a session's idle time; a calendar period that is past). What
                            is corrected on it after that is dropped and counted (`dropped`).

A shadow group (the lines of a budget that only tells what it would have done) never votes on the grant: it takes its
holds where all of its lines fit at `need`, for as much of the grant as fits, and is left out, and named, where they do
not.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

Meter = Hashable
"""The name of a meter. In memory any hashable object; a shared ledger uses strings."""


class Line(NamedTuple):
    """What a call asks of one meter: `base + g × rate`, for a grant of g output tokens.

    Attributes:
        meter: the meter's name. A meter that is named twice counts once (the first line).
        limit: the most that `settled + held` may reach; None for a meter that only tracks and never refuses.
        base: what the call needs whatever it generates (nano-dollars, tokens or calls; at least 0).
        rate: what each further output token needs, in the same unit (at least 0).
        window: how long the meter remembers, in microseconds; 0: for ever.
        slides: whether amounts slide out one by one (True), or the meter starts anew when idle for `window` (False).
        shadow: the group that the line belongs to, if it never votes: all lines of a group hold, or none.
        until: microseconds since the epoch before which a meter that does not slide never starts anew: the end of its
            calendar period, so that a month in which nobody calls for three days is still the same month.
    """

    meter: Meter
    limit: int | None
    base: int
    rate: int = 0
    window: int = 0
    slides: bool = False
    shadow: Hashable | None = None
    until: int = 0


class Balance(NamedTuple):
    """What a meter shows: spent, promised, and how many calls hold something on it."""

    settled: int = 0
    held: int = 0
    holds: int = 0


class Grant(NamedTuple):
    """The call holds.

    Attributes:
        tokens: how many output tokens it may generate in all, need ≤ tokens ≤ want.
        left_out: the shadow groups that do not fit: they hold nothing for an admission, and what they held before for
            an extension.
        short: the shadow groups that hold for fewer tokens than these, each with its number, need ≤ number < tokens.
    """

    tokens: int
    left_out: tuple[Hashable, ...] = ()
    short: tuple[tuple[Hashable, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """The call holds nothing more than before. The tightest meter says why.

    Attributes:
        line: the line that lacks the largest share of its limit for `need` (one of limit 0 lacks all of it); the first
            of those that lack as much.
        balance: that meter, before the call.
        asked: what the line would have needed, base + need × rate.
        frees_at: microseconds since the epoch at which enough of that meter will have slid out, at the earliest and if
            the open calls cost what they hold. None where waiting does not help, and for a meter that does not slide.
    """

    line: Line
    balance: Balance
    asked: int
    frees_at: int | None = None


class Ledger(Protocol):
    """Where meters live.

    `now` is the time of a step, in microseconds since the epoch. It may be left out where no meter has a window. A
    meter's time does not go back: an earlier `now` counts as that of its last step.
    """

    kind: str
    """"memory", "sqlite", "redis": an attribute of what is told."""

    dropped: int
    """Corrections that came after their meter had started anew, and changed nothing."""

    def admit(
        self,
        call: str,
        need: int,
        want: int,
        lines: Sequence[Line],
        now: int = 0,
        *,
        force: bool = False,
        instead_of: str | None = None,
    ) -> Grant | Refusal:
        """Take a hold for a call on all its meters, or on none.

        Grants the largest g with need ≤ g ≤ want for which `settled + held + base + g × rate ≤ limit` on every line
        that has a limit and is in no shadow group; each meter then holds `base + g × rate`. Refuses if and only if even
        g = need does not fit. With `force` the hold is taken at `need` even where that does not fit, by shadow groups
        too: so is charged what is not asked for beforehand. `instead_of` names a call that is released in the same
        step, whatever comes of it: the room that it held is free for this one, and for nobody before it.

        A call id that already holds gets its old grant again; one that was settled or released gets Grant(0) with
        nothing held.
        """
        ...

    def look(self, need: int, want: int, lines: Sequence[Line], now: int = 0) -> Grant | Refusal:
        """What `admit` would answer to a new call now. Nothing changes by looking.

        Of a meter that was charged before any line named it, `frees_at` may be None although it slides.
        """
        ...

    def extend(
        self, call: str, need: int, want: int, lines: Sequence[Line], now: int = 0, *, force: bool = False
    ) -> Grant | Refusal:
        """Raise the hold of an open call to the totals named (never below what it holds now).

        `need`, `want`, `base` and `rate` are totals since admission, as if the call were admitted anew in place of
        its present hold. A refusal leaves the present hold untouched. With `force` the hold is taken at `need` even
        where it does not fit, by the shadow groups that hold something too. A call that is not open gets Grant(0) with
        nothing held.
        """
        ...

    def settle(self, call: str, amounts: Mapping[Meter, int], now: int = 0, *, final: bool = False) -> None:
        """End a call: its hold goes, and `amounts` (each at least 0) are added to the meters' `settled`.

        For a call already settled this is a correction: its former amounts are replaced. For a call that was never
        admitted (a charge without a hold), or was released, it is a plain charge.

        `final`: it is charged for good, as the run of a tool is, and takes no place among the calls that can be
        corrected. Settling it again changes nothing. A call that was settled before, and not for good, is corrected.

        A meter that no line has named yet has no window, and keeps what it is charged until the first line gives it
        one; that then counts as settled at the last of these charges. Charge a meter with a window by
        `admit(force=True)` and `settle`.
        """
        ...

    def correct(self, call: str, amounts: Mapping[Meter, int], now: int = 0) -> Mapping[Meter, int] | None:
        """Replace what a settled call was charged on its meters; never a new charge, and on no other meter.

        Returns:
            by how much `settled` of each meter has changed, of those where it has: a charge that has slid out, or
            whose meter was reset or has started anew, changes nothing. None where no such call is remembered.
        """
        ...

    def release(self, call: str, now: int = 0) -> None:
        """End a call without a charge. Releasing an unknown id leaves a tombstone that a late `admit` meets."""
        ...

    def read(self, meter: Meter, now: int = 0) -> Balance:
        """What a meter shows now; nothing changes by looking. An unknown meter shows zeros."""
        ...

    def reset(self, meter: Meter) -> None:
        """Zero a meter's `settled`, keep its holds, and drop corrections to calls settled before."""
        ...

    def forget(self, meter: Meter) -> None:
        """Drop a meter that holds nothing, as when its budget is gone. A meter with holds goes when they end."""
        ...
