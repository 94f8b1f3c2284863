"""Waiting for room, and asking for more: what a call does before it is refused, where its budget says so.

A call that waits holds nothing. Each budget has one queue, first in, first out: who comes while others wait stands
behind them, also where it would fit. What happens is worked out once, by a generator that says what to wait for
(`patiently`); the sync and the async door only do the waiting. Nothing here waits inside a span processor.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Protocol

from opentelemetry.context import Context

from .. import faults, locks
from . import refusals
from .claims import AtLimit
from .limits import NANO, Unit, money

if TYPE_CHECKING:
    from ..call import Call
    from .budget import Budget

LEAST_WAIT = 0.01
"""Seconds that a waiting call sleeps at least: clocks of windows and of threads differ by milliseconds."""


LOOK_AGAIN = 0.5
"""Seconds after which a call looks again at a meter that does not tell when it will have room."""


_asking: ContextVar[frozenset[int]] = ContextVar("shekel-asking", default=frozenset())
"""Budgets whose `on_exceed` runs: a call that it makes itself is refused without asking it again."""


class Ticket:
    """A place in a queue. `wake` may be called from any thread, any number of times."""

    __slots__ = ("queue", "wake")

    def __init__(self, queue: Queue, wake: Callable[[], None]) -> None:
        self.queue = queue
        self.wake = wake


class Queue:
    """Those who wait for room on one budget."""

    def __init__(self) -> None:
        self._tickets: deque[Ticket] = deque()

    def __len__(self) -> int:
        return len(self._tickets)

    def join(self, wake: Callable[[], None]) -> Ticket:
        """Stand at the end."""
        ticket = Ticket(self, wake)
        with locks.books:
            self._tickets.append(ticket)
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Go, with room or without; the next one may try."""
        with locks.books:
            if ticket in self._tickets:
                self._tickets.remove(ticket)
        self.freed()

    def first(self, ticket: Ticket) -> bool:
        """Whether it is this one's turn."""
        with locks.books:
            return bool(self._tickets) and self._tickets[0] is ticket

    def freed(self) -> None:
        """There may be room: wake whose turn it is."""
        with locks.books:
            head = self._tickets[0] if self._tickets else None
        if head is not None:
            head.wake()


@dataclass(frozen=True, slots=True)
class Exceeded:
    """The question that `on_exceed` gets: a call does not fit.

    Amounts are in USD where `unit` is "usd", else counts.

    Attributes:
        budget: the budget.
        unit: what the limit counts: "usd", "calls", "input_tokens", "output_tokens", "tokens".
        limit: the limit, with what was granted so far.
        spent: what is settled.
        held: what open calls hold.
        needed: what the call would hold.
        lacking: by how much it does not fit.
        model: the model that is asked for.
        scope: the scope that the budget limits, if any.
    """

    budget: Budget
    unit: str
    limit: float
    spent: float
    held: float
    needed: float
    lacking: float
    model: str
    scope: str | None = None


@dataclass(frozen=True, slots=True)
class Allowance:
    """An amount granted beyond a limit, for the present window; `on_exceed` returns it.

    Attributes:
        amount: USD for a limit in USD, else a count; above 0.
        by: who granted it.
        why: the reason.
        at: Unix time in seconds; set when it is recorded.
    """

    amount: float
    by: str = ""
    why: str = ""
    at: float | None = None


