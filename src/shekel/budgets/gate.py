"""The gate: finds the meters that a call is charged to, and asks the ledger to admit, extend and settle.

It turns a request's facts and a price into what a hold needs, by the mode of each budget, as the law of the ledger
says. It knows no SDK, no HTTP and no spans. All meters of a call take their holds in one step of the ledger, or none.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import TYPE_CHECKING

from opentelemetry.context import Context

from .. import faults, late
from ..call import Call
from ..estimation import Estimator, Text
from ..ledgers.base import Balance, Grant, Ledger, Line, Refusal
from ..providers.base import Answer, StreamReader
from ..settlement import Cost
from ..usage import Usage
from . import refusals
from .claims import Claim, Fallback, Payer
from .errors import BudgetExceededError, FallbackError
from .holds import LEAST_SLICE, SLICE, Need, line_of, need_of, with_failed
from .limits import Mode

if TYPE_CHECKING:
    from ..pricing import Prices, Quote

WATCHED = 1_000
"""The most budget names that gauges show."""


class Gate:
    """Admits, extends and settles calls. One per process; holds no state of its own beyond its parts.

    Args:
        ledger: where the meters live.
        prices: the price list, made when it is first needed.
        estimator: estimates of tokens.
        payers: where claims come from.
        overran: told when a settlement carries a meter over its limit, with the cause.
        violated: told when a call cost more than the bound that was stated for it.
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
    ) -> None:
        self.ledger = ledger
        self.prices = prices
        self.estimator = estimator
        self.payers = tuple(payers)
        self.watched: dict[str, tuple[Hashable, int]] = {}
        self._overran = overran
        self._violated = violated

    # Admission

    def admit(self, call: Call, context: Context) -> None:
        """Decide about a call, once: it holds on all its meters afterwards, or is refused.

        A refusal is kept in `call.refusal` for the door to raise; nothing is raised here, because the decision may be
        made inside a span processor, where an exception would keep other processors from the span.
        """
        if call.decided:
            return
        call.decided = True
        call.claims = tuple(
            {c.meter: c for payer in self.payers for c in payer.claims(context, call.started_wall)}.values()
        )
        try:
            self._admit(call)
        except (BudgetExceededError, FallbackError) as refusal:
            call.refusal = refusal

    def _admit(self, call: Call) -> None:
        call.override = next((c.price for c in reversed(call.claims) if c.price is not None), None)
        self._estimate_input(call)
        enforcing = [c for c in call.claims if c.limit is not None]
        call.quote = self._quote(call, call.model)
        if not call.claims:
            self._expect(call)
            return
        switched = self._due_fallback(call, enforcing)
        if switched is not None and switched.fallback is not None:
            self._switch(call, switched)
        if call.quote is None:
            for claim in enforcing:
                if not claim.allow_unpriced:
                    raise refusals.unpriced(call, claim, self.ledger.read(claim.meter).settled)
            self._expect(call)
            self._open_accounts(call)
            return
        answer = self._ask(call)
        if isinstance(answer, Refusal) and late.flush():
            answer = self._ask(call)  # a stream that was dropped unread gave its hold back
        if isinstance(answer, Refusal):
            candidate = self._other_fallback(call, enforcing, answer)
            if candidate is not None:
                self._switch(call, candidate)
                if call.quote is not None:
                    answer = self._ask(call)
        if isinstance(answer, Refusal):
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
        assert call.quote is not None
        need = call.need = need_of(call, call.quote, self.expected_output(call))
        call.expected, call.upper = need.expected, need.upper
        strict = any(c.mode is Mode.STRICT for c in call.claims)
        sliced = call.request.stream and any(c.mode is Mode.SLICED for c in call.claims)
        if strict:
            claim = next(c for c in call.claims if c.mode is Mode.STRICT)
            problem = refusals.unbounded(call, claim, self.ledger.read(claim.meter).settled, need)
            if problem is not None:
                raise problem
        first = self._slice(call, need, 0) if sliced else 0
        lines = [line_of(claim, need, stream=call.request.stream, strict=strict, first=first) for claim in call.claims]
        if strict:
            assert need.most is not None
            least = min(call.request.min_cap, need.most)
            answer = self.ledger.admit(call.id, least, need.most, lines)
        elif sliced:
            answer = self.ledger.admit(call.id, min(first, need.least(0)), first, lines)
        else:
            answer = self.ledger.admit(call.id, 0, 0, lines)
        if isinstance(answer, Grant):
            call.held_lines = lines
            if sliced:
                call.granted = first if strict else answer.tokens
            if strict:
                cap = answer.tokens
                if need.cap is None or cap < need.cap:
                    call.cap = cap
                # What is asked for now is bounded by the grant, not by the model's maximum.
                assert need.strict_base is not None
                call.upper = need.strict_base + cap * need.strict_rate
                call.held_lines = [
                    line._replace(base=line.base + cap * line.rate, rate=0) if claim.mode is Mode.STRICT else line
                    for claim, line in zip(call.claims, lines, strict=True)
                ]
        return answer

    def _slice(self, call: Call, need: Need, used: int) -> int:
        """Output tokens to ask for next: a slice, smaller where the room of the tightest meter is shared by many."""
        want = SLICE
        for claim in call.claims:
            if claim.mode is Mode.SLICED and claim.limit is not None and need.output_rate > 0:
                balance = self.ledger.read(claim.meter)
                room = claim.limit - balance.settled - balance.held
                share = room // (max(1, balance.holds + (used == 0)) * need.output_rate)
                want = max(LEAST_SLICE, min(want, share))
        return min(want, need.rest(used))

    # Fallback

    def _due_fallback(self, call: Call, enforcing: list[Claim]) -> Claim | None:
        """The innermost claim whose threshold is reached. Also checks that each fallback is of the same provider."""
        due = None
        for claim in enforcing:
            if claim.fallback is None:
                continue
            self._same_provider(call, claim.fallback)
            balance = self.ledger.read(claim.meter)
            assert claim.limit is not None
            if balance.settled + balance.held >= claim.fallback.at * claim.limit:
                due = claim
        return due

    def _other_fallback(self, call: Call, enforcing: list[Claim], refusal: Refusal) -> Claim | None:
        """A claim whose cheaper model may still fit where the model asked for does not."""
        if call.fallback_from is not None:
            return None
        for claim in enforcing:
            if claim.meter == refusal.line.meter and claim.fallback is not None:
                return claim
        return None

    def _same_provider(self, call: Call, fallback: Fallback) -> None:
        from ..pricing import provider_of

        other = provider_of(fallback.model)
        own = call.endpoint.provider
        if other in ("openai", "anthropic") and own in ("openai", "anthropic") and other != own:
            raise FallbackError(
                f"fallback model {fallback.model!r} belongs to {other}, but the call goes to {own}: "
                "a fallback must be a model of the same provider."
            )

    def _switch(self, call: Call, claim: Claim) -> None:
        assert claim.fallback is not None
        model = claim.fallback.model
        if model == call.model:
            return
        call.fallback_from = call.model
        body = {**(call.body or {}), "model": model}
        call.request = call.endpoint.read_request(body)
        call.body = body
        self._estimate_input(call)
        call.quote = self._quote(call, model)
        for each in call.claims:
            if each.account is not None and each.fallback is claim.fallback:
                each.account.switched(call, model, self.ledger.read(each.meter).settled)

    def _open_accounts(self, call: Call) -> None:
        for index, claim in enumerate(call.claims):
            if claim.account is not None:
                claim.account.call_opened(call, index)

    # While it runs

    def extend(self, call: Call, tokens: int) -> bool:
        """Hold for more output of a stream that has produced `tokens`. False: there is no more, see `call.cut`."""
        need = call.need
        held = call.held_lines
        if call.granted is None or call.quote is None or need is None or held is None:
            return True
        if need.is_whole(call.granted):
            return True
        done = max(tokens, call.granted)
        least = tokens + need.least(tokens) if tokens >= call.granted else call.granted + 1
        want = max(least, done + self._slice(call, need, done))
        known = None if call.reader is None else call.reader.input_tokens()
        base = need.input if known is None else max(need.input, known * call.quote.input_rate)
        lines = [
            Line(line.meter, line.limit, base, need.output_rate)
            if claim.mode is Mode.SLICED
            else Line(line.meter, line.limit, line.base)
            for claim, line in zip(call.claims, held, strict=True)
        ]
        asked = with_failed(call, lines)
        answer = self.ledger.extend(call.id, least, want, asked)
        if isinstance(answer, Refusal) and late.flush():
            answer = self.ledger.extend(call.id, least, want, asked)
        if isinstance(answer, Grant):
            call.granted = answer.tokens
            call.held_lines = lines
            return True
        call.cut = refusals.exceeded(call, answer, cut=True)
        return False

    def retrying(self, call: Call) -> None:
        """Another attempt follows one that may have been billed: hold for it too, by force, outside strict mode."""
        if call.quote is None or not call.held_lines:
            return
        lines = with_failed(call, call.held_lines)
        granted = call.granted or 0
        self.ledger.extend(call.id, granted, granted, lines, force=True)

    # The end

    def settle(self, call: Call, cost: Cost) -> None:
        """End the call's holds with what it cost. Strict meters take the upper bound where the cost is estimated."""
        if not call.claims:
            return
        amounts = {}
        for index, claim in enumerate(call.claims):
            if not cost.priced:
                amount = call.held(index)  # a price unknown only at the end: the hold is what is charged
            elif claim.mode is Mode.STRICT and cost.committed is not None:
                amount = cost.committed
            else:
                amount = cost.spent
            amounts[claim.meter] = amount
        if cost.usage is not None and not cost.estimated and call.upper is not None and cost.spent > call.upper:
            self._violated(call)
        for claim in call.claims:
            if claim.account is not None:
                claim.account.call_settled(call, cost, amounts[claim.meter])
        self.ledger.settle(call.id, amounts)
        for claim in call.claims:
            if claim.limit is not None:
                balance = self.ledger.read(claim.meter)
                self._watch(claim, balance)
                over = balance.settled + balance.held - claim.limit
                if over > 0:
                    self._overran(claim, min(over, amounts[claim.meter]), "settlement")
            if claim.account is not None:
                claim.account.after_settlement(call)

    def _watch(self, claim: Claim, balance: Balance) -> None:
        """Keep, for each budget name, the fullest of its meters: what gauges show of it."""
        if claim.name is None or claim.limit is None:
            return
        known = self.watched.get(claim.name)
        if known is not None and known[0] != claim.meter:
            other = self.ledger.read(known[0])
            if (other.settled + other.held) * claim.limit > (balance.settled + balance.held) * known[1]:
                return
        elif known is None and len(self.watched) >= WATCHED:
            return
        self.watched[claim.name] = (claim.meter, claim.limit)

    def release(self, call: Call) -> None:
        """Take back whatever the call holds, without a charge."""
        if call.claims:
            self.ledger.release(call.id)

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
        return self.ledger.read(claim.meter)

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
