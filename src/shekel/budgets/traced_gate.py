"""The gate for traced calls: those that only a span of another instrumentation shows.

They ask the same meters in the same one step as all others. What differs is said in `traced`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry.context import Context

from .. import late, locks
from ..call import Call
from ..ledgers.base import Grant, Refusal
from ..shown import shown
from . import refusals, traced
from .errors import BudgetExceededError
from .gate import Gate
from .holds import line, need_of
from .limits import Mode, Unit

if TYPE_CHECKING:
    from ..providers.base import Request


class TracedGate(Gate):
    """A gate that admits traced calls too. Arguments: as of `Gate`.

    Attributes:
        traced_in_strict: whether strict budgets let traced calls pass, held by what they probably cost.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.traced_in_strict = False

    def set_traced_in_strict(self, what: str) -> None:
        """What strict budgets do with traced calls: "refuse" or "expect".

        Raises:
            ValueError: it is neither.
        """
        if what not in ("refuse", "expect"):
            raise ValueError(f"traced_in_strict must be 'refuse' or 'expect', not {shown(what)}.")
        self.traced_in_strict = what == "expect"

    def admit_traced(self, call: Call, context: Context, way: traced.Way) -> bool:
        """Decide about a traced call, once; a refusal is kept in `call.refusal`.

        Returns whether it is decided; False where that is left to a door, see `Way`.
        """
        self.find(call, context)
        if way is traced.Way.DOOR and traced.needs_door(call.claims):
            call.undecided()
            call.claims = call.all_claims = ()
            return False
        try:
            self._admit_traced(call, way)
        except BudgetExceededError as refusal:
            call.refusal = refusal
        return True

    def _admit_traced(self, call: Call, way: traced.Way) -> None:
        before = call.claims
        call.override = next((c.price for c in reversed(before) if c.price is not None), None)
        self.estimate_input(call)
        call.quote = self.quote(call, call.model) if call.model else None
        call.claims = traced.as_expected(before)
        if not before:
            self._expect(call)
            return
        if way is not traced.Way.AFTERWARDS:
            self._look(call, before)
        need = call.need = need_of(call, call.quote, self.expected_output(call))
        call.expected, call.upper = need.expected, need.upper
        answer = self._ask_traced(call, way)
        if isinstance(answer, Refusal) and late.flush():
            answer = self._ask_traced(call, way)  # a stream that was dropped unread gave its hold back
        if isinstance(answer, Refusal):
            raise self._exceeded(call, answer)
        self._open_accounts(call)

    def _look(self, call: Call, before: tuple[Any, ...]) -> None:
        """Refuse what needs no numbers to be refused."""
        for claim in before:
            if claim.stopped:
                raise refusals.stopped(call, claim, self.ledger.read(claim.meter, call.moment()))
            if claim.mode is Mode.STRICT and claim.votes and not self.traced_in_strict:
                raise refusals.only_a_span(call, claim, self.ledger)
        if locks.inside():
            raise refusals.in_between(call, before[0])
        if call.model and call.quote is None:
            for claim in before:
                if claim.unit is Unit.USD and claim.votes and not claim.allow_unpriced:
                    raise refusals.unpriced(call, claim, self.ledger.read(claim.meter, call.moment()).settled)

    def _ask_traced(self, call: Call, way: traced.Way) -> Grant | Refusal:
        need = call.need
        assert need is not None
        lines, least, most = traced.lines(call, need, way)
        force = way is traced.Way.AFTERWARDS
        now = call.moment()
        answer = self.ledger.admit(call.id, least, most, lines, now, force=force, instead_of=call.instead_of)
        if isinstance(answer, Grant):
            self._granted(call, need, answer, lines, strict=False, sliced=most > 0, first=0)
        return answer

    def revise(self, call: Call, request: Request, provider: str, context: Context) -> None:
        """What the span says of the request now that it ends: meters that count its model count this call too.

        Nothing is asked of them any more; what was held at the start is held until the settlement.
        """
        if request == call.request and provider == call.provider:
            return
        elsewhere, renamed = provider != call.provider, request.model != call.model
        call.request = request
        call.provider = provider
        self.estimate_input(call)
        if call.decided and (elsewhere or renamed):
            held = {} if call.held_lines is None else {each.meter: each for each in call.held_lines}
            if elsewhere:
                self.find(call, context)
            else:
                self._select(call)
            call.claims = traced.as_expected(call.claims)
            call.held_lines = [held.get(claim.meter) or line(claim, 0) for claim in call.claims]
            call.quote = self.quote(call, request.model)
            if any(claim.meter not in held for claim in call.claims):  # a hold of nothing tells the ledger its window
                step, granted = self.ledger.extend if held else self.ledger.admit, call.granted or 0
                step(call.id, granted, granted, call.held_lines, call.moment(), force=True)
        self._expect(call)
