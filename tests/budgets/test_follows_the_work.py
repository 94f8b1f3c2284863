"""A budget follows the work: into threads, executors, tasks and generators, and never out of them."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
from opentelemetry import context as otel

from shekel import BudgetExceededError, budget, scope, with_budget
from shekel.budgets.around import around
from shekel.testing import FakeProvider

from .conftest import MODEL, ask, ask_async, async_client, billed, nano


def here() -> list[str | None]:
    """The names of the budgets around."""
    return [each.name for each in around(otel.get_current())]


class TestBind:
    def test_in_an_executor(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        b = budget("5 calls", name="pool")
        with ThreadPoolExecutor(8) as pool:
            futures = [pool.submit(b.bind(ask), client) for _ in range(12)]
            errors = [each.exception() for each in futures]
            assert pool.submit(here).result() == []
        assert [type(each) for each in errors if each is not None] == [BudgetExceededError] * 7
        assert (b.calls_used, len(provider.bill)) == (5, 5)

    def test_without_it_a_plain_executor_is_not_charged(self, client: openai.OpenAI) -> None:
        with budget("1 call") as b, ThreadPoolExecutor(1) as pool:
            pool.submit(ask, client).result()
        assert b.calls_used == 0

    def test_the_budgets_and_the_scope_around_it_go_with_it(self, client: openai.OpenAI) -> None:
        seen: list[Any] = []

        def work() -> None:
            seen.append((here(), dict(scope_entries())))
            ask(client)

        from opentelemetry.context import get_current

        from shekel.budgets.scope import entries

        def scope_entries() -> Any:
            return entries(get_current())

        with budget(name="outer") as outer, scope(user_id="ada"):
            inner = budget(name="inner")
            bound = inner.bind(work)
        thread = threading.Thread(target=bound)
        thread.start()
        thread.join()
        assert seen == [(["outer", "inner"], {"user.id": "ada"})]
        assert (outer.calls_used, inner.calls_used) == (1, 1)

    def test_run_calls_at_once_and_returns_what_it_returns(self, client: openai.OpenAI) -> None:
        b = budget()
        assert b.run(ask, client, max_tokens=5).usage.completion_tokens == 5
        assert b.calls_used == 1
        with pytest.raises(ZeroDivisionError):
            b.run(lambda: 1 / 0)
        assert here() == []

    async def test_async_functions_and_to_thread(self, provider: FakeProvider) -> None:
        b = budget()
        async with async_client(provider) as client:
            await b.bind(ask_async)(client)
            await asyncio.create_task(b.run(ask_async, client))
            assert here() == []
        with openai.OpenAI(base_url=provider.openai_url, api_key="t") as plain:
            await asyncio.to_thread(b.bind(ask), plain)
            with b:
                await asyncio.to_thread(ask, plain)  # asyncio brings the context along by itself
        assert b.calls_used == 4
        await asyncio.to_thread(provider.wait_idle)
        assert nano(b.spent) == provider.bill.total

    async def test_what_is_async_only_by_what_it_returns(self, provider: FakeProvider) -> None:
        class Agent:
            async def __call__(self) -> list[str | None]:
                await ask_async(client)
                return here()

        b = budget("4 calls", name="bound")
        async with async_client(provider) as client:
            await b.run(lambda: ask_async(client))
            await asyncio.create_task(b.bind(lambda: ask_async(client))())
            assert await b.bind(Agent())() == ["bound"]
            assert here() == []
            with b:
                assert await with_budget(name="fresh")(Agent())() == ["bound", "fresh"]
            assert b.calls_used == 4
            with pytest.raises(BudgetExceededError):
                await b.run(lambda: ask_async(client))
            with pytest.raises(BudgetExceededError):
                await with_budget("$0.000001")(Agent())()
            await asyncio.to_thread(provider.wait_idle)
        assert len(provider.bill) == 4

    def test_generators(self, client: openai.OpenAI) -> None:
        b = budget(name="bound")

        def work() -> Iterator[list[str | None]]:
            yield here()
            ask(client)
            yield here()

        for seen in b.bind(work)():
            assert seen == ["bound"]
            assert here() == []
        assert b.calls_used == 1

    def test_what_it_wraps_keeps_its_name_and_kind(self) -> None:
        import inspect

        b = budget()

        def plain() -> None: ...
        async def coroutine() -> None: ...
        def generator() -> Iterator[int]:
            yield 1

        async def async_generator() -> AsyncIterator[int]:
            yield 1

        for each in (plain, coroutine, generator, async_generator):
            for bound in (b.bind(each), with_budget(max_usd=1)(each)):
                assert bound.__name__ == each.__name__
                for kind in (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction):
                    assert kind(bound) == kind(each)


class TestGenerators:
    """`@with_budget` on generators: the block is there at each step, and nowhere else."""

    def test_who_reads_is_not_inside(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        @with_budget("1 call", name="each")
        def work() -> Iterator[list[str | None]]:
            yield here()
            with budget(name="inner"):
                yield here()
                ask(client)
                yield here()
            yield here()
            with pytest.raises(BudgetExceededError):
                ask(client)

        with budget(name="reader") as reader:
            seen = []
            for each in work():
                seen.append(each)
                assert here() == ["reader"]
            ask(client)
        assert seen == [
            ["reader", "each"],
            ["reader", "each", "inner"],
            ["reader", "each", "inner"],
            ["reader", "each"],
        ]
        assert reader.calls_used == 2

    def test_two_that_take_turns_do_not_mix(self) -> None:
        @with_budget(name="one")
        def one() -> Iterator[list[str | None]]:
            while True:
                yield here()

        @with_budget(name="two")
        def two() -> Iterator[list[str | None]]:
            while True:
                yield here()

        first, second = one(), two()
        assert [(next(first), next(second)) for _ in range(3)] == [(["one"], ["two"])] * 3
        first.close()
        assert next(second) == ["two"]
        second.close()
        assert here() == []

    def test_each_step_may_be_in_another_thread(self, client: openai.OpenAI) -> None:
        made: list[Any] = []

        @with_budget("2 calls", name="each")
        def work() -> Iterator[int]:
            made.append(around(otel.get_current())[-1])
            for number in range(3):
                ask(client)
                yield number

        running = work()
        got = []
        with ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as second:
            got.append(first.submit(next, running).result())
            got.append(second.submit(next, running).result())
            with pytest.raises(BudgetExceededError):
                first.submit(next, running).result()
        assert got == [0, 1]
        assert made[0].calls_used == 2

    @pytest.mark.parametrize("kind", ["decorated", "bound"])
    def test_each_step_may_be_in_a_context_of_its_own(self, client: openai.OpenAI, kind: str) -> None:
        """A `with` block inside would be in force in the first step alone."""

        def agent() -> Iterator[Any]:
            for _ in range(5):
                yield ask(client)

        limited = with_budget(max_llm_calls=2)(agent) if kind == "decorated" else budget(max_llm_calls=2).bind(agent)
        steps = limited()
        for _ in range(2):
            contextvars.copy_context().run(next, steps)
        with pytest.raises(BudgetExceededError):
            contextvars.copy_context().run(next, steps)

    def test_sent_thrown_and_returned_values_pass(self) -> None:
        @with_budget(max_usd=1)
        def work() -> Any:
            got = yield 1
            try:
                yield got
            except KeyError as error:
                yield str(error)
            return "end"

        running = work()
        assert next(running) == 1
        assert running.send("hello") == "hello"
        assert running.throw(KeyError("x")) == "'x'"
        with pytest.raises(StopIteration) as end:
            next(running)
        assert end.value.value == "end"

    def test_closing_runs_its_finally_inside(self) -> None:
        seen: list[list[str | None]] = []

        @with_budget(name="each")
        def work() -> Iterator[int]:
            try:
                yield 1
            finally:
                seen.append(here())

        running = work()
        next(running)
        running.close()
        assert seen == [["each"]]

    async def test_async_generators(self, provider: FakeProvider) -> None:
        seen: list[list[str | None]] = []

        @with_budget("1 call", name="each")
        async def work(client: Any) -> AsyncIterator[str]:
            try:
                await asyncio.sleep(0)
                yield "start"
                with budget(name="inner"):
                    async with asyncio.timeout(30):
                        answer = await ask_async(client)
                    yield answer.model
                    seen.append(here())
                with pytest.raises(BudgetExceededError):
                    await asyncio.create_task(ask_async(client))
                yield "refused"
            finally:
                await asyncio.sleep(0)
                seen.append(here())

        async with async_client(provider) as client:
            got = []
            async for each in work(client):
                got.append(each)
                assert here() == []
            assert got == ["start", MODEL, "refused"]
            assert seen == [["each", "inner"], ["each"]]
            running = work(client)
            assert await anext(running) == "start"
            await running.aclose()  # type: ignore[attr-defined]
            assert seen[2:] == [["each"]]
            running = work(client)
            await anext(running)
            with pytest.raises(LookupError):
                await running.athrow(LookupError())  # type: ignore[attr-defined]

    async def test_an_async_generator_can_be_cancelled(self) -> None:
        started = asyncio.Event()

        @with_budget(name="each")
        async def work() -> AsyncIterator[int]:
            started.set()
            await asyncio.sleep(3600)
            yield 1

        async def read() -> None:
            async for _ in work():
                pass

        task = asyncio.create_task(read())
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert here() == []


def test_billing_matches_over_all_ways(provider: FakeProvider, client: openai.OpenAI) -> None:
    b = budget()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(b.bind(lambda _: ask(client)), range(8)))
    assert nano(b.spent) == billed(provider)
