"""Gauges: which meter of each budget name is shown. A name with many meters, one per user, shows its fullest."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from ..ledgers.base import Balance, Ledger
from .claims import Claim
from .limits import Unit

if TYPE_CHECKING:
    from ..policies.standing import Row

WATCHED = 1_000
"""The most budget names that gauges show."""


class Shown(NamedTuple):
    """A meter that is shown: its limit in nano-dollars, when its period ends, and the row of a policy that it is of."""

    meter: Hashable
    limit: int
    ends: float | None
    row: Row | None

    def limit_now(self) -> int:
        """The limit, also where a policy has been changed since."""
        now = None if self.row is None else self.row.limit_of(self.meter)
        return self.limit if now is None else now

    def is_past(self, now: int) -> bool:
        """Whether its period is over: what was spent in it is no longer what is spent."""
        return self.ends is not None and now >= self.ends * 1_000_000


class Gauges:
    """The meters that are shown.

    Args:
        ledger: where they live.
        clock: the time in microseconds since the epoch.

    Attributes:
        meters: what is shown, by budget name.
    """

    def __init__(self, ledger: Ledger, clock: Callable[[], int]) -> None:
        self._ledger = ledger
        self._clock = clock
        self.meters: dict[str, Shown] = {}

    def see(self, claim: Claim) -> None:
        """Have gauges show a budget from its first call on."""
        if claim.unit is Unit.USD and claim.part is None and claim.limit is not None and claim.name not in self.meters:
            self.watch(claim, self._ledger.read(claim.meter, self._clock()))

    def watch(self, claim: Claim, balance: Balance) -> None:
        """Keep, for each budget name, the fullest of its meters: what gauges show of it."""
        if claim.name is None or claim.limit is None or claim.part is not None:
            return
        known = self.meters.get(claim.name)
        if known is not None and known.meter != claim.meter:
            now = self._clock()
            if not known.is_past(now):
                other = self._ledger.read(known.meter, now)
                if (other.settled + other.held) * claim.whole > (balance.settled + balance.held) * known.limit_now():
                    return
        elif known is None and len(self.meters) >= WATCHED:
            return
        self.meters[claim.name] = Shown(claim.meter, claim.whole, claim.resets_at, claim.row)

    def forget(self, meters: Collection[Hashable]) -> None:
        """Show these meters no more."""
        for name, shown in list(self.meters.items()):
            if shown.meter in meters:
                self.meters.pop(name, None)

    def relimited(self, claim: Claim) -> None:
        """The limit of a budget was changed: show it at once."""
        if claim.name is not None and claim.limit is not None:
            known = self.meters.get(claim.name)
            if known is not None and known.meter == claim.meter:
                self.meters[claim.name] = known._replace(limit=claim.whole)

    def rows(self) -> Iterator[tuple[str, Balance, int]]:
        """What is shown now: the name, the balance and the limit in nano-dollars. A period that is over shows zeros."""
        now = self._clock()
        for name, shown in list(self.meters.items()):
            balance = Balance() if shown.is_past(now) else self._ledger.read(shown.meter, now)
            yield name, balance, shown.limit_now()
