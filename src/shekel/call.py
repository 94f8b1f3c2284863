"""Call: the life of one billable call, from admission to settlement. No I/O, no clocks of its own, no SDK types.

Theory of operation. A door makes a `Call` from the facts of a request; the gate admits it; the door sends; chunks or
an answer come back; whoever sees the end first finishes it:

    NEW ──admitted──→ OPEN ──any end──→ ENDED
     └───refused────→ ENDED

There are many ends (exhausted, closed, dropped, an error, a cut, a cancelled task, the interpreter's exit), in any
thread, and some come twice or at once. `finish` is therefore taken by exactly one of them: the token in `_open` can be
popped once. A finaliser may not finish a call itself (see `late`); it hands it over.

What an end costs is decided in one place, `assess`, by the table of settlement: for each way a call can end, three
amounts: what was certainly spent, the best estimate, and the most that it can have cost.
"""

from __future__ import annotations

import itertools
import math
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from . import late
from .estimation import Text
from .ledgers.base import Balance, Line
from .providers.base import Answer, Endpoint, Request, StreamReader
from .usage import Usage

if TYPE_CHECKING:
    from .budgets.claims import Claim
    from .budgets.errors import BudgetExceededError
    from .budgets.holds import Need
    from .pricing import Quote

CLOSING = 0.1
"""Seconds that a closing connection takes to reach the provider, for tokens "under way" when a stream ends early.
A round trip over a continent is about 50 to 100 ms; what is generated meanwhile is billed."""

MOST_UNDER_WAY = 256
"""Tokens under way are never taken for more than one slice."""

SHORTEST = 0.02
"""Seconds that a stream is taken to have lasted at least, for its rate: one token in them is 50 tokens a second, an
ordinary speed; two chunks that came in one packet say nothing."""

NO_LIMIT = 1 << 62
"""A reader's limit that is never reached."""


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


@dataclass(frozen=True, slots=True)
class Failure:
    """An error that ended an attempt: its type's name (or its status), and what it can have cost. Never its text."""

    type: str
    billing: Billing
    status: int | None = None


@dataclass(frozen=True, slots=True)
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


class Gate(Protocol):
    """What a call needs of the gate."""

    def extend(self, call: Call, tokens: int) -> bool: ...
    def settle(self, call: Call, cost: Cost) -> None: ...
    def release(self, call: Call) -> None: ...
    def price(self, call: Call, model: str | None, usage: Usage) -> tuple[Quote, int] | None: ...
    def output_tokens(self, call: Call, reader: StreamReader) -> int: ...
    def expected_output(self, call: Call) -> int: ...
    def text_tokens(self, call: Call, text: Text) -> int: ...
    def learn(self, call: Call, answer: Answer) -> None: ...
    def balance(self, claim: Claim) -> Balance: ...


class Teller(Protocol):
    """What a call tells: spans and metrics. It is told and never asks."""

    def finished(self, call: Call, cost: Cost) -> None: ...
    def event(self, call: Call, name: str, attributes: Mapping[str, Any]) -> None: ...


_RUN = secrets.token_hex(6)
_numbers = itertools.count(1)
open_calls: dict[str, Call] = {}
"""Calls that were admitted and have not ended, by id; finished at exit."""


