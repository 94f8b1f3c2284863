"""Corrections: what a finished call was charged, for as long as it may still be corrected.

`shekel.reconcile(call_id, cost)` sets the true cost of a call, up or down, on all its meters in USD: the amount on an
invoice, or of background work that was read later. The ledger corrects; this remembers what there is to correct.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import ref

from .. import locks
from ..ledgers.base import Ledger
from ..shown import shown
from .limits import MOST, Unit

if TYPE_CHECKING:
    from ..call import Call
    from .books import Booked
    from .claims import Claim
    from .tracking import Tracking

REMEMBERED = 10_000
"""Finished calls that can still be corrected, as many as the memory ledger keeps."""


_Charge: TypeAlias = "tuple[Hashable, int, int | None, ref[Any] | Claim, Booked | None]"
"""A meter, what it was charged, the most that it may be charged (None if it is not in USD, and stays as it is), and
whose it is: a budget, by a reference that does not keep it alive, or the claim of a policy. Then what the books of a
budget have of the call, beside one meter of each. A plain tuple, because ten thousand calls are remembered."""


class Corrections:
    """The last finished calls, and what their meters were charged.

    Args:
        ledger: where the charges stand.
        overran: told when a correction carries a meter over its limit.
    """

    def __init__(self, ledger: Ledger, overran: Callable[[Claim, int, str], None]) -> None:
        self._ledger = ledger
        self._overran = overran
        self._calls: OrderedDict[str, tuple[str, list[_Charge]]] = OrderedDict()

    def remember(self, call: Call, amounts: Mapping[Hashable, int], booked: Mapping[Hashable, Booked | None]) -> None:
        """Keep what a call was charged. A budget that is gone is not kept alive by it."""
        charges: list[_Charge] = [
            (
                claim.meter,
                amounts[claim.meter],
                call.frozen.get(claim.meter, MOST) if claim.unit is Unit.USD else None,
                claim if claim.account is None else claim.account.myself,
                booked.get(claim.meter),
            )
            for claim in call.claims
            if claim.meter in amounts
        ]
        with locks.books:
            self._calls[call.id] = (call.model, charges)
            while len(self._calls) > REMEMBERED:
                self._calls.popitem(last=False)

    def reconcile(self, call_id: str, nano: int, now: int, tracking: Tracking | None = None) -> int:
        """Set the cost of a call that has ended, in nano-dollars.

        A shadow that would have cut its stream is charged for no more than it held by then.

        Args:
            call_id: of a call that has ended.
            nano: what it has cost.
            now: microseconds since the epoch.
            tracking: what is corrected besides.

        Returns:
            by how much the charge has changed, in nano-dollars: the innermost, of those that no reset has taken.

        Raises:
            LookupError: no call of that id is remembered.
        """
        with locks.correcting:
            model, charges, moved = self._settle(call_id, nano, now)
            difference = self._write(call_id, model, nano, charges, now)
            if tracking is not None:
                tracking.corrected(call_id, nano)
        self._tell(charges, moved, now)
        return difference

    def _settle(self, call_id: str, nano: int, now: int) -> tuple[str, list[_Charge], Mapping[Hashable, int]]:
        """Correct the ledger. Returns the model, what was charged before, and by how much each meter has changed."""
        with locks.books:
            known = self._calls.get(call_id)
        model, charges = ("", []) if known is None else known
        amounts = {meter: _after(amount, most, nano) for meter, amount, most, _, _ in charges}
        moved = None if known is None else self._ledger.correct(call_id, amounts, now)
        if moved is None:
            raise LookupError(
                f"no finished call {shown(call_id)} is remembered: the last {REMEMBERED} of this process are, "
                "those under a budget or a policy."
            )
        return model, charges, moved

    def _write(self, call_id: str, model: str, nano: int, charges: list[_Charge], now: int) -> int:
        """Correct the totals of the budgets, and what is remembered. Returns by how much the charge has changed."""
        difference = 0
        changed: list[_Charge] = []
        with locks.books:
            for meter, amount, most, whose, booked in charges:
                after = _after(amount, most, nano)
                # A budget's books have the call once, however many of its meters do, and not after a reset.
                stands = most is not None and (booked is not None or not isinstance(whose, ref))
                account = whose() if isinstance(whose, ref) else None
                if booked is not None and account is not None:
                    booked = account.corrected(call_id, model, after - amount, booked, now)
                    stands = booked is not None
                if stands and after != amount:
                    difference = after - amount
                changed.append((meter, after, most, whose, booked))
            if call_id in self._calls:
                self._calls[call_id] = (model, changed)
        return difference

    def _tell(self, charges: list[_Charge], moved: Mapping[Hashable, int], now: int) -> None:
        """Let those know who wait for room or watch the limits. Called outside any lock."""
        told: set[int] = set()
        for meter, _, most, whose, _ in charges:
            claim = whose if not isinstance(whose, ref) else None
            account = whose() if isinstance(whose, ref) else None
            more = moved.get(meter, 0)
            if most is None or not more:
                continue
            if account is not None:
                if id(account) not in told:
                    told.add(id(account))
                    account.after_correction()
                claim = next((each for each in account.claims(now / 1_000_000) if each.meter == meter), None)
            if claim is not None and claim.limit is not None and claim.votes and more > 0:
                balance = self._ledger.read(meter, now)
                over = balance.settled + balance.held - claim.limit
                if over > 0:
                    self._overran(claim, min(over, more), "reconcile")


def _after(amount: int, most: int | None, nano: int) -> int:
    """What a meter is charged once a call has cost so much."""
    return amount if most is None else min(nano, most)
