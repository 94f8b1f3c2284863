"""Charging: what calls do with a budget: ask what they are charged to, and tell it of their start and their end.

A part of `Budget` (its side as an `Account`), kept apart so that the others can be read alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any
from weakref import ref

from .. import faults
from ..settlement import Cost
from ..telemetry import names
from . import refusals, wiring
from .asking import Allowance, Exceeded
from .books import Booked, Books
from .claims import AtLimit, Claim, Fallback
from .errors import money
from .limits import NANO, Mode, Unit
from .loops import LoopGuard
from .parts import Parts
from .queues import Queue
from .slots import Slot
from .thresholds import Thresholds, call_back

if TYPE_CHECKING:
    from ..call import Call


class Charged:
    """See `Budget`."""

    name: str | None
    mode: Mode
    myself: ref[Any]
    at_limit: AtLimit
    on_exceed: Callable[[Exceeded], Any] | None
    queue: Queue
    parts: Parts
    loops: LoopGuard | None
    _allowances: list[Allowance]
    _allow_unpriced: bool
    _books: Books
    _depth: int
    _fallbacks: tuple[Fallback, ...]
    _made: dict[bool, tuple[float, tuple[Claim, ...]]]
    _on_fallback: Callable[..., Any] | None
    _price: Callable[[], Any] | None
    _rates: Thresholds
    _reserve: int
    _slots: list[Slot]
    _stopped: bool
    _thresholds: Thresholds
    _warns: bool

    def claims(self, now: float, *, last_call: bool = False) -> tuple[Claim, ...]:
        """What a call at the Unix time `now` is charged to: one claim for each limit, that in USD first."""
        known = self._made.get(last_call)
        if known is not None and now < known[0]:
            return known[1]
        made = self._made  # what is changed meanwhile is not hidden by what was made before
        reserve = 0 if last_call else self._reserve
        until = math.inf
        claims = []
        for number, slot in enumerate(self._slots):
            span = slot.span(now)
            until = min(until, slot.begin(now))
            if span.ends is not None:
                until = min(until, span.ends)
            limit = slot.amount(now)
            kept = reserve if limit is not None and number == 0 else 0
            claims.append(
                Claim(
                    meter=slot.meter(now),
                    limit=None if limit is None else limit - kept,
                    mode=self.mode,
                    name=self.name,
                    resets_at=span.ends,
                    account=self,
                    fallbacks=self._fallbacks if number == 0 else (),
                    price=self._price() if self._price is not None else None,
                    allow_unpriced=self._allow_unpriced,
                    unit=slot.unit,
                    window=slot.window,
                    slides=slot.slides,
                    until=span.until,
                    at_limit=slot.at_limit or self.at_limit,
                    first=number == 0,
                    model=slot.model,
                    stopped=self._stopped,
                    last_call=last_call,
                    kept=kept,
                    rate_of=slot.rate_of,
                    number=number,
                )
            )
        made[last_call] = (until, tuple(claims))
        return made[last_call][1]

    def limit_of(self, claim: Claim, now: float) -> int | None:
        """The limit of one of its claims as it is at the Unix time `now`; that of a past period has changed with it."""
        if claim.part is not None:
            return claim.part.limit
        for slot in self._slots:
            if slot.owns(claim.meter):
                amount = slot.amount_of(claim.meter, now)
                return None if amount is None else amount - claim.kept
        return claim.limit

    @property
    def patient(self) -> bool:
        """Whether calls may wait, or somebody may be asked, before one is refused."""
        return self.at_limit is AtLimit.PAUSE or self.on_exceed is not None

    def call_opened(self, call: Call, index: int) -> None:
        self._books.opened(call, index)
        if self._stopped:  # it was stopped while the call was admitted
            self._halt(call, index)

    def call_withdrawn(self, call: Call) -> None:
        self._books.withdrawn(call)
        if len(self.queue):
            self.queue.freed()

    def call_settled(self, call: Call, cost: Cost, amount: int, *, innermost: bool) -> Booked:
        if self._warns:
            self.before_settlement(call.claims, call.moment())
        return self._books.settled(call, cost, amount, innermost=innermost, whose=self)

    def left_out(self, call: Call) -> None:
        self._books.left_out()

    def saved(self, call: Call, amount: int) -> None:
        self._books.saved(call, amount)

    def corrected(self, call_id: str, model: str, difference: int, booked: Booked, now: int) -> Booked | None:
        return self._books.corrected(call_id, model, difference, booked, now)

    def after_correction(self) -> None:
        self.queue.freed()

    def before_settlement(self, claims: Iterable[Claim], now: int) -> None:
        """Let thresholds count again that are due in a new window. Called before the ledger settles.

        Args:
            claims: what is charged, also that of others.
            now: when it is settled, in microseconds since the epoch.
        """
        for claim, thresholds in self._watched(claims):
            thresholds.arm(claim, now)

    def after_settlement(self, call: Call) -> None:
        """Warn if a threshold is passed. Called outside any lock, after the ledger has settled."""
        for claim, used, share, thresholds in self._crossed(call.claims, call.moment()):
            self._warn(call, claim, used, share, thresholds)
        if len(self.queue):
            self.queue.freed()

    def _crossed(self, claims: Iterable[Claim], now: int) -> Iterable[tuple[Claim, int, float, Thresholds]]:
        """The limits of which a threshold was just crossed, once for each, with what is used and the share."""
        for claim, thresholds in self._watched(claims):
            used = wiring.ledger().read(claim.meter, now).settled
            for share in thresholds.crossed(claim, used, now):
                yield claim, used, share, thresholds

    def _watched(self, claims: Iterable[Claim]) -> Iterable[tuple[Claim, Thresholds]]:
        """Its own limits that have thresholds, with these."""
        if not self._warns:
            return
        for claim in claims:
            if claim.account is not self or claim.limit is None or claim.number < 0:
                continue
            if claim.rate_of is None:
                yield claim, self._thresholds
            elif claim.at_limit is AtLimit.WARN:  # what warns of a rate is `warn_velocity`, or the rate that only warns
                yield claim, self._rates

    @property
    def warns(self) -> bool:
        """Whether it has thresholds of its own."""
        return self._warns

    def _warn(self, call: Call, claim: Claim, used: int, share: float, thresholds: Thresholds) -> None:
        told: dict[str, Any] = {} if self.name is None else {names.BUDGET_NAME: self.name}
        if claim.unit is Unit.USD:
            told[names.BUDGET_LIMIT_USD] = claim.whole / NANO
            told[names.BUDGET_SPENT_USD] = used / NANO
        else:
            told[names.BUDGET_UNIT] = claim.unit.value
            told[names.BUDGET_LIMIT] = claim.limit
            told[names.BUDGET_USED] = used
        call.teller.event(call, names.EVENT_WARNING, told)
        wiring.warned(claim, used, share, call)
        thresholds.tell(self.name, claim, used)

    def tool_ran(self, tool: str, amount: int, now: int, *, innermost: bool, counts: bool = True) -> None:
        """A tool was counted (unless it had been) and charged that amount."""
        self._books.tool(tool, amount, now, innermost=innermost, counts=counts)

    def after_tool(self, claims: Iterable[Claim], now: int) -> None:
        """Warn if a threshold is passed by a tool. Called outside any lock."""
        for claim, used, share, thresholds in self._crossed(claims, now):
            wiring.warned(claim, used, share, None)
            thresholds.tell(self.name, claim, used)

    def tool_left_out(self, amount: int) -> None:
        """A tool runs that the limit would have refused; a shadow does not charge it."""
        self._books.tool_left_out(amount)

    def switched(self, call: Call, model: str, spent: int) -> None:
        if not self._books.switched(spent):
            return
        if self._on_fallback is not None:
            call_back("called on_fallback", self._on_fallback, spent / NANO, self._slots[0].usd(), model)
        else:
            label = f"budget {self.name}" if self.name else "budget"
            text = f"{label} has spent {money(spent / NANO)}: calls go to {model} from now on"
            call_back("warned", faults.warn_program, text)

    def _halt(self, call: Call, index: int) -> None:
        if not call.request.stream:
            return
        claim = call.claims[index]
        balance = wiring.ledger().read(claim.meter, call.moment())
        call.halt(refusals.stopped(call, claim, balance, cut=True))

    def _other_meters(self) -> list[Any]:
        return [*self.parts.meters(), *(() if self.loops is None else self.loops.meters())]
