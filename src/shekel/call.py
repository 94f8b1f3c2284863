"""Call: the life of one billable call, from admission to settlement. No I/O, no clocks of its own, no SDK types.

Theory of operation. A door makes a `Call` from the facts of a request; the gate admits it; the door sends; chunks or
an answer come back; whoever sees the end first finishes it:

    NEW ──admitted──→ OPEN ──any end──→ ENDED
     └───refused────→ ENDED

There are many ends (exhausted, closed, dropped, an error, a cut, a cancelled task, the interpreter's exit), in any
thread, and some come twice or at once. `finish` is therefore taken by exactly one of them: the token in `_open` can be
popped once. A finaliser may not finish a call itself (see `late`); it hands it over.

What an end costs is decided elsewhere, by the table of settlement.
"""

from __future__ import annotations

import itertools
import math
import secrets
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from . import faults, late
from .estimation import Text
from .ledgers.base import Balance, Line
from .providers.base import Answer, Api, Request, StreamReader
from .settlement import Billing, Cost, Failure, Outcome, assess, failed_before
from .streamed import Streamed
from .usage import Usage

if TYPE_CHECKING:
    from .budgets.books import Booked
    from .budgets.claims import Claim
    from .budgets.errors import BudgetExceededError
    from .budgets.holds import Need
    from .ledgers.base import Refusal
    from .pricing import Quote
    from .receipts import Receipt

_NONE: frozenset[Hashable] = frozenset()


@dataclass(frozen=True, slots=True)
class Manual:
    """What a program says of spending that no door sees.

    Attributes:
        description: in its own words.
        metadata: facts of its own.
        tool_calls: how often which tool ran.
        cost_explicit: whether it gave the cost.
    """

    description: str | None
    metadata: Mapping[str, Any]
    tool_calls: Mapping[str, int]
    cost_explicit: bool


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


_run = secrets.token_hex(6)
_numbers = itertools.count(1)
open_calls: dict[str, Call] = {}
"""Calls that were admitted and have not ended, by id; finished at exit."""


def forked() -> None:
    """In a child process: what the parent has open is the parent's, and no id may come twice."""
    global _run
    _run = secrets.token_hex(6)
    open_calls.clear()


