"""Settlement: what a call costs, by how it ended. Rules only: nothing here changes a call, a meter or a span.

For each way a call can end there are three amounts: what was certainly spent, the best estimate, and the most that it
can have cost. The rows are those of the law of the ledger; each attempt settles by its own, the call by their sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from .facts import fact
from .providers.base import Answer
from .usage import Usage

if TYPE_CHECKING:
    from .call import Call
    from .pricing import Quote

CLOSING = 0.1
"""Seconds that a closing connection takes to reach the provider, for tokens "under way" when a stream ends early.
A round trip over a continent is about 50 to 100 ms; what is generated meanwhile is billed."""

MOST_UNDER_WAY = 256
"""Tokens under way are never taken for more than one slice."""

SHORTEST = 0.02
"""Seconds that a stream is taken to have lasted at least, for its rate: one token in them is 50 tokens a second, an
ordinary speed; two chunks that came in one packet say nothing."""


class Outcome(StrEnum):
    """How a call ended."""

    COMPLETE = "complete"
    PENDING = "pending"
    REFUSED = "refused"
    CUT = "cut"
    CLOSED = "closed"
    DROPPED = "dropped"
    CANCELLED = "cancelled"
    INCOMPLETE = "incomplete"
    FAILED = "error"


class Billing(StrEnum):
    """What a failed attempt can have cost, by the provider's rules: the rows of the table of settlement."""

    NOTHING = "nothing"
    """Not sent, or refused with a complete 4xx (but 408, 409), 503 or 529: not billed."""

    PERHAPS = "perhaps"
    """500, 502, 504, 408, 409: not billed as a rule, but not surely."""

    PROBABLY = "probably"
    """A timeout, a reset, a cancellation before the first event: the provider goes on and bills."""

    @classmethod
    def of_status(cls, status: int) -> Billing:
        """The row that an HTTP status stands in."""
        if status in _PERHAPS:
            return cls.PERHAPS
        if 400 <= status < 500 or status in _NOT_BILLED:
            return cls.NOTHING
        return cls.PERHAPS if status >= 500 else cls.PROBABLY  # an error event inside an answer that began well


_NOT_BILLED = frozenset({503, 529})
_PERHAPS = frozenset({408, 409, 500, 502, 504})


@dataclass(frozen=True, slots=True)
class Failure:
    """An error that ended an attempt: its type's name (or its status), and what it can have cost. Never its text."""

    type: str
    billing: Billing
    status: int | None = None


@fact
class Cost:
    """What a call cost, in nano-dollars.

    Attributes:
        spent: the best estimate; exact if not `estimated`.
        low: what was certainly spent.
        committed: the most that it can have cost; None where nothing bounds it.
        estimated: whether `spent` is an estimate.
        usage: what was consumed: the provider's count, or the estimate of it; None where nothing was.
        priced: False where the price is unknown; the amounts are then zero and mean nothing.
        quote: the price that was used.
    """

    spent: int = 0
    low: int = 0
    committed: int | None = 0
    estimated: bool = False
    usage: Usage | None = None
    priced: bool = True
    quote: Quote | None = None


def assess(call: Call, outcome: Outcome, answer: Answer | None, failure: Failure | None) -> Cost:
    """What the call costs if it ends this way, failed attempts included. Pure: changes nothing."""
    if outcome is Outcome.REFUSED:
        return Cost()
    cost = _last_attempt(call, outcome, answer, failure)
    spent, committed = failed_before(call)
    if spent or committed != 0:
        return Cost(
            spent=cost.spent + spent,
            low=cost.low,
            committed=None if cost.committed is None or committed is None else cost.committed + committed,
            estimated=cost.estimated or spent > 0,
            usage=cost.usage,
            priced=cost.priced,
            quote=cost.quote,
        )
    return cost


def _last_attempt(call: Call, outcome: Outcome, answer: Answer | None, failure: Failure | None) -> Cost:
    if answer is not None and answer.usage is not None:
        priced = call.gate.price(call, answer.model, answer.usage)
        if priced is None:
            return _unpriced(call, answer.usage)
        quote, nano = priced
        return Cost(spent=nano, low=nano, committed=nano, usage=answer.usage, quote=quote)
    if answer is not None and answer.pending:
        return _estimate(call, call.expected, 0, _attempt_upper(call), None)
    if call.reader is not None and (call.first_chunk is not None or outcome is Outcome.COMPLETE):
        return _early(call, complete=call.reader.terminal or outcome is Outcome.COMPLETE, answer=answer)
    if answer is not None and outcome is Outcome.COMPLETE:
        return _counted_by_us(call, answer)
    if failure is not None:
        spent, committed = failed(call, failure.billing)
        return _estimate(call, spent, 0, committed, None)
    return _estimate(call, call.expected, 0, _attempt_upper(call), None)


