"""Queues: who stands there and will never come, and what a signal's handler does in the middle of the waiting."""

from __future__ import annotations

import asyncio
import itertools
import sys
import threading
import time
from typing import Any

import openai
import pytest

from shekel import Budget, budget
from shekel.budgets import queues
from shekel.budgets import waiting as waits
from shekel.testing import FakeProvider

from .conftest import DEADLINE, ask, ask_async, async_client, until
from .test_waiting import nothing_left
from .test_woken import used_up, waiting


def left_behind(b: Budget, provider: FakeProvider) -> tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]:
    """A task that stands in the queue of a budget, and its loop, which runs no more."""
    loop = asyncio.new_event_loop()

    async def work() -> None:
        async with async_client(provider) as client, b:
            await ask_async(client)

    async def begin() -> None:
        while not len(b.queue):
            await asyncio.sleep(0.001)

    task = loop.create_task(work())
    loop.run_until_complete(begin())
    return loop, task


class TestWhereNothingRunsAnyMore:
    def test_a_task_of_a_closed_loop_keeps_no_place(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        b = used_up(client)
        loop, task = left_behind(b, provider)
        with waiting(client, b, queue=b) as caller:
            loop.close()
            b.set_limit("3 calls")
            assert caller.done() is None
        nothing_left(b)
        with pytest.raises(RuntimeError):  # an open task would be complained of where it is dropped
            task.get_coro().throw(RuntimeError())  # type: ignore[union-attr]

    def test_one_of_a_loop_that_stands_still_keeps_it_as_long_as_it_may_wait(
        self, provider: FakeProvider, client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(queues, "OVERDUE", 0.05)
        b = budget("1 call", at_limit="pause", max_wait=0.4)
        b.run(ask, client)
        loop, task = left_behind(b, provider)
        time.sleep(0.2)
        b.max_wait = DEADLINE
        with waiting(client, b, queue=b) as behind:
            b.set_limit("9 calls")
            assert behind.done() is None
        start = time.monotonic()
        b.run(ask, client)
        assert time.monotonic() - start < DEADLINE / 2
        nothing_left(b)
        assert loop.run_until_complete(task) is None  # it goes on where it stood
        loop.close()


def struck(b: Budget, client: openai.OpenAI, at: int) -> bool | None:
    """Make a call that waits, in whose thread a signal's handler gives it room at the nth line after it has queued.

    Returns whether there was such a line; None where the call never came back.
    """
    files = {waits.__file__, queues.__file__, threading.__file__}
    lines = itertools.count(1)
    done: list[bool] = []

    def trace(frame: Any, event: str, arg: object) -> Any:
        if frame.f_code.co_filename not in files:
            return None
        if event == "line" and len(b.queue) and next(lines) == at:
            done.append(True)
            b.set_limit("2 calls")
        return trace

    def work() -> None:
        sys.settrace(trace)
        try:
            ask(client)
        finally:
            sys.settrace(None)

    thread = threading.Thread(target=b.bind(work), daemon=True)
    thread.start()
    until(lambda: done or len(b.queue))
    thread.join(0.05)
    if not done:
        b.set_limit("2 calls")
    thread.join(5)
    return None if thread.is_alive() else bool(done)


def test_a_signals_handler_may_make_room_at_any_moment_of_the_waiting(client: openai.OpenAI) -> None:
    for at in itertools.count(1):
        b = used_up(client)
        found = struck(b, client, at)
        assert found is not None, f"line {at}"
        nothing_left(b)
        if not found:
            break
    assert at > 30
