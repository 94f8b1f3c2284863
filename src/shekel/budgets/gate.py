"""The gate: finds the meters that a call is charged to, and asks the ledger to admit, extend and settle.

It turns a request's facts and a price into what a hold needs, by the mode of each budget, as the law of the ledger
says. It knows no SDK, no HTTP and no spans. All meters of a call take their holds in one step of the ledger, or none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TYPE_CHECKING

from opentelemetry.context import Context

from .. import faults, late, locks
from ..call import Call
from ..estimation import Estimator, Text
from ..ledgers.base import Balance, Grant, Ledger, Line, Refusal
from ..providers.base import Answer, StreamReader
from ..settlement import Cost
from ..usage import Usage
from . import fallbacks, refusals
from .amounts import amounts_of
from .claims import AtLimit, Claim, Payer
from .corrections import Corrections
from .errors import BudgetExceededError, FallbackError
from .holds import LEAST_SLICE, SLICE, Need, line, line_of, need_of, with_failed
from .limits import Mode, Unit
from .tool_gate import charge_tool

if TYPE_CHECKING:
    from ..pricing import Prices, Quote
    from .budget import Budget

WATCHED = 1_000
"""The most budget names that gauges show."""


class Gate:
    """Admits, extends and settles calls. One per process; holds no state of its own beyond its parts.

    Args:
        ledger: where the meters live.
        prices: the price list, made when it is first needed.
        estimator: estimates of tokens.
        payers: where claims come from.
        overran: told when something carries a meter over its limit, with the nano-dollars and the cause.
        violated: told when a call cost more than the bound that was stated for it.
        clock: the time in microseconds since the epoch.
        shadowed: told what a shadow budget would have decided.
    """

    def __init__(
        self,
        ledger: Ledger,
        prices: Callable[[], Prices],
        estimator: Estimator,
        payers: Iterable[Payer],
        *,
        overran: Callable[[Claim, int, str], None] = lambda claim, nano, cause: None,
        violated: Callable[[Call], None] = lambda call: None,
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
        shadowed: Callable[[Claim, str], None] = lambda claim, decision: None,
    ) -> None:
        self.ledger = ledger
        self.prices = prices
        self.estimator = estimator
        self.payers = tuple(payers)
        self.watched: dict[str, tuple[Hashable, int]] = {}
        self.corrections = Corrections(ledger, overran)
        self.clock = clock
        self.forked = False
        """Set in a forked child, until its first call under a limit has said so."""
        self._overran = overran
        self._violated = violated
        self._shadowed = shadowed

    # Admission

    def admit(self, call: Call, context: Context) -> None:
        """Decide about a call, once: it holds on all its meters afterwards, or is refused.

        A refusal is kept in `call.refusal` for the door to raise; nothing is raised here, because the decision may be
        made inside a span processor, where an exception would keep other processors from the span.
        """
        if call.decided:
            return
        call.decided = True
        now = call.moment()
        call.all_claims = tuple(
            {c.meter: c for payer in self.payers for c in payer.claims(context, now / 1_000_000)}.values()
        )
        self._select(call)
        if self.forked:
            self._warn_of_fork(call)
        try:
            self._admit(call)
        except (BudgetExceededError, FallbackError) as refusal:
            call.refusal = refusal

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
        if any(c.model is not None or c.unit is Unit.TOOL_CALLS for c in claims):
            claims = tuple(c for c in claims if c.unit is not Unit.TOOL_CALLS and c.counts(call.model))
        call.claims = claims

    def _admit(self, call: Call) -> None:
        call.override = next((c.price for c in reversed(call.claims) if c.price is not None), None)
        self._estimate_input(call)
        call.quote = self._quote(call, call.model)
        if not call.claims:
            self._expect(call)
            return
        for claim in call.claims:
            if claim.stopped:
                raise refusals.stopped(call, claim, self.ledger.read(claim.meter, call.moment()))
            if locks.inside():
                raise refusals.in_between(call, claim)
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
            call.refused = answer
            call.refused_claim = refusals.claim_of(call, answer)
            for claim in call.claims:
                self._see(claim)
            raise refusals.exceeded(call, answer)
        self._open_accounts(call)

    def _estimate_input(self, call: Call) -> None:
        request = call.request
        call.input_tokens = self.estimator.input_tokens(request.model, request.text) + request.extra_input

    def _quote(self, call: Call, model: str) -> Quote | None:
        if call.override is not None:
            return call.override
        request = call.request
        return self.prices().quote(
            call.provider,
            model,
            host=call.host,
            service_tier=request.service_tier,
            speed=request.speed,
            at=call.started_wall,
        )

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
        first = 0 if not sliced else need.least(0) if strict else self._slice(call, need, 0)
        lines = [line_of(claim, need, stream=stream, strict=strict, first=first) for claim in claims]
        if barred:  # a shadow that would refuse, whatever is left of it
            lines = [each._replace(limit=-1) if each.shadow in barred else each for each in lines]
        least = most = 0
        if strict and need.most is not None:
            least, most = min(call.request.min_cap, need.most), need.most
        elif sliced and not strict:
            least, most = min(first, need.least(0)), first
        answer = self.ledger.admit(call.id, least, most, lines, call.moment())
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
            lines = [each._replace(base=each.base + cap * each.rate, rate=0) for each in lines]
        if answer.left_out:
            call.left_out = frozenset(answer.left_out)
            lines = [each._replace(base=0, rate=0) if each.shadow in call.left_out else each for each in lines]
            self._tell_shadows(call, call.left_out, "would_refuse")
        call.held_lines = lines

    def _slice(self, call: Call, need: Need, used: int) -> int:
        """Output tokens to ask for next: a slice, smaller where the room of the tightest meter is shared by many."""
        want = SLICE
        for claim in call.claims:
            rate = need.rate(claim.unit)
            if claim.mode is Mode.SLICED and rate > 0 and self._shares(call, claim):
                assert claim.limit is not None
                balance = self.ledger.read(claim.meter, call.moment())
                room = claim.limit - balance.settled - balance.held
                share = room // (max(1, balance.holds + (used == 0)) * rate)
                want = max(LEAST_SLICE, min(want, share))
        return min(want, need.rest(used))

    def _shares(self, call: Call, claim: Claim) -> bool:
        """Whether a stream has to spare the room of a meter for others. A shadow is spared as if it enforced."""
        if claim.limit is None or claim.at_limit is AtLimit.WARN:
            return False
        return claim.meter not in call.overdrawn and (claim.shadow is None or claim.shadow not in call.left_out)

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
        call.request = call.endpoint.read_request(body)
        call.body = body
        self._select(call)
        self._estimate_input(call)
        call.quote = self._quote(call, model)
        if owner.account is not None:
            call.fallback_of = owner

    def _open_accounts(self, call: Call) -> None:
        owner = call.fallback_of
        if owner is not None and owner.account is not None:
            owner.account.switched(call, call.model, self.ledger.read(owner.meter, call.moment()).settled)
        for index, claim in enumerate(call.claims):
            if claim.account is not None and claim.first:
                claim.account.call_opened(call, index)
            if claim.name is not None and claim.name not in self.watched:
                self._see(claim)

    def admit_tool(self, name: str, price: Callable[[Budget | None], int], context: Context) -> None:
        """Count and charge one run of a tool before it happens; see `charge_tool`, which says what is raised."""
        now = self.clock()
        claims = {c.meter: c for payer in self.payers for c in payer.claims(context, now / 1_000_000)}
        if claims:
            charge_tool(self.ledger, tuple(claims.values()), name, price, now)

    # While it runs

    def extend(self, call: Call, tokens: int) -> bool:
        """Hold for more output of a stream that has produced `tokens`. False: there is no more, see `call.cut`."""
        need = call.need
        held = call.held_lines
        if call.granted is None or need is None or held is None or need.is_whole(call.granted):
            return True
        if locks.inside():  # a finaliser reads a stream in the middle of a step: the next chunk asks again
            return True
        done = max(tokens, call.granted)
        least = tokens + need.least(tokens) if tokens >= call.granted else call.granted + 1
        want = max(least, done + self._slice(call, need, done))
        known = None if call.reader is None else call.reader.input_tokens()
        input_rate = 0 if call.quote is None else call.quote.input_rate
        self._see_limits(call)
        lines = [
            line(claim, need.base(claim.unit, known, input_rate), need.rate(claim.unit))
            if claim.mode is Mode.SLICED and each.shadow not in call.left_out
            else line(claim, each.base, each.rate)
            for claim, each in zip(call.claims, held, strict=True)
        ]
        answer = self._extend(call, least, want, lines)
        if isinstance(answer, Refusal) and late.flush():
            answer = self._extend(call, least, want, lines)
        while isinstance(answer, Refusal):
            claim = refusals.claim_of(call, answer)
            if claim is None or claim.at_limit is not AtLimit.FINISH:
                call.cut = refusals.exceeded(call, answer, cut=True)
                return False
            call.overdrawn = {**call.overdrawn, claim.meter: call.held(call.claims.index(claim))}
            answer = self._extend(call, least, want, lines)
        if answer.left_out:
            self._freeze(call, held, frozenset(answer.left_out))
            lines = [
                before._replace(base=before.base + call.frozen_at * before.rate, rate=0)
                if now.shadow in call.left_out
                else now
                for before, now in zip(held, lines, strict=True)
            ]
        call.granted = answer.tokens
        call.held_lines = lines
        return True

    def _see_limits(self, call: Call) -> None:
        """Take the limits of now: one that was changed in use holds for open streams too, in the period they began."""
        now = call.moment() / 1_000_000
        present: dict[Hashable, int | None] = {}
        for claim in call.claims:
            if claim.first and claim.account is not None:
                present.update({c.meter: c.limit for c in claim.account.claims(now, last_call=claim.last_call)})
        if any(present.get(claim.meter, claim.limit) != claim.limit for claim in call.claims):
            call.claims = tuple(c._replace(limit=present.get(c.meter, c.limit)) for c in call.claims)

    def _extend(self, call: Call, least: int, want: int, lines: list[Line]) -> Grant | Refusal:
        asked = with_failed(call, lines)
        if call.overdrawn:  # the stream may end: its budget counts it, and refuses nothing of it
            asked = [each._replace(limit=None) if each.meter in call.overdrawn else each for each in asked]
        if call.left_out:
            asked = [each for each in asked if each.shadow not in call.left_out]
        return self.ledger.extend(call.id, least, want, asked, call.moment())

    def _freeze(self, call: Call, held: list[Line], groups: frozenset[Hashable]) -> None:
        """Shadow budgets would have cut the stream here: they count no more of it."""
        call.frozen_at = call.granted or 0
        for claim, each in zip(call.claims, held, strict=True):
            if each.shadow in groups:
                call.frozen[claim.meter] = each.base + call.frozen_at * each.rate
        call.left_out |= groups
        self._tell_shadows(call, groups, "would_cut")

    def _tell_shadows(self, call: Call, groups: Iterable[Hashable], decision: str) -> None:
        for claim in call.claims:
            if claim.first and claim.shadow in groups:
                self._shadowed(claim, decision)
                if claim.account is not None:
                    claim.account.left_out(call)

    def retrying(self, call: Call) -> None:
        """Another attempt follows one that may have been billed: hold for it too, by force, outside strict mode."""
        if call.quote is None or not call.held_lines:
            return
        lines = [each for each in with_failed(call, call.held_lines) if each.shadow not in call.left_out]
        granted = call.granted or 0
        self.ledger.extend(call.id, granted, granted, lines, call.moment(), force=True)

    # The end

    def settle(self, call: Call, cost: Cost) -> None:
        """End the call's holds with what it cost. Strict meters take the upper bound where the cost is estimated."""
        claims = call.claims
        if not claims:
            return
        amounts = amounts_of(call, cost)
        if cost.usage is not None and not cost.estimated and call.upper is not None and cost.spent > call.upper:
            self._violated(call)
        innermost = next((c.account for c in reversed(claims) if c.account is not None), None)
        for claim in claims:
            account = claim.account
            if account is not None and claim.first:
                amount = amounts.get(claim.meter, 0)
                if call.left_out and claim.shadow in call.left_out:
                    account.saved(call, cost.spent - amount)
                    if claim.meter not in call.frozen:
                        continue
                account.call_settled(call, cost, amount, innermost=account is innermost)
        now = call.moment()
        self.ledger.settle(call.id, amounts, now)
        self.corrections.remember(call, amounts)
        for index, claim in enumerate(claims):
            if claim.limit is not None:
                self._check(call, index, claim, amounts, now)
            if claim.account is not None and claim.first:
                claim.account.after_settlement(call)

    def _check(self, call: Call, index: int, claim: Claim, amounts: dict[Hashable, int], now: int) -> None:
        balance = self.ledger.read(claim.meter, now)
        assert claim.limit is not None
        if claim.meter in call.overdrawn and balance.settled > claim.limit:
            call.aftermath = refusals.finished(call, claim, balance)
        if claim.unit is not Unit.USD:
            return
        self._watch(claim, balance)
        # What was admitted is no overrun of this call: a limit that was lowered has been counted when it was.
        admitted = call.overdrawn.get(claim.meter, call.held(index))
        over = min(balance.settled + balance.held - claim.limit, amounts.get(claim.meter, 0) - admitted)
        if over > 0 and claim.votes:
            cause = "retry" if call.failed_spent else "settlement"
            if claim.meter in call.overdrawn:
                cause = "finish"
            self._overran(claim, over, cause)

    def _see(self, claim: Claim) -> None:
        """Have gauges show a budget from its first call on."""
        if claim.unit is Unit.USD and claim.limit is not None and claim.name not in self.watched:
            self._watch(claim, self.ledger.read(claim.meter, self.clock()))

    def _watch(self, claim: Claim, balance: Balance) -> None:
        """Keep, for each budget name, the fullest of its meters: what gauges show of it."""
        if claim.name is None or claim.limit is None:
            return
        known = self.watched.get(claim.name)
        if known is not None and known[0] != claim.meter:
            other = self.ledger.read(known[0], self.clock())
            if (other.settled + other.held) * claim.limit > (balance.settled + balance.held) * known[1]:
                return
        elif known is None and len(self.watched) >= WATCHED:
            return
        self.watched[claim.name] = (claim.meter, claim.limit)

    def release(self, call: Call) -> None:
        """Take back whatever the call holds, without a charge."""
        if call.claims:
            self.ledger.release(call.id, call.moment())

    # What only the gate can answer: prices and estimates

    def price(self, call: Call, model: str | None, usage: Usage) -> tuple[Quote, int] | None:
        """The price of a usage: by the model that answered, else the one asked for. None if neither has one."""
        prices = self.prices()
        quote = call.override
        if quote is None and model:
            quote = prices.quote(
                call.provider,
                model,
                host=call.host,
                service_tier=usage.service_tier or call.request.service_tier,
                speed=usage.speed or call.request.speed,
                at=call.started_wall,
            )
        if quote is None:
            quote = call.quote
        if quote is None:
            return None
        return quote, prices.cost(quote, usage, provider=call.provider, at=call.started_wall)

    def output_tokens(self, call: Call, reader: StreamReader) -> int:
        """Output tokens of a stream that the provider has not counted, rounded up."""
        return -(-reader.units // 1000)

    def expected_output(self, call: Call) -> int:
        """Output tokens of all choices that a call of this model will hardly exceed, by what is learnt of it."""
        likely = self.estimator.expected_output(call.model)
        cap = call.request.cap
        return call.request.choices * (likely if cap is None else min(cap, likely))

    def text_tokens(self, call: Call, text: Text) -> int:
        """Output tokens of a whole text that the provider has not counted."""
        return self.estimator.output_tokens(call.model, text)

    def balance(self, claim: Claim) -> Balance:
        """What a meter shows now."""
        return self.ledger.read(claim.meter, self.clock())

    def learn(self, call: Call, answer: Answer) -> None:
        """Let the estimates learn from an answer whose usage the provider has counted."""
        usage = answer.usage
        if usage is None:
            return
        try:
            model = call.model
            request = call.request
            if request.unbounded is None:
                self.estimator.observe_input(model, request.text, usage.input - request.extra_input)
            self.estimator.observe_output(
                model, answer.text, output=usage.output, reasoning=usage.reasoning, choices=request.choices
            )
        except Exception as error:
            faults.report("learnt from an answer", error)
