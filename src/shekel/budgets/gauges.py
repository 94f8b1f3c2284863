"""Gauges: which meter of each budget name is shown. A name with many meters, one per user, shows its fullest."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from ..ledgers.base import Balance, Ledger
from .claims import Claim
from .limits import Unit

WATCHED = 1_000
"""The most budget names that gauges show."""


class Gauges:
    """The meters that are shown.

    Args:
        ledger: where they live.
        clock: the time in microseconds since the epoch.

    Attributes:
        meters: by budget name: the meter, and its limit in nano-dollars.
    """

    def __init__(self, ledger: Ledger, clock: Callable[[], int]) -> None:
        self._ledger = ledger
        self._clock = clock
        self.meters: dict[str, tuple[Hashable, int]] = {}

    def see(self, claim: Claim) -> None:
        """Have gauges show a budget from its first call on."""
        if claim.unit is Unit.USD and claim.part is None and claim.limit is not None and claim.name not in self.meters:
            self.watch(claim, self._ledger.read(claim.meter, self._clock()))

    def watch(self, claim: Claim, balance: Balance) -> None:
        """Keep, for each budget name, the fullest of its meters: what gauges show of it."""
        if claim.name is None or claim.limit is None or claim.part is not None:
            return
        known = self.meters.get(claim.name)
        if known is not None and known[0] != claim.meter:
            other = self._ledger.read(known[0], self._clock())
            if (other.settled + other.held) * claim.limit > (balance.settled + balance.held) * known[1]:
                return
        elif known is None and len(self.meters) >= WATCHED:
            return
        self.meters[claim.name] = (claim.meter, claim.limit)
