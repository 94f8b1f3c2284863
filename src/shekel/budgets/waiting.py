"""Waiting for room, and asking for more: what a call does before it is refused, where its budget says so.

A call that waits holds nothing, and stands in the queue of the budget that had no room (see `queues`). What happens
is worked out once, by a generator that says what to wait for (`patiently`); the sync and the async door only do the
waiting. Nothing here waits inside a span processor.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Generator, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Protocol

from opentelemetry.context import Context

from .. import context, faults
from . import refusals
from .around import around
from .asking import Exceeded, Questions, allowance_of
from .bells import ThreadBell, async_bell
from .claims import AtLimit, Claim
from .queues import Ticket

if TYPE_CHECKING:
    from ..call import Call
    from .budget import Budget

LEAST_WAIT = 0.01
"""Seconds that a waiting call sleeps at least: clocks of windows and of threads differ by milliseconds."""


LOOK_AGAIN = 0.5
"""Seconds after which a call looks again at a meter that does not tell when it will have room."""


_asking: ContextVar[frozenset[int]] = ContextVar("shekel-asking", default=frozenset())
"""Budgets whose `on_exceed` runs: a call that it makes itself is refused without asking it again, and does not wait:
the call that asks may stand before it in the queue, and waits for the answer."""


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
    def find(self, call: Call, context: Context) -> None: ...


def patiently(
    gate: Gate, call: Call, here: Context, budgets: list[Budget], wake: Callable[[], bool]
) -> Generator[Wait | Ask, Any, None]:
    """Admit a call, waiting and asking as its budgets say. Afterwards it holds, or its refusal is for good.

    Args:
        gate: admits.
        call: not decided yet.
        here: its context.
        budgets: the budgets of the context that wait or ask, outermost first.
        wake: ends a `Wait`, see `Ticket`.
    """
    questions = Questions()
    ticket: Ticket | None = None
    deadline: float | None = None
    asking = _asking.get()
    try:
        for budget in budgets:
            if len(budget.queue) and _queues(budget, here):
                gate.find(call, here)
                call.undecided()
                deadline = time.monotonic() + budget.max_wait
                ticket = budget.queue.join(wake, deadline, _counts(call, budget))
                break
        while True:
            if ticket is not None and deadline is not None:
                queue, now = ticket.queue, time.monotonic()
                while (ahead := queue.ahead(ticket, now)) and not _stopped(here) and (left := deadline - now) > 0:
                    yield Wait(min(left, max(LEAST_WAIT, ahead.overdue - now)))
                    now = time.monotonic()
            gate.admit(call, here)
            claim, refusal = call.refused_claim, call.refused
            if call.refusal is None or claim is None or refusal is None:
                return
            found = next((each for each in budgets if each is claim.account), None)
            if found is None:
                return
            if id(found) in asking:
                return
            if found.on_exceed is not None and questions.may(claim, call):
                question = questions.asked(claim, call, found)
                allowance = allowance_of((yield Ask(found.on_exceed, question)), question)
                if allowance is not None:
                    questions.granted(claim, question, allowance)
                    call.allowances += found.allow(claim, allowance, call.moment() / 1_000_000)
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
                call.undecided()
                ticket = found.queue.join(wake, deadline, _counts(call, found))
                continue  # room that came between the refusal and the queue woke nobody
            left = deadline - now
            if left <= 0:
                call.refusal = refusals.waited(call.refusal, found.max_wait)
                return
            frees = claim.resets_at if refusal.frees_at is None else refusal.frees_at / 1_000_000
            if frees is not None:
                left = min(left, max(LEAST_WAIT, frees - call.moment() / 1_000_000))
            elif claim.window > 0:  # it starts anew when nothing happens for so long, and says nothing then
                left = min(left, LOOK_AGAIN)
            call.undecided()
            ticket.queue.lacking(ticket, _limit(claim))
            yield Wait(left)
    finally:
        if ticket is not None:
            ticket.queue.leave(ticket)


def stands_behind(call: Call, budget: Budget, here: Context) -> bool:
    """Whether a call that came now would stand behind others, also where it fits. Its meters are known."""
    return len(budget.queue) > 0 and _queues(budget, here) and budget.queue.keeps(_counts(call, budget))


def _queues(budget: Budget, here: Context) -> bool:
    """Whether calls of a context stand in the queue of a budget: nobody there waits for what a last call may spend."""
    return budget.at_limit is AtLimit.PAUSE and id(budget) not in _asking.get() | context.last_calls(here)


def _limit(claim: Claim) -> Hashable | None:
    """What a limit is called in the queue of its budget; None for one that all calls count to."""
    return None if claim.model is None and claim.part is None else (claim.number, claim.part)


def _counts(call: Call, budget: Budget) -> frozenset[Hashable]:
    """The other limits of a budget that a call counts to."""
    own = (each for each in call.all_claims if each.account is budget and each.counts(call.model))
    return frozenset(limit for each in own if (limit := _limit(each)) is not None)


def _stopped(here: Context) -> bool:
    """Whether the call is refused whatever room there is: then it does not wait for its turn."""
    return any(budget.stopped for budget in around(here))


def wait_sync(gate: Gate, call: Call, here: Context, budgets: list[Budget]) -> None:
    """`patiently` for a thread: it sleeps, and what it asks must answer at once."""
    bell = ThreadBell()
    steps = patiently(gate, call, here, budgets, bell.ring)
    answer: Any = None
    try:
        while True:
            try:
                step = steps.send(answer)
            except StopIteration:
                return
            answer = None
            if isinstance(step, Wait):
                bell.wait(step.seconds)
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
    bell = async_bell()
    steps = patiently(gate, call, here, budgets, bell.ring)
    answer: Any = None
    try:
        while True:
            try:
                step = steps.send(answer)
            except StopIteration:
                return
            answer = None
            if isinstance(step, Wait):
                await bell.wait(step.seconds)
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
