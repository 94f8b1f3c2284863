"""Steering: what its owner may do with a budget that is in use: reset, stop, resume, change a limit, grant more.

A part of `Budget`, kept apart so that the others can be read alone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

from .. import late
from ..shown import shown
from . import wiring
from .asking import Allowance
from .charged import Charged
from .claims import AtLimit, Claim
from .grants import counted
from .keywords import limits_in
from .limits import MOST, NANO, Limit, Unit, agree, written
from .queues import wake_all
from .slots import Slot
from .velocity import warns_before

KEPT_ALLOWANCES = 1_000
"""How many of the last grants a budget keeps for its owner to read; what they grant goes on."""


class Steering(Charged):
    """See `Budget`."""

    def reset(self) -> None:
        """Forget what was spent. Open calls keep their holds.

        Raises:
            RuntimeError: inside one of its own blocks.
        """
        if self._depth:
            raise RuntimeError("a budget cannot be reset inside its own block: leave the block first.")
        late.flush()
        for slot in self._slots:
            slot.reset(wiring.ledger())
        for meter in self._other_meters():
            wiring.ledger().reset(meter)
        self.parts.forget_grants()
        self._thresholds.forget()
        self._rates.forget()
        self._books.clear()
        self._changed()

    def stop(self) -> None:
        """Refuse new calls at once, and cut open streams before their next chunk, until `resume`."""
        self._stopped = True
        self._changed()
        wake_all()
        for call, index in list(self._books.open.values()):
            self._halt(call, index)

    def resume(self) -> None:
        """Let calls pass again after `stop`."""
        self._stopped = False
        self._changed()

    @property
    def stopped(self) -> bool:
        """Whether `stop` holds."""
        return self._stopped

    def set_limit(self, limit: float | str | Limit, *, model: str | None = None) -> None:
        """Raise or lower a limit while it is in use: the next admission sees it; what is held stays held.

        Args:
            limit: USD, a `Limit`, or a spec, also of several. Each takes the place of the limit of the same unit and
                window.
            model: the limit of that model.

        Raises:
            ValueError: the budget has no limit of that unit and window, and the message lists those it has; or it would
                be no more than `last_call` keeps of it, or `warn_velocity` would not be below `max_velocity`. Nothing
                is changed.
        """
        wanted = [each if model is None else replace(each, model=model) for each in limits_in(limit, "limit")]
        changes = [(self._slot_of(each), each) for each in agree(wanted, "limit")]
        for slot, new in changes:
            if slot is self._slots[0] and new.amount <= self._reserve:
                raise ValueError(
                    f"limit must be more than '{Limit(self._reserve)}', which last_call keeps of it, "
                    f"not {shown(written(new))}: give a higher one."
                )
        self._check_rates(dict(changes))
        for slot, new in changes:
            before = slot.amount(time.time()) or MOST
            slot.change(new)
            self._changed()
            now = time.time()
            for claim in self.claims(now):
                if claim.meter == slot.meter(now) and claim.limit is not None:
                    balance = wiring.ledger().read(claim.meter, int(now * 1_000_000))
                    self._thresholds.changed(claim, balance.settled)
                    over = min(balance.settled + balance.held, before) - claim.limit
                    if over > 0 and claim.votes and claim.unit is Unit.USD:
                        wiring.overran(claim, over, "limit")
                    wiring.relimited(claim)

    def _check_rates(self, changes: Mapping[Slot, Limit]) -> None:
        """The rate that warns stays below the one that refuses."""
        rates = {slot.at_limit: changes.get(slot, slot.limit) for slot in self._slots if slot.rate_of is not None}
        most, warning = rates.get(None), rates.get(AtLimit.WARN)
        if most is not None and warning is not None and not warns_before(warning, most):
            raise ValueError(
                f"limit would put warn_velocity {shown(written(warning))} at or above max_velocity "
                f"{shown(written(most))}: give a max_velocity that is higher, or a warn_velocity that is lower."
            )

    def allow(self, claim: Claim, allowance: Allowance, now: float | None = None) -> tuple[Allowance, ...]:
        """Grant an amount beyond the limit that a claim stands for, for its present window.

        Args:
            claim: the limit.
            allowance: how much, in USD or a count. A fraction of a count is recorded as the next whole one.
            now: the Unix time of the grant in seconds; None for the present.
        """
        now = time.time() if now is None else now
        whole = counted(allowance.amount, claim.unit)
        recorded = replace(allowance, amount=whole / NANO if claim.unit is Unit.USD else whole, at=now)
        if claim.part is not None:
            claim.part.grant(whole)
        for slot in self._slots:
            if slot.owns(claim.meter):
                slot.grant(claim.meter, whole, now)
        self._allowances.append(recorded)
        del self._allowances[:-KEPT_ALLOWANCES]  # a rule may grant with each call, for ever; spans have them all
        self._changed()
        return (recorded,)

    def _slot_of(self, wanted: Limit) -> Slot:
        for slot in self._slots:
            have = slot.limit
            if have is None:
                if wanted.unit is Unit.USD and wanted.window is None and wanted.model is None:
                    return slot
            elif (have.unit, have.window, have.model) == (wanted.unit, wanted.window, wanted.model):
                return slot
        known = ", ".join(shown(str(slot.limit)) for slot in self._slots if slot.limit is not None) or "none"
        raise ValueError(f"the budget has no limit like {shown(str(wanted))} to change; it has {known}.")

    def _changed(self) -> None:
        self._made = {}
        self.queue.freed()
