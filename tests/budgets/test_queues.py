"""Queues: behind whom one stands, who will never come, and what a signal's handler does in the middle of waiting."""

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

from .conftest import DEADLINE, MODEL, ask, ask_async, async_client, until
from .test_waiting import nothing_left
from .test_woken import pausing, used_up, waiting


class TestWhatOthersDoNotCountTo:
    """Who waits for the limit of a model, or of a part, keeps nobody waiting whom that limit does not concern."""

    def test_the_limit_of_a_model(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        b = pausing("$1 + 1 call on gpt-4o")
        order: list[str] = []

        def work(name: str, model: str) -> None:
            ask(client, model=model)
            order.append(name)

        def begin(name: str, model: str) -> threading.Thread:
            thread = threading.Thread(target=b.bind(work), args=(name, model), daemon=True)
            before = len(b.queue) + len(order)
            thread.start()
            until(lambda: len(b.queue) + len(order) == before + 1)
            return thread

        b.run(work, "used", "gpt-4o")
        threads = [begin("first", "gpt-4o"), begin("second", "gpt-4o-2024-08-06")]
        start = time.monotonic()
        b.run(work, "other", MODEL)
        assert time.monotonic() - start < DEADLINE / 2
        assert order == ["used", "other"]
        b.set_limit("2 calls", model="gpt-4o")
        until(lambda: len(order) == 3)
        b.set_limit("3 calls", model="gpt-4o")
        for each in threads:
            each.join(DEADLINE)
        assert order == ["used", "other", "first", "second"]
        nothing_left(b)

    def test_the_cap_of_a_part(self, client: openai.OpenAI) -> None:
        b, step = pausing("$1").node("step", 0.00001), budget(name="step")
        with waiting(client, b, step, queue=b) as caller:
            start = time.monotonic()
            b.run(ask, client)
            assert time.monotonic() - start < DEADLINE / 2
            assert len(b.queue) == 1
            b.node("step", 0.5)
            assert caller.done() is None
        nothing_left(b)

    def test_those_who_wait_for_what_all_count_to_stand_in_one_row(self, client: openai.OpenAI) -> None:
        b = pausing("$0.0001 + 1 call on gpt-4o-mini")
        order: list[str] = []

        def begin(name: str, model: str, most: int) -> threading.Thread:
            def work() -> None:
                ask(client, model=model, max_tokens=most)
                order.append(name)

            thread = threading.Thread(target=b.bind(work), daemon=True)
            before = len(b.queue)
            thread.start()
            until(lambda: len(b.queue) == before + 1)
            time.sleep(0.05)
            return thread

        b.run(ask, client)
        threads = [
            begin("of the model", MODEL, 64),
            begin("large", "gpt-4.1-nano", 2000),
            begin("small, behind it", "gpt-4.1-nano", 5),
        ]
        b.set_limit("2 calls", model=MODEL)
        until(lambda: order)
        assert order == ["of the model"]
        b.set_limit("$1")
        for each in threads:
            each.join(DEADLINE)
        assert sorted(order[1:]) == ["large", "small, behind it"]
        nothing_left(b)


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
