"""Thresholds: when a budget warns, once per threshold and window, however many threads cross it at once.

Theory of operation. A meter of a calendar period goes with its period; what was warned of there is new on the next one.
A meter that slides, or starts anew when idle, stays: there a threshold is armed again once less than it is settled, a
window's length or more after the last warning. That is looked at before each settlement (`arm`) and not after it: who
carries a meter over a threshold has then seen it below, also where the first settlement of a window does, or two at
once. A settlement of before that, which is read late, tells nothing of the new window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import deliveries, faults, late, locks
from . import wiring
from .errors import money
from .limits import NANO, Unit

if TYPE_CHECKING:
    from .claims import Claim


KEPT = 1_000
"""How many warnings are remembered, so that each is given once: more than a budget has thresholds at a time."""


class Told(NamedTuple):
    """A warning that was given: when, in microseconds since the epoch, and whether it may be given again."""

    at: int
    armed: bool = False


class Thresholds:
    """What has been warned of.

    Args:
        shares: shares of a limit, above 0 and at most 1, in rising order.
        on_warn: called with (used, limit): USD for a limit in USD, counts for others; None for `warnings.warn`.
        kept: how many warnings are remembered.
    """

    def __init__(
        self, shares: tuple[float, ...], on_warn: Callable[[float, float], object] | None, kept: int = KEPT
    ) -> None:
        self.shares = shares
        self._kept = kept
        self._on_warn = on_warn
        self._warned: dict[tuple[Any, float], Told] = {}

    def arm(self, claim: Claim, now: int) -> None:
        """Look at a limit before something is settled there: what was told a window ago may be due again.

        Args:
            claim: the limit.
            now: when it will be settled, in microseconds since the epoch.
        """
        limit, window = claim.whole, claim.window
        if not self._warned or claim.limit is None or not window or claim.resets_at is not None:
            return
        past = [
            (share, told)
            for share in self.shares
            if (told := self._warned.get((claim.meter, share))) and not told.armed and now - told.at >= window
        ]
        if not past:
            return
        used = wiring.ledger().read(claim.meter, now).settled
        with locks.books:
            for share, told in past:
                key = (claim.meter, share)
                if used < least(share, limit) and self._warned.get(key) is told:
                    self._warned[key] = Told(told.at, armed=True)

    def crossed(self, claim: Claim, used: int, now: int) -> list[float]:
        """The thresholds of a limit that were just crossed; each is named once per window.

        Args:
            claim: the limit.
            used: what is settled of it.
            now: microseconds since the epoch.
        """
        if claim.limit is None:
            return []
        limit = claim.whole
        found = []
        for share in self.shares:
            key = (claim.meter, share)
            if used < least(share, limit):
                continue
            with locks.books:
                told = self._warned.get(key)
                if told is None or (told.armed and now - told.at >= claim.window):
                    self._warned.pop(key, None)  # the oldest stand first
                    self._warned[key] = Told(now)
                    found.append(share)
                    if len(self._warned) > self._kept:
                        del self._warned[next(iter(self._warned))]
        return found

    def changed(self, claim: Claim, used: int) -> None:
        """The limit is another one: what was warned of and is no more reached may be warned of again."""
        with locks.books:
            for share in self.shares:
                if used < least(share, claim.whole):
                    self._warned.pop((claim.meter, share), None)

    def tell(self, name: str | None, claim: Claim, used: int) -> None:
        """Warn. Called outside any lock; an error of the callback is reported and goes no further."""
        scale = NANO if claim.unit is Unit.USD else 1
        spent, limit = used / scale, claim.whole / scale
        if self._on_warn is not None:
            call_back("called on_warn", self._on_warn, spent, limit)
            return
        label = f"budget {name}" if name else "budget"
        if claim.unit is Unit.USD:
            text = f"{label} has spent {money(spent)} of {money(limit)}"
        else:
            text = f"{label} has used {used} of {claim.limit} {claim.unit.value.replace('_', ' ')}"
        call_back("warned", faults.warn_program, text)  # a filter may turn it into an error

    def forget(self) -> None:
        """Warn anew: the budget was reset."""
        with locks.books:
            self._warned.clear()


def least(share: float, limit: int) -> int:
    """80 % of 2 calls is 1.6: the second call is the first that has used so much."""
    return -(-round(share * 1_000_000) * limit // 1_000_000)


def call_back(place: str, function: Callable[..., object], *args: object) -> None:
    """Call what the program gave; an error of it is reported and counted, and masks nothing.

    What an async function returns is run by an event loop; nobody waits for it.
    """

    def call() -> None:
        try:
            answer = function(*args)
            if isawaitable(answer):
                deliveries.deliver(answer, place)
        except Exception as error:
            faults.report(place, error)

    late.tell(call)


def rising(shares: Iterable[float]) -> tuple[float, ...]:
    """Shares in rising order, each once."""
    return tuple(sorted(set(shares)))
