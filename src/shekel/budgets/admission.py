"""Admission: which meters a call is charged to, what it asks of each, and what becomes of the answer.

A request's facts and a price become what a hold needs, by the mode of each budget, as the law of the ledger says. All
meters of a call take their holds in one step of the ledger, or none. Where that is refused, a cheaper model of a
budget's chain may fit. What happens to a call after that is not known here: that is the gate's.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TYPE_CHECKING, cast

from opentelemetry.context import Context

from .. import faults, late, locks
from ..call import Call
from ..estimation import Estimator
from ..ledgers.base import Grant, Ledger, Line, Refusal
from . import fallbacks, refusals
from .appraisal import Appraisal
from .claims import Claim, Payer
from .errors import BudgetExceededError, FallbackError
from .gauges import Gauges
from .holds import Need, line_of, need_of
from .limits import Mode, Unit
from .slices import Slices

if TYPE_CHECKING:
    from ..pricing import Prices
    from ..providers.base import Endpoint


class Admission(Appraisal):
    """Admits calls.

    Args:
        ledger: where the meters live.
        prices: the price list, made when it is first needed.
        estimator: estimates of tokens.
        payers: where claims come from.
        clock: the time in microseconds since the epoch.
        shadowed: told what a shadow budget would have decided.
    """

    def __init__(
        self,
        ledger: Ledger,
        prices: Callable[[], Prices],
        estimator: Estimator,
        payers: Iterable[Payer],
        clock: Callable[[], int],
        shadowed: Callable[[Claim, str], None],
    ) -> None:
        super().__init__(prices, estimator)
        self.ledger = ledger
        self.payers = tuple(payers)
        self.gauges = Gauges(ledger, clock)
        self.forked = False
        """Set in a forked child, until its first call under a limit has said so."""
        self._slices = Slices(ledger, self._tell_shadows)
        self._shadowed = shadowed

    def admit(self, call: Call, context: Context) -> None:
        """Decide about a call, once: it holds on all its meters afterwards, or is refused.

        A refusal is kept in `call.refusal` for the door to raise; nothing is raised here, because the decision may be
        made inside a span processor, where an exception would keep other processors from the span.
        """
        if call.decided:
            return
        self.find(call, context)
        try:
            self._admit(call)
        except (BudgetExceededError, FallbackError) as refusal:
            call.refusal = refusal.with_traceback(None)  # the frames on its way keep the context

    def find(self, call: Call, context: Context) -> None:
        """The meters that the call is charged to."""
        call.decided = True
        now = call.moment()
        call.all_claims = tuple(
            {
                c.meter: c
                for payer in self.payers
                for c in payer.claims(context, now / 1_000_000, provider=call.provider)
            }.values()
        )
        self._select(call)
        if self.forked:
            self._warn_of_fork(call)

    def _warn_of_fork(self, call: Call) -> None:
        if any(claim.limit is not None for claim in call.claims):
            self.forked = False
            faults.warn_once(
                "forked",
                "This process was forked, and Shekel keeps spending in the memory of each process: every worker has "
                "the whole limit of its budgets to itself, and together they may spend as many times as much. Divide "
                "the limits by the number of workers.",
            )

    def _select(self, call: Call) -> None:
        """Only the meters that count calls of this model; a fallback may change which they are."""
        claims = call.all_claims
        if any(c.model is not None or c.models or c.unit is Unit.TOOL_CALLS for c in claims):
            claims = tuple(c for c in claims if c.unit is not Unit.TOOL_CALLS and c.counts(call.model))
        call.claims = claims

    def _admit(self, call: Call) -> None:
        call.override = next((c.price for c in reversed(call.claims) if c.price is not None), None)
        self.estimate_input(call)
        call.quote = self.quote(call, call.model)
        if not call.claims:
            self._expect(call)
            return
        for claim in call.claims:
            if claim.stopped:
                raise refusals.stopped(call, claim, self.ledger.read(claim.meter, call.moment()))
        if locks.inside():
            raise refusals.in_between(call, call.claims[0])
        self._start_fallback(call)
        answer = self._ask(call)
        if isinstance(answer, Refusal) and late.flush():
            answer = self._ask(call)  # a stream that was dropped unread gave its hold back
        if isinstance(answer, Refusal):
            for model, owner in self._further(call, answer):
                self._switch(call, model, owner)
                answer = self._ask(call)
                if isinstance(answer, Grant):
                    break
        if isinstance(answer, Refusal):
            raise self._exceeded(call, refusals.innermost(call, answer, self.ledger))
        self._open_accounts(call)

    def _exceeded(self, call: Call, refusal: Refusal) -> BudgetExceededError:
        """Keep the ledger's refusal on the call, and make the error of it."""
        call.refused = refusal
        call.refused_claim = refusals.claim_of(call, refusal)
        for claim in call.claims:
            self.gauges.see(claim)
        return refusals.exceeded(call, refusal)

    def _expect(self, call: Call) -> None:
        """Without meters nothing is held, but an end without usage still needs the expected cost."""
        if call.quote is not None:
            need = call.need = need_of(call, call.quote, self.expected_output(call))
            call.expected, call.upper = need.expected, need.upper

    def _ask(self, call: Call) -> Grant | Refusal:
        """One atomic admission over all meters of the call, each line by the mode of its own budget."""
        claims = call.claims
        barred: set[Hashable] = set()
        if call.quote is None:
            for claim in claims:
                if claim.unit is Unit.USD and claim.votes and not claim.allow_unpriced:
                    raise refusals.unpriced(call, claim, self.ledger.read(claim.meter, call.moment()).settled)
                if claim.unit is Unit.USD and claim.shadow is not None and not claim.allow_unpriced:
                    barred.add(claim.shadow)
        need = call.need = need_of(call, call.quote, self.expected_output(call))
        call.expected, call.upper = need.expected, need.upper
        stream = call.request.stream
        strict = False
        for claim in claims:
            if claim.mode is Mode.STRICT and claim.strict and (claim.unit is not Unit.USD or call.quote is not None):
                problem = refusals.unbounded(call, claim, self.ledger, need)
                if problem is not None:
                    raise problem
                strict = True
            elif claim.mode is Mode.STRICT and claim.shadow is not None and claim.counts_output:
                problem = refusals.unbounded(call, claim, self.ledger, need)
                if problem is not None:
                    barred.add(claim.shadow)
        sliced = stream and any(c.mode is Mode.SLICED for c in claims)
        # Beside a strict meter a slice is a fixed part of the hold: the least, so that nothing is refused that fits.
        first = 0 if not sliced else need.least(0) if strict else self._slices.size(call, need, 0, call.moment())
        lines = [line_of(claim, need, stream=stream, strict=strict, first=first) for claim in claims]
        if barred:  # a shadow that would refuse, whatever is left of it
            lines = [each._replace(limit=-1) if each.shadow in barred else each for each in lines]
        least = most = 0
        if strict and need.most is not None:
            least, most = min(call.request.min_cap, need.most), need.most
        elif sliced and not strict:
            least, most = min(first, need.least(0)), first
        answer = self.ledger.admit(call.id, least, most, lines, call.moment(), instead_of=call.instead_of)
        if isinstance(answer, Grant):
            self._granted(call, need, answer, lines, strict=strict, sliced=sliced, first=first)
        return answer

    def _granted(
        self, call: Call, need: Need, answer: Grant, lines: list[Line], *, strict: bool, sliced: bool, first: int
    ) -> None:
        """Keep what is held. A strict grant becomes the cap of the request, and bounds what the call can cost."""
        if sliced:
            call.granted = first if strict else answer.tokens
        if strict:
            cap = answer.tokens
            capped = [claim.strict and each.rate > 0 for claim, each in zip(call.claims, lines, strict=True)]
            if any(capped) and need.most is not None and (need.cap is None or cap < need.cap):
                call.cap = cap
            if need.strict_base is not None and need.most is not None:
                # What is asked for now is bounded by the grant, not by the model's maximum.
                call.upper = need.strict_base + cap * need.strict_rate
            caps = dict(answer.short)
            lines = [each._replace(base=each.base + caps.get(each.shadow, cap) * each.rate, rate=0) for each in lines]
            # A shadow that would have capped the output lower is charged for no more than that.
            call.frozen = {each.meter: each.base for each in lines if each.shadow in caps}
        else:
            call.short = dict(answer.short)
        if answer.left_out:
            call.left_out = frozenset(answer.left_out)
            lines = [each._replace(base=0, rate=0) if each.shadow in call.left_out else each for each in lines]
            self._tell_shadows(call, call.left_out, "would_refuse")
        call.held_lines = lines

    # Fallback

    def _start_fallback(self, call: Call) -> None:
        """Use the model that is due by the thresholds, before anything is asked."""
        due = fallbacks.due(call, self.ledger)
        if due is not None:
            self._switch(call, *due)

    def _further(self, call: Call, refusal: Refusal) -> Iterator[tuple[str, Claim]]:
        """The cheaper models that may still fit where this one does not, in the order of the chain."""
        owner = fallbacks.owner(call, refusals.claim_of(call, refusal))
        return fallbacks.after(call.model, owner)

    def _switch(self, call: Call, model: str, owner: Claim) -> None:
        if model == call.model:
            return
        if call.fallback_from is None:
            call.fallback_from = call.model
        body = {**(call.body or {}), "model": model}
        call.request = cast("Endpoint", call.endpoint).read_request(body)  # only what came through a door falls back
        call.body = body
        self._select(call)
        self.estimate_input(call)
        call.quote = self.quote(call, model)
        if owner.account is not None:
            call.fallback_of = owner

    def _open_accounts(self, call: Call) -> None:
        owner = call.fallback_of
        if owner is not None and owner.account is not None:
            owner.account.switched(call, call.model, self.ledger.read(owner.meter, call.moment()).settled)
        for index, claim in enumerate(call.claims):
            if claim.account is not None and claim.first:
                claim.account.call_opened(call, index)
            if claim.name is not None and claim.name not in self.gauges.meters:
                self.gauges.see(claim)

    def _tell_shadows(self, call: Call, groups: Iterable[Hashable], decision: str) -> None:
        for claim in call.claims:
            if claim.first and claim.shadow in groups:
                self._shadowed(claim, decision)
                if claim.account is not None:
                    claim.account.left_out(call)
