"""The clock on the wall is set, or goes on while the machine sleeps: calls that are open or wait meanwhile go by it."""

from __future__ import annotations

import time
from datetime import timedelta

import openai
import pytest

import shekel
from shekel import BudgetExceededError, budget
from shekel.testing import Clock, FakeProvider

from .conftest import ask, billed, nano, stream, until
from .test_waiting import Caller, nothing_left

HOUR = 3_600


def test_a_stream_counts_from_its_end_where_the_machine_slept(
    provider: FakeProvider, client: openai.OpenAI, clock: Clock
) -> None:
    with budget("$0.00005/hr") as b:
        events = iter(stream(client, max_tokens=64))
        next(events)
        clock.advance(2 * HOUR)
        assert len(list(events)) > 1
        assert nano(b.spent) == billed(provider) > 0
        clock.advance(HOUR - 60)
        with pytest.raises(BudgetExceededError):
            ask(client)
        clock.advance(5 * 60)
        ask(client)


def test_a_stream_counts_from_its_end_where_the_clock_was_set_back(
    provider: FakeProvider, client: openai.OpenAI, clock: Clock
) -> None:
    with budget("$0.00005/hr") as b:
        events = iter(stream(client, max_tokens=64))
        next(events)
        clock.set(clock.now() - timedelta(seconds=HOUR))
        list(events)
        assert nano(b.spent) == billed(provider) > 0


def test_a_call_that_has_ended_stays_when_it_was(provider: FakeProvider, client: openai.OpenAI, clock: Clock) -> None:
    with budget("$0.00005/hr") as b:
        call = shekel.call_of(ask(client))
        clock.advance(2 * HOUR)
        shekel.reconcile(call.id, 0.00004)
        assert b.spent == 0


def test_who_waits_finds_the_room_that_came_while_the_machine_slept(
    provider: FakeProvider, client: openai.OpenAI, clock: Clock
) -> None:
    b = budget("$0.00005/hr", at_limit="pause", max_wait=1)
    with b:
        ask(client)
    waiting = Caller(b, client)
    until(lambda: len(b.queue))
    clock.advance(2 * HOUR)
    assert waiting.done() is None
    assert len(provider.requests) == 2
    nothing_left(b)


def test_who_waits_does_not_wait_for_a_clock_that_was_set_back(client: openai.OpenAI, clock: Clock) -> None:
    b = budget("$0.00005/s", at_limit="pause", max_wait=20)
    with b:
        ask(client)
    waiting = Caller(b, client)
    until(lambda: len(b.queue))
    clock.set(clock.now() - timedelta(seconds=HOUR))
    b.resume()  # it looks again, and asks how long it has to wait
    start = time.monotonic()
    assert waiting.done() is None
    assert time.monotonic() - start < 10
    nothing_left(b)