def failed(call: Call, billing: Billing) -> tuple[int, int | None]:
    """What a failed attempt has probably cost, and the most that it can have cost (None: nothing bounds it)."""
    if billing is Billing.NOTHING:
        return 0, 0
    if billing is Billing.PERHAPS:
        return 0, _attempt_upper(call)
    return call.expected, _attempt_upper(call)


def failed_before(call: Call) -> tuple[int, int | None]:
    """The same of all attempts before the last, in nano-dollars."""
    if not call.failed:
        return 0, 0
    each = [failed(call, billing) for billing in call.failed]
    most = [committed for _, committed in each if committed is not None]
    return sum(spent for spent, _ in each), sum(most) if len(most) == len(each) else None


def _attempt_upper(call: Call) -> int | None:
    return None if call.upper is None else call.upper // max(1, call.attempts)


def _early(call: Call, *, complete: bool, answer: Answer | None) -> Cost:
    """A stream without the provider's usage: what was received, and what was under way when it ended."""
    reader = call.reader
    assert reader is not None
    known = reader.input_tokens()
    tokens_in = call.input_tokens if known is None else known
    received = call.gate.output_tokens(call, reader)
    cap = call.request.cap if call.cap is None else call.cap
    most = None if cap is None else cap * call.request.choices
    if most is not None:
        received = min(received, most)  # it is counted by us, and no provider goes beyond the cap
    under_way = 0
    if not complete and call.first_chunk is not None:
        under_way = _under_way(call, received, call.first_chunk, most)
    model = answer.model if answer is not None else None
    usage = Usage(input=tokens_in, output=received + under_way)
    priced = call.gate.price(call, model, usage)
    if priced is None:
        return _unpriced(call, usage)
    quote, nano = priced
    low = call.gate.price(call, model, Usage(input=tokens_in, output=received))
    upper = _attempt_upper(call)
    return Cost(
        spent=nano,
        low=low[1] if low is not None else nano,
        committed=None if upper is None else max(upper, nano),
        estimated=True,
        usage=usage,
        quote=quote,
    )


def _under_way(call: Call, received: int, first_chunk: float, most: int | None) -> int:
    """Output tokens that were probably generated and not read: while nobody read, and while the connection closed.

    The rate is the one that was seen. An idle reader is not taken to have missed more than such a call's usual
    output, and nothing goes beyond the cap: the caller's, or the one that was written into the request.

    Args:
        call: a stream that ended early.
        received: output tokens that were read.
        first_chunk: when the first chunk came.
        most: what the cap allows for all choices, if there is one.
    """
    rate, idle = _pace(call, received, first_chunk)
    usual = call.gate.expected_output(call)
    unread = min(int(rate * idle), max(0, usual - received))
    closing = min(int(rate * CLOSING) + 1, MOST_UNDER_WAY)
    return unread + closing if most is None else min(unread + closing, most - received)


def _pace(call: Call, received: int, first_chunk: float) -> tuple[float, float]:
    """Tokens per second of a stream, and for how many seconds nobody has read it.

    What came after the last look at the clock is taken to have come at the pace seen until then.
    """
    end = call.ended or call.now()
    if call.last_look is None:
        return received / max(end - first_chunk, SHORTEST), 0.0
    looked, units = call.last_look
    rate = max(units / 1000, 1.0) / max(looked - first_chunk, SHORTEST)
    last = looked + max(0.0, received - units / 1000) / rate
    return rate, max(0.0, end - last)


def _counted_by_us(call: Call, answer: Answer) -> Cost:
    usage = Usage(input=call.input_tokens, output=call.gate.text_tokens(call, answer.text))
    priced = call.gate.price(call, answer.model, usage)
    if priced is None:
        return _unpriced(call, usage)
    upper = _attempt_upper(call)
    return _estimate(call, priced[1], priced[1], None if upper is None else max(upper, priced[1]), usage)


def _estimate(call: Call, spent: int, low: int, committed: int | None, usage: Usage | None) -> Cost:
    if call.quote is None:
        return _unpriced(call, usage)
    return Cost(
        spent=spent,
        low=low,
        committed=committed,
        estimated=spent > 0 or usage is not None,
        usage=usage,
        quote=call.quote,
    )


def _unpriced(call: Call, usage: Usage | None) -> Cost:
    return Cost(priced=False, committed=None, usage=usage, estimated=call.answer is None or usage is None)
