"""Who waits for room is woken by whatever decides about the call: on any of its budgets, and by its own task."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import openai
import pytest

import shekel
from shekel import Allowance, Budget, BudgetExceededError, BudgetPausedError, budget
from shekel.testing import FakeProvider

from .conftest import DEADLINE, ask, ask_async, async_client, everywhere, stream, until
from .test_waiting import Caller, nothing_left


def pausing(limit: str = "1 call", **more: Any) -> Budget:
    return budget(limit, at_limit="pause", max_wait=DEADLINE, **more)


async def woken(b: Budget, ticks: int) -> None:
    """Wait for a task in the queue, give it room, and let the loop run so often."""
    while not len(b.queue):
        await asyncio.sleep(0)
    await asyncio.sleep(0.02)
    b.set_limit("2 calls")
    for _ in range(ticks):
        await asyncio.sleep(0)


def used_up(client: openai.OpenAI) -> Budget:
    """A budget of one call, which has been made."""
    b = pausing()
    b.run(ask, client)
    return b


@contextmanager
def waiting(client: openai.OpenAI, *around: Budget, queue: Budget) -> Iterator[Caller]:
    """A thread whose call waits, in those blocks, outermost first; it stands last in the queue of one of them."""
    before = len(queue.queue)
    with ExitStack() as blocks:
        for each in around[:-1]:
            blocks.enter_context(each)
        caller = Caller(around[-1], client)
    until(lambda: len(queue.queue) == before + 1)
    yield caller


def stopped_at_once(caller: Caller) -> None:
    start = time.monotonic()
    error = caller.done()
    assert time.monotonic() - start < DEADLINE / 2
    assert isinstance(error, BudgetExceededError)
    assert error.reason == "stopped"


class TestStop:
    def test_it_reaches_who_waits_on_a_budget_inside(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        outer, inner = budget("9 calls", name="outer"), used_up(client)
        with waiting(client, outer, inner, queue=inner) as caller:
            outer.stop()
            stopped_at_once(caller)
        assert len(provider.bill) == 1
        nothing_left(inner)

    def test_it_reaches_who_waits_on_a_budget_around(self, client: openai.OpenAI) -> None:
        outer, inner = used_up(client), budget("9 calls")
        with waiting(client, outer, inner, queue=outer) as caller:
            inner.stop()
            stopped_at_once(caller)
        nothing_left(outer)

    def test_that_of_a_budget_of_the_whole_process_too(self, client: openai.OpenAI) -> None:
        inner = used_up(client)
        with everywhere(budget("9 calls")) as whole, waiting(client, inner, queue=inner) as caller:
            whole.stop()
            stopped_at_once(caller)
        nothing_left(inner)

    def test_it_reaches_who_stands_behind_others_that_go_on_waiting(
        self, provider: FakeProvider, client: openai.OpenAI
    ) -> None:
        outer, shared = budget("9 calls"), used_up(client)
        with (
            waiting(client, shared, queue=shared) as first,
            waiting(client, outer, shared, queue=shared) as second,
            waiting(client, shared, queue=shared) as third,
        ):
            outer.stop()
            stopped_at_once(second)
            assert len(shared.queue) == 2
            shared.set_limit("3 calls")
            assert (first.done(), third.done()) == (None, None)
        assert len(provider.bill) == 3
        nothing_left(shared)

    def test_who_comes_while_others_wait_is_refused_at_once(self, client: openai.OpenAI) -> None:
        outer, shared = budget("9 calls"), used_up(client)
        with waiting(client, shared, queue=shared) as first:
            outer.stop()
            with outer, shared, pytest.raises(BudgetExceededError) as error:
                ask(client)
            assert error.value.reason == "stopped"
            shared.set_limit("2 calls")
            assert first.done() is None
        nothing_left(shared)

    async def test_a_task_too(self, provider: FakeProvider) -> None:
        outer, inner = budget("9 calls"), pausing()
        async with async_client(provider) as client:
            async with outer, inner:
                await ask_async(client)
                tasks = [asyncio.create_task(ask_async(client)) for _ in range(3)]
                while len(inner.queue) < 3:
                    await asyncio.sleep(0)
                outer.stop()
                async with asyncio.timeout(DEADLINE / 2):
                    errors = await asyncio.gather(*tasks, return_exceptions=True)
        assert [getattr(each, "reason", each) for each in errors] == ["stopped"] * 3
        nothing_left(inner)


class TestRoomOnAnyOfThem:
    ROOM: tuple[tuple[str, Callable[[Budget], object]], ...] = (
        ("a higher limit", lambda b: b.set_limit("2 calls")),
        ("an allowance", lambda b: b.allow(b.claims(time.time())[1], Allowance(1.0, "ada"))),
    )

    @pytest.mark.parametrize(("what", "make"), ROOM, ids=[what for what, _ in ROOM])
    @pytest.mark.parametrize("which", ["outer", "inner"])
    def test_it_is_woken_by(self, client: openai.OpenAI, which: str, what: str, make: Callable[[Budget], Any]) -> None:
        full, roomy = used_up(client), pausing("9 calls")
        outer, inner = (full, roomy) if which == "outer" else (roomy, full)
        with waiting(client, outer, inner, queue=full) as caller:
            make(full)
            assert caller.done() is None
        nothing_left(outer)
        nothing_left(inner)

    def test_a_reset_of_the_outer_one(self, client: openai.OpenAI) -> None:
        outer, inner = used_up(client), pausing("9 calls")
        with waiting(client, outer, inner, queue=outer) as caller:
            outer.reset()
            assert caller.done() is None
        nothing_left(outer)
        nothing_left(inner)

    @pytest.mark.parametrize("first", ["outer", "inner"])
    def test_where_both_are_full_it_waits_for_both(self, client: openai.OpenAI, first: str) -> None:
        outer, inner = used_up(client), used_up(client)
        early, late = (outer, inner) if first == "outer" else (inner, outer)
        with outer:
            caller = Caller(inner, client)
        until(lambda: len(outer.queue) + len(inner.queue) == 1)
        early.set_limit("2 calls")
        time.sleep(0.05)
        assert caller.is_alive()
        late.set_limit("2 calls")
        assert caller.done() is None
        nothing_left(outer)
        nothing_left(inner)

    def test_a_settlement_on_the_outer_one(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        outer, inner = pausing("$0.0002"), pausing("9 calls")
        with outer:
            opened = stream(client, max_tokens=64, n=1)
            outer.set_limit(outer.held + 0.00001)
        with waiting(client, outer, inner, queue=outer) as caller:
            opened.close()
            outer.set_limit("$1")
            assert caller.done() is None
        nothing_left(inner)

    def test_a_higher_cap_of_a_part(self, client: openai.OpenAI) -> None:
        around, step = pausing("$1").node("step", 0.00001), budget(name="step")
        with waiting(client, around, step, queue=around) as caller:
            around.node("step", 0.5)
            assert caller.done() is None
        nothing_left(around)

    def test_a_call_that_gives_back_its_hold_without_being_sent(
        self, provider: FakeProvider, client: openai.OpenAI
    ) -> None:
        callers: list[Caller] = []

        def leave(*_: object) -> None:
            callers.append(Caller(b, client))
            until(lambda: len(b.queue) == 1)
            raise SystemExit

        b = pausing("2 calls", fallback={"at_pct": 0.5, "model": "gpt-4.1-nano"}, on_fallback=leave)
        with b:
            ask(client)
            with pytest.raises(SystemExit):
                ask(client)
        assert callers[0].done() is None
        assert len(provider.bill) == 2
        nothing_left(b)

    def test_a_budget_of_the_whole_process_that_is_taken_back(self, client: openai.OpenAI) -> None:
        with everywhere(used_up(client)) as whole, waiting(client, budget("9 calls"), queue=whole) as caller:
            shekel.configure(budget=None)
            assert caller.done() is None
        nothing_left(whole)


class TestCancellation:
    @pytest.mark.parametrize("ticks", range(5))
    async def test_a_task_that_is_cancelled_as_it_is_woken_is_cancelled(
        self, provider: FakeProvider, ticks: int
    ) -> None:
        async with async_client(provider) as client, pausing() as b:
            await ask_async(client)
            task = asyncio.create_task(ask_async(client))
            await woken(b, ticks)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(asyncio.shield(task), DEADLINE)
            assert task.cancelled()
            if ticks < 2:  # it was not asked for room yet
                assert len(provider.bill) == 1
                await asyncio.wait_for(ask_async(client), DEADLINE)  # the room is still there
        nothing_left(b)

    @pytest.mark.parametrize("ticks", range(5))
    async def test_a_timeout_around_the_call_ends_it(self, provider: FakeProvider, ticks: int) -> None:
        async with async_client(provider) as client, pausing() as b:
            await ask_async(client)
            ending: list[asyncio.Timeout] = []

            async def work() -> None:
                async with asyncio.timeout(None) as timeout:
                    ending.append(timeout)
                    await ask_async(client)

            task = asyncio.create_task(work())
            await woken(b, ticks)
            ending[0].reschedule(0)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(task), DEADLINE)
        nothing_left(b)

    async def test_who_was_woken_and_cancelled_wakes_the_next(self, provider: FakeProvider) -> None:
        async with async_client(provider) as client, pausing() as b:
            await ask_async(client)
            tasks = [asyncio.create_task(ask_async(client)) for _ in range(2)]
            while len(b.queue) < 2:
                await asyncio.sleep(0)
            await asyncio.sleep(0.02)
            b.set_limit("2 calls")
            tasks[0].cancel()
            await asyncio.wait_for(tasks[1], DEADLINE)
            assert tasks[0].cancelled()
        assert len(provider.bill) == 2
        nothing_left(b)

    async def test_max_wait_is_kept_also_under_a_longer_timeout(self, provider: FakeProvider) -> None:
        async with async_client(provider) as client, budget("1 call", at_limit="pause", max_wait=0.1) as b:
            await ask_async(client)
            async with asyncio.timeout(DEADLINE):
                with pytest.raises(BudgetPausedError):
                    await ask_async(client)
        nothing_left(b)
