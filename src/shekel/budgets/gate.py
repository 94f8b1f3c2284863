"""The gate: admits calls and tools, extends the holds of streams, and settles what calls have cost.

How a call is admitted says `admission`; here is what comes after it, and what is charged without asking. It knows no
SDK, no HTTP and no spans.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable
from typing import TYPE_CHECKING

from opentelemetry.context import Context

from .. import context as ctx
from ..call import Call
from ..estimation import Estimator
from ..ledgers.base import Balance, Ledger, Refusal
from ..settlement import Billing, Cost
from . import refusals
from .admission import Admission
from .amounts import amounts_of
from .claims import Claim, Payer
from .corrections import Corrections
from .errors import BudgetExceededError
from .holds import line, with_failed
from .limits import Unit
from .part_errors import ToolBudgetExceededError
from .tool_gate import charge_tool

if TYPE_CHECKING:
    from ..pricing import Prices, Quote
    from .budget import Budget
    from .tracking import Tracking


class Gate(Admission):
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
        super().__init__(ledger, prices, estimator, payers, clock, shadowed)
        self.corrections = Corrections(ledger, overran)
        self.clock = clock
        self.watching: Callable[[Claim, int], None] | None = None
        """Told of each limit before a settlement, with the time of it, while somebody listens for soft limits."""
        self.watched: Callable[[Call, Claim, Balance], None] | None = None
        """Told what each limit shows after a settlement, while somebody listens for soft limits."""
        self.tracking: Tracking | None = None
        """Keeps what each value of some scope keys uses, where somebody wants to know."""
        self.tool_refused: Callable[[Exception, Context], None] = lambda error, context: None
        """Told of a tool that is not run."""
        self._overran = overran
        self._violated = violated

    # Tools, and what is recorded by hand

    def admit_tool(
        self, name: str, price: Callable[[Budget | None], int], context: Context, *, counts: bool = True
    ) -> None:
        """Charge one run of a tool before it happens, in the context inside it; `charge_tool` says what is raised."""
        now = self.clock()
        context = Context({**context, ctx.RUN: name})
        claims = {c.meter: c for payer in self.payers for c in payer.claims(context, now / 1_000_000)}
        if claims:
            try:
                charge_tool(self.ledger, tuple(claims.values()), name, price, now, counts=counts)
            except (BudgetExceededError, ToolBudgetExceededError) as refusal:
                self.tool_refused(refusal, context)
                raise

    def price_by_hand(self, call: Call, context: Context, price: Quote | None = None) -> None:
        """Find the meters and the price of spending that has happened already; `charge` follows.

        Args:
            call: not decided yet.
            context: where it would be made.
            price: what it costs, where the program says so.
        """
        self.find(call, context)
        call.override = price or next((c.price for c in reversed(call.claims) if c.price is not None), None)
        call.quote = self.quote(call, call.model) if call.model or price is not None else None

    def charge(self, call: Call) -> None:
        """Let the meters know the call. It holds nothing, and is charged in full when it is settled."""
        call.held_lines = [line(claim, 0) for claim in call.claims]
        if call.claims:
            self.ledger.admit(call.id, 0, 0, call.held_lines, call.moment(), force=True)

    # While it runs

    def extend(self, call: Call, tokens: int) -> bool:
        """Hold for more output of a stream that has produced `tokens`. False: there is no more, see `call.cut`."""
        return self._slices.extend(call, tokens)

    def retrying(self, call: Call) -> None:
        """Another attempt follows one that may have been billed: hold for it too, by force, outside strict mode."""
        if not call.held_lines:
            return
        lines = [
            each._replace(base=each.base + call.short[each.shadow] * each.rate, rate=0)
            if each.shadow in call.short
            else each
            for each in with_failed(call, call.held_lines)
            if each.shadow not in call.left_out
        ]
        granted = call.granted or 0
        self.ledger.extend(call.id, granted, granted, lines, call.moment(), force=True)

    # The end

    def settle(self, call: Call, cost: Cost) -> None:
        """End the call's holds with what it cost. Strict meters take the upper bound where the cost is estimated.

        It may be done again where a callback or a signal interrupted it: what is booked already stays as it is.
        """
        claims = call.claims
        booked = call.booked
        if booked is None:
            booked = call.booked = {}
            if self.tracking is not None:
                self.tracking.settled(call, cost)
            known = cost.usage is not None and not cost.estimated
            if claims and known and call.upper is not None and cost.spent > call.upper:
                self._violated(call)
        if not claims:
            return
        amounts = amounts_of(call, cost)
        innermost = next((c.account for c in reversed(claims) if c.account is not None), None)
        for claim in claims:
            account = claim.account
            if account is not None and claim.first and claim.meter not in booked:
                amount = amounts.get(claim.meter, 0)
                if claim.meter in call.frozen:
                    account.saved(call, cost.spent - amount)
                elif call.left_out and claim.shadow in call.left_out:
                    account.saved(call, cost.spent)
                    booked[claim.meter] = None
                    continue
                booked[claim.meter] = account.call_settled(call, cost, amount, innermost=account is innermost)
        now = call.moment()
        if self.watching is not None:
            for claim in claims:
                self.watching(claim, now)
        self.ledger.settle(call.id, amounts, now)
        self.corrections.remember(call, amounts, booked)
        for index, claim in enumerate(claims):
            if claim.limit is not None:
                self._check(call, index, claim, amounts, now)
            if claim.account is not None and claim.first:
                claim.account.after_settlement(call)

    def _check(self, call: Call, index: int, claim: Claim, amounts: dict[Hashable, int], now: int) -> None:
        balance = self.ledger.read(claim.meter, now)
        assert claim.limit is not None
        if claim.meter in call.overdrawn and balance.settled > claim.limit:
            least = self.ledger.look(0, 0, [line(claim, 1)], now)
            call.aftermath = refusals.finished(call, claim, balance, least if isinstance(least, Refusal) else None)
        if claim.row is not None:
            claim.row.settled(call, claim, balance, now)
        if self.watched is not None:
            self.watched(call, claim, balance)
        if claim.unit is not Unit.USD:
            return
        self.gauges.watch(claim, balance)
        # What was admitted is no overrun of this call: a limit that was lowered has been counted when it was.
        admitted = call.overdrawn.get(claim.meter, call.held(index))
        over = min(balance.settled + balance.held - claim.limit, amounts.get(claim.meter, 0) - admitted)
        if over > 0 and claim.votes:
            cause = (
                "record" if call.manual is not None else "retry" if Billing.PROBABLY in call.failed else "settlement"
            )
            if claim.meter in call.overdrawn:
                cause = "finish"
            self._overran(claim, over, cause)

    def release(self, call: Call) -> None:
        """Take back whatever the call holds, without a charge."""
        if call.claims:
            self.ledger.release(call.id, call.moment())
            for claim in call.claims:
                if claim.account is not None and claim.first:
                    claim.account.call_withdrawn(call)

    def balance(self, claim: Claim) -> Balance:
        """What a meter shows now."""
        return self.ledger.read(claim.meter, self.clock())