class Wait:
    """Wait for `wake`, at most so many seconds."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


class Ask:
    """Ask the program."""

    __slots__ = ("function", "question")

    def __init__(self, function: Callable[[Exceeded], Any], question: Exceeded) -> None:
        self.function = function
        self.question = question


class Gate(Protocol):
    """What waiting needs of the gate."""

    def admit(self, call: Call, context: Context) -> None: ...


def patiently(
    gate: Gate, call: Call, here: Context, budgets: list[Budget], wake: Callable[[], None]
) -> Generator[Wait | Ask, Any, None]:
    """Admit a call, waiting and asking as its budgets say. Afterwards it holds, or its refusal is for good.

    Args:
        gate: admits.
        call: not decided yet.
        here: its context.
        budgets: the budgets of the context that wait or ask, outermost first.
        wake: ends a `Wait` from any thread.
    """
    asked: set[int] = set()
    ticket: Ticket | None = None
    deadline: float | None = None
    try:
        for budget in budgets:
            if budget.at_limit is AtLimit.PAUSE and len(budget.queue):
                ticket, deadline = budget.queue.join(wake), time.monotonic() + budget.max_wait
                break
        while True:
            if ticket is not None and deadline is not None:
                while not ticket.queue.first(ticket) and (left := deadline - time.monotonic()) > 0:
                    yield Wait(left)
            gate.admit(call, here)
            claim, refusal = call.refused_claim, call.refused
            if call.refusal is None or claim is None or refusal is None:
                return
            found = next((each for each in budgets if each is claim.account), None)
            if found is None:
                return
            if found.on_exceed is not None and id(found) not in asked | _asking.get():
                asked.add(id(found))
                scale = NANO if claim.unit is Unit.USD else 1
                balance, limit = refusal.balance, claim.limit or 0
                lacking = balance.settled + balance.held + refusal.asked - limit
                question = Exceeded(
                    found, claim.unit.value, claim.whole / scale, balance.settled / scale, balance.held / scale,
                    refusal.asked / scale, lacking / scale, call.model, claim.scope,
                )  # fmt: skip
                allowance = _allowance((yield Ask(found.on_exceed, question)), question)
                if allowance is not None:
                    call.allowances += found.allow(claim, allowance)
                    call.undecided()
                    continue
            if claim.at_limit is not AtLimit.PAUSE:
                return
            now = time.monotonic()
            if deadline is None:
                deadline = now + found.max_wait
            if ticket is None or ticket.queue is not found.queue:
                if ticket is not None:
                    ticket.queue.leave(ticket)
                ticket = found.queue.join(wake)
                call.undecided()
                continue  # room that came between the refusal and the queue woke nobody
            left = deadline - now
            if left <= 0:
                call.refusal = refusals.waited(call.refusal, found.max_wait)
                return
            frees = claim.resets_at if refusal.frees_at is None else refusal.frees_at / 1_000_000
            if frees is not None:
                left = min(left, max(LEAST_WAIT, frees - call.wall()))
            elif claim.window > 0:  # it starts anew when nothing happens for so long, and says nothing then
                left = min(left, LOOK_AGAIN)
            call.undecided()
            yield Wait(left)
    finally:
        if ticket is not None:
            ticket.queue.leave(ticket)


def _allowance(answer: Any, question: Exceeded) -> Allowance | None:
    """What the program granted: an Allowance, an amount, True for what is lacking; anything else is a no."""
    if answer is None or answer is False:
        return None
    if answer is True:
        return Allowance(question.lacking)
    try:
        allowance = answer if isinstance(answer, Allowance) else Allowance(answer)
        if isinstance(allowance.amount, str):
            raise TypeError("what on_exceed grants is a number, and no text")
        money(allowance.amount, "what on_exceed grants")
    except (TypeError, ValueError) as error:
        faults.report("read what on_exceed granted", error)
        return None
    return allowance


def wait_sync(gate: Gate, call: Call, here: Context, budgets: list[Budget]) -> None:
    """`patiently` for a thread: it sleeps, and what it asks must answer at once."""
    woken = threading.Event()
    steps = patiently(gate, call, here, budgets, woken.set)
    answer: Any = None
    try:
        while True:
            try:
                step = steps.send(answer)
            except StopIteration:
                return
            answer = None
            if isinstance(step, Wait):
                woken.wait(step.seconds)
                woken.clear()
            else:
                answer = _asked(step)
                if isawaitable(answer):
                    close = getattr(answer, "close", None)
                    if close is not None:
                        close()
                    answer = None
                    faults.warn_once(
                        "async on_exceed",
                        "on_exceed is async, and the call is sync: nobody can await it, so nothing was granted. "
                        "Give a plain function, or call through the async client.",
                    )
    finally:
        steps.close()


async def wait_async(gate: Gate, call: Call, here: Context, budgets: list[Budget]) -> None:
    """`patiently` for a task: it never blocks the event loop, and what it asks may be async."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # another event loop than asyncio's: there is no way to wait in it
        gate.admit(call, here)
        return
    woken = asyncio.Event()

    def wake() -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(woken.set)

    steps = patiently(gate, call, here, budgets, wake)
    answer: Any = None
    try:
        while True:
            try:
                step = steps.send(answer)
            except StopIteration:
                return
            answer = None
            if isinstance(step, Wait):
                with suppress(TimeoutError):
                    await asyncio.wait_for(woken.wait(), step.seconds)
                woken.clear()
            else:
                answer = _asked(step)
                if isawaitable(answer):
                    answer = await _awaited(step, answer)
    finally:
        steps.close()


@contextmanager
def _asked_by(step: Ask) -> Iterator[None]:
    token = _asking.set(_asking.get() | {id(step.question.budget)})
    try:
        yield
    finally:
        _asking.reset(token)


def _asked(step: Ask) -> Any:
    try:
        with _asked_by(step):
            return step.function(step.question)
    except Exception as error:
        faults.report("called on_exceed", error)
        return None


async def _awaited(step: Ask, answer: Awaitable[Any]) -> Any:
    try:
        with _asked_by(step):
            return await answer
    except Exception as error:
        faults.report("called on_exceed", error)
        return None
