"""Readings: what a budget shows of its spending. A part of `Budget`, kept apart so that the other can be read alone.

It adds up nothing and decides nothing. Before it answers, ends that a finaliser saw are finished.
"""

from __future__ import annotations

import time

from .. import context, late
from ..ledgers.base import Ledger
from . import wiring
from .asking import Allowance
from .books import Books
from .claims import AtLimit
from .limits import NANO
from .slots import LimitState, Slot


class Readings:
    """See `Budget`."""

    _slots: list[Slot]
    _books: Books
    _allowances: list[Allowance]
    _reserve: int

    def _ledger(self) -> Ledger:
        return wiring.ledger()

    @property
    def spent(self) -> float:
        """USD spent in the window of the limit in USD (in all, without one), with what open streams cost so far."""
        late.flush()
        slot, now = self._slots[0], time.time()
        meter = slot.meter(now)  # a stream that was admitted in an earlier period is charged to that one
        return (self._ledger().read(meter, int(now * 1_000_000)).settled + self._books.running(meter)) / NANO

    @property
    def held(self) -> float:
        """USD that open calls hold."""
        late.flush()
        return self._slots[0].read(self._ledger()).held / NANO

    def limits(self) -> list[LimitState]:
        """Every limit: what is used, held and left of it, and when it starts anew."""
        late.flush()
        now = time.time()
        slots = [slot for slot in self._slots if slot.at_limit is not AtLimit.WARN]  # a warning is no limit
        return [state for slot in slots if (state := self._state(slot, now)) is not None]

    def _state(self, slot: Slot, now: float) -> LimitState | None:
        """A limit for calls made here: what is kept for a last call is left to those inside its block."""
        kept = self._reserve if slot is self._slots[0] and id(self) not in context.last_calls(context.current()) else 0
        return slot.state(self._ledger(), now, kept)

    @property
    def allowances(self) -> list[Allowance]:
        """What was granted beyond the limits, with who and why, oldest first: the last 1,000 grants."""
        return list(self._allowances)

    @property
    def exposure(self) -> float:
        """USD by which spending may exceed the limit at worst, now: what open calls can cost beyond their holds, and
        what ended calls whose usage nobody reported, and nobody reconciled, can have cost beyond their estimate, for as
        long as the limit counts them. `inf` where nothing bounds a call; 0 in strict mode."""
        late.flush()
        return self._books.exposure(int(time.time() * 1_000_000)) / NANO

    @property
    def peak_exposure(self) -> float:
        """The greatest finite `exposure` in USD since the budget was made or reset: the bound on its overspending."""
        late.flush()
        return self._books.greatest(int(time.time() * 1_000_000)) / NANO

    @property
    def calls_used(self) -> int:
        """Calls that were charged: all that ended, but those that were refused or never reached the provider."""
        late.flush()
        return self._books.count

    @property
    def model_switched(self) -> bool:
        """Whether the fallback has taken over."""
        return self._books.switched_at is not None

    @property
    def switched_at_usd(self) -> float | None:
        """USD spent when the fallback took over; None if it has not."""
        at = self._books.switched_at
        return None if at is None else at / NANO

    @property
    def fallback_spent(self) -> float:
        """USD spent on the fallback model."""
        return self._books.fallback / NANO

    @property
    def shadow_refused(self) -> int:
        """With at_limit="shadow": calls that would have been refused or cut."""
        return self._books.shadow_calls

    @property
    def shadow_spent(self) -> float:
        """With at_limit="shadow": USD that the limit would have saved; they are not in `spent`."""
        return self._books.shadow / NANO