class Call:
    """One billable call. Made by a door, admitted and settled through its gate, told through its teller.

    Args:
        endpoint: the API that is called.
        request: the facts of the request.
        gate: who admits, extends and settles.
        teller: who is told.
        now: a monotonic clock in seconds.
        wall: a wall clock in Unix seconds, which decides windows and dated prices.
        host: the server's name, without port.
        port: the server's port; None for the scheme's own.
        attempts: how many attempts the SDK may make (1 + max_retries).
    """

    __slots__ = (
        "__weakref__",
        "_open",
        "adopted",
        "answer",
        "attempts",
        "body",
        "cap",
        "claims",
        "cost",
        "cut",
        "decided",
        "ended",
        "endpoint",
        "expected",
        "failed_committed",
        "failed_spent",
        "failure",
        "fallback_from",
        "first_chunk",
        "gate",
        "granted",
        "held_lines",
        "host",
        "id",
        "input_tokens",
        "last_chunk",
        "need",
        "now",
        "outcome",
        "override",
        "port",
        "provider",
        "quote",
        "reader",
        "refusal",
        "request",
        "span",
        "span_context",
        "started",
        "started_wall",
        "teller",
        "told",
        "tries",
        "upper",
    )

    def __init__(
        self,
        endpoint: Endpoint,
        request: Request,
        *,
        gate: Gate,
        teller: Teller,
        now: Callable[[], float],
        wall: Callable[[], float],
        provider: str | None = None,
        host: str | None = None,
        port: int | None = None,
        attempts: int = 1,
        body: Mapping[str, Any] | None = None,
    ) -> None:
        self.id = f"{_RUN}-{next(_numbers)}"
        self.endpoint = endpoint
        self.request = request
        self.provider = provider or endpoint.provider
        self.host = host
        self.port = port
        self.attempts = attempts
        self.body = body
        """The request's body, until it is sent: a fallback reads it again. It is dropped then."""
        self.gate = gate
        self.teller = teller
        self.now = now
        self.started = now()
        self.started_wall = wall()
        self.first_chunk: float | None = None
        self.last_chunk = 0.0
        self.ended: float | None = None

        self.decided = False
        self.refusal: BudgetExceededError | ValueError | None = None
        self.claims: tuple[Claim, ...] = ()
        self.held_lines: list[Line] | None = None
        self.need: Need | None = None
        """What the gate worked out that the call needs, under its quote."""
        self.quote: Quote | None = None
        self.override: Quote | None = None
        self.input_tokens = 0
        """Estimated input tokens of the admission."""
        self.expected = 0
        """Expected cost in nano-dollars."""
        self.upper: int | None = None
        """The most that the call can cost, all attempts included, in nano-dollars; None if unbounded."""
        self.granted: int | None = None
        """Output tokens that the hold pays for; None where it is not counted in tokens."""
        self.cap: int | None = None
        """The output cap per choice that strict admission wrote, if it did."""
        self.fallback_from: str | None = None

        self.reader: StreamReader | None = None
        self.answer: Answer | None = None
        self.failure: Failure | None = None
        self.tries = 1
        self.failed_spent = 0
        self.failed_committed: int | None = 0
        self.cut: BudgetExceededError | None = None
        self.outcome: Outcome | None = None
        self.cost: Cost | None = None
        self.span: Any = None
        self.span_context: Any = None
        self.adopted = False
        self.told = True
        """False where the context asked instrumentations to be silent."""
        self._open = [True]

    @property
    def model(self) -> str:
        """The model that is asked for (the fallback, where one took over)."""
        return self.request.model

    def balance(self, claim: Claim) -> Balance | None:
        """What a meter of this call shows now."""
        return self.gate.balance(claim)

    @property
    def is_open(self) -> bool:
        return bool(self._open)

    def held(self, index: int) -> int:
        """What the call holds on its meter of that number, in nano-dollars."""
        if self.held_lines is None:
            return 0
        line = self.held_lines[index]
        return line.base + (self.granted or 0) * line.rate

    def exposed(self, index: int) -> float:
        """By how much the call can cost more than it holds there, in nano-dollars; `inf` where nothing bounds it."""
        return math.inf if self.upper is None else max(0, self.upper - self.held(index))

    # Before the answer

    def opened(self) -> None:
        """The call was admitted and is about to be sent."""
        open_calls[self.id] = self

    def attempt_failed(self, failure: Failure) -> None:
        """An attempt failed and another follows: it settles by its own row, beside the one that follows."""
        self.tries += 1
        spent, committed = self._failed(failure.billing)
        self.failed_spent += spent
        if self.failed_committed is not None:
            self.failed_committed = None if committed is None else self.failed_committed + committed

    # The stream

    def streaming(self, reader: StreamReader) -> None:
        """The answer is a stream that `reader` reads."""
        self.reader = reader
        reader.limit = self._reader_limit()

    def more(self) -> bool:
        """The reader went over its limit: hold more, or say that there is no more (False: the stream is to be cut)."""
        reader = self.reader
        if reader is None or self.granted is None:
            return True
        used = -(-reader.units // 1000)
        if self.gate.extend(self, used):
            reader.limit = self._reader_limit()
            return True
        if reader.units <= self.granted * 1000:
            reader.limit = self.granted * 1000  # what is held is paid for: let it be used up
            return True
        return False

    def _reader_limit(self) -> int:
        """Units at which more is asked for: a quarter of a slice before the held output is used up."""
        if self.granted is None or (self.need is not None and self.need.is_whole(self.granted)):
            return NO_LIMIT
        return max(self.granted * 1000 - 64_000, self.granted * 750)

    def running(self) -> int:
        """The estimated cost so far of an open stream, in nano-dollars."""
        reader, quote = self.reader, self.quote
        if reader is None or quote is None or self.first_chunk is None:
            return 0
        known = reader.input_tokens()
        tokens = self.input_tokens if known is None else known
        return tokens * quote.input_rate + reader.units * quote.output_rate // 1000

    # The end

    def finish(
        self,
        outcome: Outcome,
        *,
        answer: Answer | None = None,
        failure: Failure | None = None,
    ) -> bool:
        """End the call, once. Settles, releases what is left of the hold, and tells. Returns whether it was this end.

        Never raises and takes no lock across callbacks; not to be called from a finaliser.
        """
        try:
            self._open.pop()
        except IndexError:
            return False
        self.ended = self.now()
        open_calls.pop(self.id, None)
        if answer is None and self.reader is not None:
            answer = self.reader.answer()
        self.answer = answer
        self.failure = failure
        if outcome is Outcome.COMPLETE and answer is not None and answer.pending:
            outcome = Outcome.PENDING
        self.outcome = outcome
        cost = self.cost = self.assess(outcome, answer, failure)
        try:
            if outcome is Outcome.REFUSED:
                self.gate.release(self)
            else:
                self._settle(cost)
                if answer is not None and answer.usage is not None:
                    self.gate.learn(self, answer)
        finally:
            self.teller.finished(self, cost)
        return True

    def _settle(self, cost: Cost) -> None:
        try:
            self.gate.settle(self, cost)
        except BaseException:  # a signal's handler may raise anywhere; settling twice by one id changes nothing
            late.put(lambda: self.gate.settle(self, cost))
            raise

    def assess(self, outcome: Outcome, answer: Answer | None, failure: Failure | None) -> Cost:
        """What the call costs if it ends this way, failed attempts included. Pure: changes nothing."""
        if outcome is Outcome.REFUSED:
            return Cost()
        cost = self._assess_last(outcome, answer, failure)
        if self.failed_spent or self.failed_committed != 0:
            committed = (
                None
                if cost.committed is None or self.failed_committed is None
                else cost.committed + self.failed_committed
            )
            return Cost(
                spent=cost.spent + self.failed_spent,
                low=cost.low,
                committed=committed,
                estimated=cost.estimated or self.failed_spent > 0,
                usage=cost.usage,
                priced=cost.priced,
                quote=cost.quote,
            )
        return cost

    def _assess_last(self, outcome: Outcome, answer: Answer | None, failure: Failure | None) -> Cost:
        if answer is not None and answer.usage is not None:
            priced = self.gate.price(self, answer.model, answer.usage)
            if priced is None:
                return self._unpriced(answer.usage)
            quote, nano = priced
            return Cost(spent=nano, low=nano, committed=nano, usage=answer.usage, quote=quote)
        if self.reader is not None and (self.first_chunk is not None or outcome is Outcome.COMPLETE):
            return self._early(complete=self.reader.terminal or outcome is Outcome.COMPLETE, answer=answer)
        if answer is not None and not answer.pending and outcome is Outcome.COMPLETE:
            return self._counted_by_us(answer)
        if failure is not None:
            spent, committed = self._failed(failure.billing)
            return self._estimate(spent, 0, committed, None)
        return self._estimate(self.expected, 0, self._attempt_upper(), None)

    def _failed(self, billing: Billing) -> tuple[int, int | None]:
        if billing is Billing.NOTHING:
            return 0, 0
        if billing is Billing.PERHAPS:
            return 0, self._attempt_upper()
        return self.expected, self._attempt_upper()

    def _attempt_upper(self) -> int | None:
        return None if self.upper is None else self.upper // max(1, self.attempts)

    def _early(self, *, complete: bool, answer: Answer | None) -> Cost:
        """A stream without the provider's usage: what was received, and what was under way when it ended."""
        reader = self.reader
        assert reader is not None
        known = reader.input_tokens()
        tokens_in = self.input_tokens if known is None else known
        received = self.gate.output_tokens(self, reader)
        under_way = 0
        if not complete and self.first_chunk is not None:
            under_way = self._under_way(received, self.first_chunk)
        model = answer.model if answer is not None else None
        usage = Usage(input=tokens_in, output=received + under_way)
        priced = self.gate.price(self, model, usage)
        if priced is None:
            return self._unpriced(usage)
        quote, nano = priced
        low = self.gate.price(self, model, Usage(input=tokens_in, output=received))
        upper = self._attempt_upper()
        return Cost(
            spent=nano,
            low=low[1] if low is not None else nano,
            committed=None if upper is None else max(upper, nano),
            estimated=True,
            usage=usage,
            quote=quote,
        )

    def _under_way(self, received: int, first_chunk: float) -> int:
        """Output tokens that were probably generated and not read: while nobody read, and while the connection closed.

        The rate is the one that was seen. An idle reader is not taken to have missed more than such a call's usual
        output, and nothing goes beyond the cap.
        """
        rate = received / max(self.last_chunk - first_chunk, SHORTEST)
        idle = max(0.0, (self.ended or self.now()) - self.last_chunk)
        usual = self.gate.expected_output(self)
        unread = min(int(rate * idle), max(0, usual - received))
        closing = min(int(rate * CLOSING) + 1, MOST_UNDER_WAY)
        if self.request.cap is None:
            return unread + closing
        return max(0, min(unread + closing, self.request.cap * self.request.choices - received))

    def _counted_by_us(self, answer: Answer) -> Cost:
        usage = Usage(input=self.input_tokens, output=self.gate.text_tokens(self, answer.text))
        priced = self.gate.price(self, answer.model, usage)
        if priced is None:
            return self._unpriced(usage)
        upper = self._attempt_upper()
        return self._estimate(priced[1], priced[1], None if upper is None else max(upper, priced[1]), usage)

    def _estimate(self, spent: int, low: int, committed: int | None, usage: Usage | None) -> Cost:
        if self.quote is None:
            return self._unpriced(usage)
        return Cost(
            spent=spent,
            low=low,
            committed=committed,
            estimated=spent > 0 or usage is not None,
            usage=usage,
            quote=self.quote,
        )

    def _unpriced(self, usage: Usage | None) -> Cost:
        return Cost(priced=False, committed=None, usage=usage, estimated=self.answer is None or usage is None)