class Call(Streamed):
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
        "_came_with",
        "_end",
        "_open",
        "adopted",
        "aftermath",
        "all_claims",
        "allowances",
        "answer",
        "asked",
        "attempts",
        "body",
        "booked",
        "cap",
        "claims",
        "cost",
        "decided",
        "ended",
        "endpoint",
        "expected",
        "failed",
        "failure",
        "fallback_from",
        "fallback_of",
        "frozen",
        "gate",
        "granted",
        "held_lines",
        "host",
        "id",
        "input_tokens",
        "inside",
        "instead_of",
        "leaves_open",
        "leaves_refused",
        "left_out",
        "need",
        "now",
        "outcome",
        "overdrawn",
        "override",
        "port",
        "provider",
        "quote",
        "receipt",
        "refusal",
        "refused",
        "refused_claim",
        "request",
        "scope",
        "short",
        "span",
        "started",
        "started_wall",
        "teller",
        "told",
        "traced",
        "tries",
        "upper",
        "wall",
    )

    manual: Manual | None = None
    """What a program said of spending that no door saw; see `shekel.record`."""

    def __init__(
        self,
        endpoint: Api,
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
        super().__init__()
        self.id = f"{_run}-{next(_numbers)}"
        self.endpoint = endpoint
        self.request = request
        self.provider = provider or endpoint.provider
        self.host = host
        self.port = port
        self.attempts = attempts
        self._came_with = (request, body)
        self.body = body
        """The request's body, until it is sent: a fallback reads it again. It is dropped then."""
        self.gate = gate
        self.teller = teller
        self.now = now
        self.started = now()
        self.wall = wall
        self.started_wall = wall()
        self.ended: float | None = None
        self._end: int | None = None

        self.decided = False
        self.refusal: BudgetExceededError | ValueError | None = None
        self.refused: Refusal | None = None
        self.refused_claim: Claim | None = None
        """Why it was refused, where a meter did: who waits or asks for more looks here."""
        self.all_claims: tuple[Claim, ...] = ()
        """Also the meters of other models, which a fallback may turn to."""
        self.claims: tuple[Claim, ...] = ()
        self.held_lines: list[Line] | None = None
        self.asked: tuple[Any, ...] | None = None
        """What `held_lines` follow from, where a slice was taken."""
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
        self.fallback_of: Claim | None = None
        """The claim whose chain has the fallback."""
        self.allowances: tuple[Any, ...] = ()
        """What was granted beyond a limit so that this call fits."""
        self.left_out: frozenset[Hashable] = _NONE
        """Shadow budgets that would have refused the call, or cut its stream."""
        self.frozen: dict[Hashable, int] = {}
        """What each meter of a shadow that would have cut the stream, or capped it lower, is charged at most."""
        self.short: dict[Hashable, int] = {}
        """Shadow budgets that hold for fewer output tokens than the call may generate, and for how many."""
        self.overdrawn: dict[Hashable, int] = {}
        """Meters that are used up, whose budgets let an open stream end, and what the call held there by then."""
        self.aftermath: BudgetExceededError | None = None
        """Raised after the last chunk of a stream that was let end."""
        self.receipt: Receipt | None = None

        self.answer: Answer | None = None
        self.failure: Failure | None = None
        self.tries = 1
        self.failed: tuple[Billing, ...] = ()
        """What the attempts can have cost that failed before the last one."""
        self.outcome: Outcome | None = None
        self.cost: Cost | None = None
        self.booked: dict[Hashable, Booked | None] | None = None
        """What the books of each budget have of it, from the start of its settlement on."""
        self.scope: Mapping[str, str] = {}
        """Who pays: the entries of the scope that the call was made in."""
        self.inside: Mapping[str, str] = {}
        """The agent, tool and workflow that the call was made in, by the attributes that name them, where known."""
        self.span: Any = None
        self.adopted = False
        self.leaves_open = False
        """Whether whoever started the adopted span never ends it where a stream is left early, or a task cancelled."""
        self.leaves_refused = False
        """Whether that is so of every end but a complete one."""
        self.told = True
        """False where the context asked instrumentations to be silent."""
        self.traced = False
        """Whether a span of another instrumentation stands for the call: its tokens and its time are told there."""
        self.instead_of: str | None = None
        """The id of a call whose hold this one takes over."""
        self._open = [True]

    @property
    def model(self) -> str:
        """The model that is asked for (the fallback, where one took over)."""
        return self.request.model

    def balance(self, claim: Claim) -> Balance | None:
        """What a meter of this call shows now."""
        return self.gate.balance(claim)

    def moment(self) -> int:
        """The time now, or that of its end, in microseconds since the epoch.

        It is the clock on the wall, which stands where others look, also after the machine has slept. Where that was
        set back, it is the time of the start and what has passed since.
        """
        if self._end is not None:
            return self._end
        return int(max(self.wall(), self.started_wall + (self.now() - self.started)) * 1_000_000)

    def undecided(self) -> None:
        """The call was refused, holds nothing, and may ask again: for the model that it came for."""
        self.decided = False
        self.refusal = self.refused = self.refused_claim = None
        if self.fallback_from is not None:
            self.request, self.body = self._came_with
            self.fallback_from = self.fallback_of = None
            self.quote = None

    def waited(self) -> None:
        """The call stood in a queue, or somebody was asked: that is no part of how long it takes."""
        self.started = self.now()
        self.started_wall = self.wall()

    @property
    def is_open(self) -> bool:
        return bool(self._open)

    def held(self, index: int) -> int:
        """What the call holds on its meter of that number, in nano-dollars."""
        if self.held_lines is None:
            return 0
        line = self.held_lines[index]
        tokens = self.granted or 0
        return line.base + (self.short.get(line.shadow, tokens) if self.short else tokens) * line.rate

    def exposed(self, index: int) -> float:
        """By how much the call can cost more than it holds there, in nano-dollars; `inf` where nothing bounds it."""
        if self._is_left_out(index):
            return 0
        if self.upper is None:
            return math.inf
        forced = failed_before(self)[0] if self.failed else 0  # the hold was extended by it before the retry
        return max(0, self.upper - self.held(index) - forced)

    def _is_left_out(self, index: int) -> bool:
        """Whether that meter is of a shadow that would have refused the call, or cut it by now."""
        return bool(self.left_out) and self.claims[index].shadow in self.left_out

    def running_on(self, index: int) -> int:
        """What an open stream has cost so far on its meter of that number, which is in nano-dollars."""
        running = self.running()
        if not self.left_out and not self.frozen:
            return running
        return min(running, self.frozen.get(self.claims[index].meter, 0 if self._is_left_out(index) else running))

    # Before the answer

    def opened(self) -> None:
        """The call was admitted and is about to be sent."""
        open_calls[self.id] = self

    def attempt_failed(self, failure: Failure) -> None:
        """An attempt failed and another follows: it settles by its own row, beside the one that follows."""
        self.tries += 1
        self.failed += (failure.billing,)

    # The end

    def finish(self, outcome: Outcome, *, answer: Answer | None = None, failure: Failure | None = None) -> bool:
        """End the call, once. Settles, releases what is left of the hold, and tells. Returns whether it was this end.

        Never raises and takes no lock across callbacks; not to be called from a finaliser.
        """
        try:
            self._open.pop()
        except IndexError:
            return False
        self._end = self.moment()
        self.ended = self.now()
        open_calls.pop(self.id, None)
        if answer is None and self.reader is not None:
            answer = self.reader.answer()
        self.answer = answer
        self.failure = failure
        if outcome is Outcome.COMPLETE and answer is not None and answer.pending:
            outcome = Outcome.PENDING
        self.outcome = outcome
        try:
            cost = assess(self, outcome, answer, failure)
        except Exception as error:
            faults.report("worked out a cost", error)
            cost = Cost(spent=self.expected, committed=self.upper, estimated=True, quote=self.quote)
        self.cost = cost
        try:
            if outcome is Outcome.REFUSED:
                self.gate.release(self)
            else:
                self._settle(cost)
                if answer is not None and answer.usage is not None and self.manual is None:
                    self.gate.learn(self, answer)
        except Exception as error:
            faults.report("settled a call", error)
        finally:
            if self.receipt is not None:
                self.receipt.close(self, cost)
            late.tell(partial(self.teller.finished, self, cost))
        return True

    def withdraw(self) -> bool:
        """Another call stands for this one: end it without a charge, and tell nothing.

        What it holds goes with the admission of the other (`instead_of`). Returns whether it was still open.
        """
        try:
            self._open.pop()
        except IndexError:
            return False
        open_calls.pop(self.id, None)
        for claim in self.claims:
            if claim.account is not None and claim.first:
                claim.account.call_withdrawn(self)
        return True

    def _settle(self, cost: Cost) -> None:
        try:
            self.gate.settle(self, cost)
        except BaseException:  # a signal's handler may raise anywhere; settling twice changes nothing
            late.put(lambda: self.gate.settle(self, cost))
            raise
