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
    from .claims import Claim

REMEMBERED = 10_000
"""Finished calls that can still be corrected, as many as the memory ledger keeps."""


_Charge: TypeAlias = "tuple[Hashable, int, int | None, ref[Any] | Claim]"
"""A meter, what it was charged, the most that it may be charged (None if it is not in USD, and stays as it is), and
whose it is: a budget, by a reference that does not keep it alive, or the claim of a policy. A plain tuple, because ten
thousand calls are remembered."""


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

    def remember(self, call: Call, amounts: Mapping[Hashable, int]) -> None:
        """Keep what a call was charged. A budget that is gone is not kept alive by it."""
        charges: list[_Charge] = [
            (
                claim.meter,
                amounts[claim.meter],
                call.frozen.get(claim.meter, MOST) if claim.unit is Unit.USD else None,
                claim if claim.account is None else claim.account.myself,
            )
            for claim in call.claims
            if claim.meter in amounts
        ]
        with locks.books:
            self._calls[call.id] = (call.model, charges)
            while len(self._calls) > REMEMBERED:
                self._calls.popitem(last=False)

    def reconcile(self, call_id: str, nano: int, now: int) -> int:
        """Set the cost of a call that has ended, in nano-dollars.

        A shadow that would have cut its stream is charged for no more than it held by then.

        Args:
            call_id: of a call that has ended.
            nano: what it has cost.
            now: microseconds since the epoch.

        Returns:
            by how much the charge has changed, in nano-dollars.

        Raises:
            LookupError: no call of that id is remembered.
        """
        with locks.books:
            known = self._calls.get(call_id)
            if known is None:
                raise LookupError(
                    f"no finished call {shown(call_id)} is remembered: the last {REMEMBERED} of this process are, "
                    "those under a budget or a policy."
                )
            model, charges = known
            changed = [
                (meter, amount if most is None else min(nano, most), most, whose)
                for meter, amount, most, whose in charges
            ]
            self._calls[call_id] = (model, changed)
        self._ledger.settle(call_id, {meter: amount for meter, amount, _, _ in changed}, now)
        greatest = 0
        told: set[int] = set()
        for (_, before, _, _), (meter, after, _, whose) in zip(charges, changed, strict=True):
            if after == before:
                continue
            difference = after - before
            greatest = max(greatest, difference, key=abs)
            claim = whose if not isinstance(whose, ref) else None
            account = whose() if isinstance(whose, ref) else None
            if account is not None:
                if id(account) not in told:
                    told.add(id(account))
                    account.corrected(call_id, model, difference)
                claim = next((each for each in account.claims(now / 1_000_000) if each.meter == meter), None)
            if claim is not None and claim.limit is not None and claim.votes and difference > 0:
                balance = self._ledger.read(meter, now)
                over = balance.settled + balance.held - claim.limit
                if over > 0:
                    self._overran(claim, min(over, difference), "reconcile")
        return greatest
