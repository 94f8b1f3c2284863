"""Listeners: the program's own functions that are told of usage and limits, sync or async.

They run outside every lock, and outside the budgets and the scope of the call that they are told of; they may call
back into Shekel, and call models on their own account. A plain function runs at once, in the thread in which the
call ends. What an async one returns runs as a task of the event loop that runs there; where none does, and where that
loop ends before the task began, on a loop in a thread of ours. What a listener raises is logged once, counted in
`shekel.errors`, and goes no further. While nobody listens, a call pays one look at an empty tuple.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from types import TracebackType
from typing import Any, Self

from opentelemetry import baggage
from opentelemetry.context import Context

from .. import context, faults, late, locks
from ..budgets.thresholds import Thresholds

MOST_WAITING = 10_000
"""Async deliveries that wait in our thread at most; what comes beyond is dropped, and counted as a fault."""

DRAIN = 5.0
"""Seconds that the interpreter's exit waits for async listeners."""

USAGE, SOFT, HARD = "on_usage", "on_soft_limit", "on_hard_limit"


class Subscription:
    """A listener that is told. `cancel()` ends it; so does leaving it as a context manager.

    Attributes:
        thresholds: for soft limits, what was told of limits that have no threshold of their own.
    """

    def __init__(
        self, kind: str, callback: Callable[[Any], Any], ended: Callable[[], None], thresholds: Thresholds | None = None
    ) -> None:
        self.kind = kind
        self.callback = callback
        self.thresholds = thresholds
        self._ended = [ended]

    def cancel(self) -> None:
        """Tell no more. May be repeated."""
        with locks.books:
            _listening[self.kind] = tuple(each for each in _listening[self.kind] if each is not self)
        try:
            ended = self._ended.pop()
        except IndexError:
            return
        ended()

    __call__ = cancel

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    def tell(self, event: Any) -> None:
        """Deliver an event. Never raises what an ordinary failure raises."""
        late.let_go()
        place = f"called {self.kind}"
        token = context.attach(_outside(context.current()))
        try:
            answer = self.callback(event)
            if isawaitable(answer):
                _deliver(answer, place)
        except Exception as error:
            faults.report(place, error)
        finally:
            context.detach(token)


def _outside(here: Context) -> Context:
    """A context without the budgets, the scope and the baggage of the call that is told of."""
    return baggage.clear(Context({key: value for key, value in here.items() if key not in context.OURS}))


_listening: dict[str, tuple[Subscription, ...]] = {USAGE: (), SOFT: (), HARD: ()}


def add(subscription: Subscription) -> None:
    """Tell somebody from now on."""
    with locks.books:
        _listening[subscription.kind] = (*_listening[subscription.kind], subscription)


def of(kind: str) -> tuple[Subscription, ...]:
    """Who listens."""
    return _listening[kind]


# Async listeners

_tasks: set[asyncio.Task[None]] = set()
"""A loop keeps only weak references to its tasks."""


class _Delivery:
    """One answer of an async listener, on its way to a loop."""

    __slots__ = ("answer", "place", "started")

    def __init__(self, answer: Awaitable[Any], place: str) -> None:
        self.answer = answer
        self.place = place
        self.started = False

    async def run(self) -> None:
        self.started = True
        try:
            await self.answer
        except Exception as error:
            faults.report(self.place, error)

    def ended(self, task: asyncio.Task[None]) -> None:
        """The loop is done with the task; where it ended before the task began, ours takes over."""
        _tasks.discard(task)
        if not task.cancelled():
            return
        if self.started:
            faults.report(self.place, asyncio.CancelledError())
        else:
            _ours.take(self)


def _deliver(answer: Awaitable[Any], place: str) -> None:
    delivery = _Delivery(answer, place)
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        _ours.take(delivery)
        return
    task = loop.create_task(delivery.run())
    _tasks.add(task)
    task.add_done_callback(delivery.ended)


class _Thread:
    """A loop in a daemon thread, started at the first delivery that needs it; in a forked child, anew."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0
        self._waiting = 0
        self._idle = threading.Event()
        self._idle.set()

    def take(self, delivery: _Delivery) -> None:
        with locks.books:
            if self._pid != os.getpid():
                self._loop, self._pid, self._waiting = None, os.getpid(), 0
                self._idle.set()
            if self._waiting >= MOST_WAITING:
                full = True
            else:
                full = False
                self._waiting += 1
                self._idle.clear()
        if full:
            faults.report(delivery.place, OverflowError())
            close = getattr(delivery.answer, "close", None)
            if close is not None:
                close()
            return
        loop = self._running()
        if loop is None:
            try:
                asyncio.run(delivery.run())
            finally:
                self._done()
            return
        asyncio.run_coroutine_threadsafe(delivery.run(), loop).add_done_callback(lambda _: self._done())

    def drain(self, seconds: float) -> bool:
        """Wait until all is delivered. Returns whether it is."""
        return self._pid != os.getpid() or self._idle.wait(seconds)

    def _done(self) -> None:
        with locks.books:
            self._waiting -= 1
            if not self._waiting:
                self._idle.set()

    def _running(self) -> asyncio.AbstractEventLoop | None:
        with locks.books:
            loop = self._loop
            if loop is None:
                loop = asyncio.new_event_loop()
                try:
                    threading.Thread(target=_run, args=(loop,), name="shekel-listeners", daemon=True).start()
                except RuntimeError:  # the interpreter ends, and starts no more threads
                    loop.close()
                    return None
                self._loop = loop
            return loop


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()


_ours = _Thread()


def drain(seconds: float = DRAIN) -> bool:
    """Wait until our thread has delivered what it has. Returns whether it has."""
    return _ours.drain(seconds)
