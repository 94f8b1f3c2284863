"""Warned: which values of a policy have been warned of, once per threshold and window, however many there are.

It remembers a meter that has passed a threshold, for as long as its window lasts, and none that has not: so it holds no
more than the ledger does. A budget's own warnings are in `thresholds.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .. import locks
from ..budgets import wiring
from ..budgets.claims import AtLimit
from ..budgets.limits import NANO, Unit
from ..budgets.thresholds import call_back, least
from ..telemetry import names

if TYPE_CHECKING:
    from ..budgets.claims import Claim
    from ..call import Call

FEW = 1_000
"""So many are remembered before the first look at which of them are past."""


class Warned:
    """What has been warned of.

    Args:
        shares: shares of a limit, in rising order.
        on_warn: called with (scope, used, limit); None to tell the call's span only.
    """

    def __init__(
        self, shares: tuple[float, ...], on_warn: Callable[[dict[str, str], float, float], object] | None
    ) -> None:
        self.shares = shares
        self.on_warn = on_warn
        self._past: dict[tuple[Any, float], float] = {}
        """Until when a warning counts as given, in microseconds since the epoch."""
        self._sweep_at = FEW

    def __len__(self) -> int:
        return len(self._past)

    def look(self, call: Call, claim: Claim, scope: dict[str, str], used: int, now: int) -> None:
        """Warn of the thresholds that a meter has passed. Called outside any lock."""
        limit = claim.limit
        if limit is None or used < least(self.shares[0], limit):
            return
        for share in self.shares:
            if used < least(share, limit):
                break
            if self._is_new((claim.meter, share), claim, now):
                self._tell(call, claim, scope, used, limit, share)

    def _is_new(self, key: tuple[Any, float], claim: Claim, now: int) -> bool:
        known = self._past.get(key)
        # A session goes on with each call, and so does its warning.
        session = claim.window > 0 and not claim.slides and not claim.until
        if known is not None and now < known and not session:
            return False
        with locks.books:
            known = self._past.get(key)
            if known is not None and now < known:
                if session:
                    self._past[key] = max(known, now + claim.window)
                return False
            # A window without an end counts anew a window's length after the warning.
            until = claim.until or (now + claim.window if claim.window else math.inf)
            self._past[key] = until
            if len(self._past) >= self._sweep_at:
                self._past = {each: till for each, till in self._past.items() if now < till}
                self._sweep_at = max(FEW, 2 * len(self._past))
            return True

    def _tell(self, call: Call, claim: Claim, scope: dict[str, str], used: int, limit: int, share: float) -> None:
        told: dict[str, Any] = {} if claim.name is None else {names.BUDGET_NAME: claim.name}
        scale = NANO if claim.unit is Unit.USD else 1
        if claim.unit is Unit.USD:
            told[names.BUDGET_LIMIT_USD], told[names.BUDGET_SPENT_USD] = limit / NANO, used / NANO
        else:
            told[names.BUDGET_UNIT] = claim.unit.value
            told[names.BUDGET_LIMIT], told[names.BUDGET_USED] = limit, used
        call.teller.event(call, names.EVENT_WARNING, told)
        wiring.warned(claim, used, share, call)
        if self.on_warn is not None and claim.at_limit is not AtLimit.SHADOW:
            call_back("called on_warn", self.on_warn, scope, used / scale, limit / scale)
