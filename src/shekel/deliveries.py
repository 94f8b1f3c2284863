"""Deliveries: what an async function of the program returns, where nobody awaits it: listeners, `on_warn`, and so on.

It runs as a task of the event loop that runs in this thread; where none does, and where that loop ends before the task
began, on a loop in a thread of ours. What it raises is reported, and goes no further.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable
from contextvars import Context
from typing import Any

from . import faults, locks, threads

MOST_WAITING = 10_000
"""Deliveries that wait in our thread at most; what comes beyond is dropped, and counted as a fault."""

DRAIN = 5.0
"""Seconds that the interpreter's exit waits for them."""

_tasks: set[asyncio.Task[None]] = set()
"""A loop keeps only weak references to its tasks."""


class _Delivery:
    """One answer of an async function, on its way to a loop."""

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


def deliver(answer: Awaitable[Any], place: str) -> None:
    """Run what an async function returned.

    Args:
        answer: what it returned.
        place: what is said where it fails, such as "called on_warn".
    """
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
        loop = self._loop
        if loop is not None:
            return loop
        made = Context().run(asyncio.new_event_loop)  # it keeps the context that it was made in
        try:
            threads.start("shekel-listeners", _run, made)
        except RuntimeError:  # the interpreter ends, and starts no more threads
            made.close()
            return None
        with locks.books:
            loop = self._loop = self._loop or made
        if loop is not made:  # another thread was first
            made.call_soon_threadsafe(made.stop)
        return loop


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()


_ours = _Thread()


def drain(seconds: float = DRAIN) -> bool:
    """Wait until our thread has delivered what it has. Returns whether it has."""
    return _ours.drain(seconds)
