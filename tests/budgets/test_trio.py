"""Under another event loop than asyncio's, a program waits and is asked as under asyncio's."""

from __future__ import annotations

import time

import openai
import pytest
import trio

from shekel import BudgetExceededError, BudgetPausedError, Exceeded, budget
from shekel.testing import FakeProvider, Reply

from .conftest import ask_async, async_client, stream


async def outcome(client: openai.AsyncOpenAI) -> str:
    try:
        await ask_async(client)
    except BudgetExceededError as error:
        return type(error).__name__
    return "sent"


def test_calls_wait_their_turn(provider: FakeProvider) -> None:
    seen: list[tuple[str, float]] = []

    async def main() -> None:
        async def call() -> None:
            begun = time.monotonic()
            seen.append((await outcome(client), time.monotonic() - begun))

        async with async_client(provider) as client, budget("1 call/1s", at_limit="pause") as b:
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(call)
            assert (len(b.queue), b.held, b.calls_used) == (0, 0, 3)

    trio.run(main)
    assert [each for each, _ in seen] == ["sent"] * 3
    first, second, third = (seconds for _, seconds in seen)
    assert first < 1 <= second < third
    assert third >= 2


def test_another_thread_wakes_who_waits(provider: FakeProvider, client: openai.OpenAI) -> None:
    provider.default = Reply(output_tokens=64, pace=0.01)

    async def main() -> None:
        async with async_client(provider) as other, budget("$0.00005", at_limit="pause", max_wait=20) as b:
            opened = stream(client, max_tokens=64)
            next(iter(opened))
            assert b.held > 0.00001
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask_async, other)
                await trio.sleep(0.1)
                assert len(b.queue) == 1
                await trio.to_thread.run_sync(opened.close)
            assert (len(b.queue), b.held, b.calls_used) == (0, 0, 2)

    trio.run(main)


def test_a_wait_has_an_end(provider: FakeProvider) -> None:
    async def main() -> None:
        async with async_client(provider) as client:
            with budget("1 call/hr", at_limit="pause", max_wait=0.2) as b:
                await ask_async(client)
                with pytest.raises(BudgetPausedError):
                    await ask_async(client)
            assert (len(b.queue), b.held, b.calls_used) == (0, 0, 1)

    trio.run(main)


def test_who_is_cancelled_leaves_the_queue_and_sends_nothing(provider: FakeProvider) -> None:
    async def main() -> None:
        async with async_client(provider) as client:
            with budget("1 call/hr", at_limit="pause", max_wait=60) as b:
                await ask_async(client)
                with trio.move_on_after(0.1) as scope:
                    await ask_async(client)
            assert scope.cancelled_caught
            assert (len(b.queue), b.held, b.calls_used) == (0, 0, 1)

    trio.run(main)
    assert len(provider.requests) == 1


def test_an_async_on_exceed_is_awaited(provider: FakeProvider) -> None:
    async def asked(question: Exceeded) -> bool:
        await trio.sleep(0.01)
        return True

    async def main() -> None:
        async with async_client(provider) as client:
            with budget("$0.000001", on_exceed=asked) as b:
                await ask_async(client)
            assert len(b.allowances) == 1

    trio.run(main)
