"""Usage events: exactly one per call, however it is made and however it ends, with what it cost."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import httpx2
import openai
import pytest

import shekel
from budgets.conftest import CLAUDE, HELLO, MODEL, ask, async_client, billed, nano, stream, until
from shekel import BudgetExceededError, ShekelInstrumentor, UsageEvent, budget, deliveries, scope
from shekel.runtime import the_runtime
from shekel.telemetry import listeners
from shekel.testing import FakeProvider, Reply


@pytest.fixture
def told() -> Iterator[list[UsageEvent]]:
    """What a listener is told."""
    events: list[UsageEvent] = []
    with shekel.on_usage(events.append):
        yield events


class TestOnePerCall:
    def test_a_plain_call_without_a_budget_and_without_instrument(
        self, told: list[UsageEvent], client: openai.OpenAI, provider: FakeProvider
    ) -> None:
        answer = ask(client)
        [event] = told
        [attempt] = provider.bill
        assert nano(event.cost_total) == billed(provider) > 0
        assert (event.input_tokens, event.output_tokens) == (attempt.input_tokens, attempt.output_tokens)
        assert event.total_tokens == event.input_tokens + event.output_tokens
        assert event.id == shekel.call_of(answer).id
        assert (event.outcome, event.stream, event.estimated, event.source) == ("complete", False, False, "auto")
        assert (event.model, event.provider) == (answer.model, "openai")
        assert event.user_id is event.session_id is event.budget is event.description is None

    def test_under_nested_budgets_spans_and_a_scope(
        self, told: list[UsageEvent], client: openai.OpenAI, provider: FakeProvider
    ) -> None:
        ShekelInstrumentor().instrument()
        try:
            with (
                scope(user_id="ada", session_id="s1", team="red"),
                budget(name="outer"),
                budget(max_usd=1, name="inner"),
            ):
                ask(client)
        finally:
            ShekelInstrumentor().uninstrument()
        [event] = told
        assert (event.user_id, event.session_id, event.tenant_id) == ("ada", "s1", None)
        assert event.metadata == {"team": "red"}
        assert event.scope == {"user.id": "ada", "session.id": "s1", "team": "red"}
        assert event.budget == "inner"
        assert nano(event.cost_total) == nano(event.cost_tokens) == billed(provider)

    def test_a_stream_when_it_has_ended_and_not_before(
        self, told: list[UsageEvent], client: openai.OpenAI, provider: FakeProvider
    ) -> None:
        the_runtime().usage_hosts = frozenset({"127.0.0.1"})
        with scope(user_id="ada"):
            opened = stream(client)
        next(iter(opened))
        assert told == []
        list(opened)
        the_runtime().usage_hosts = frozenset()
        [event] = told
        assert (event.user_id, event.stream, event.outcome) == ("ada", True, "complete")
        assert nano(event.cost_total) == billed(provider)

    @pytest.mark.parametrize("end", ["close", "with", "drop", "raise"])
    def test_a_stream_that_is_left(
        self, end: str, told: list[UsageEvent], client: openai.OpenAI, provider: Any
    ) -> None:
        provider.default = Reply(output_tokens=3000, pace=0.001)
        opened = stream(client)
        iterator = iter(opened)
        for _ in range(3):
            next(iterator)
        if end == "close":
            opened.close()
        elif end == "with":
            with opened:
                pass
        elif end == "raise":
            with pytest.raises(KeyError), opened:
                raise KeyError
        else:
            del opened, iterator
            gc.collect()
        until(lambda: told)
        [event] = told
        assert event.estimated
        assert event.outcome in ("closed", "dropped")
        assert event.output_tokens > 0
        assert event.cost_total is not None
        assert event.cost_total > 0

    def test_a_stream_that_is_cut(self, told: list[UsageEvent], client: openai.OpenAI, provider: FakeProvider) -> None:
        provider.default = Reply(output_tokens=5000, pace=0.0005)
        with budget(max_usd=0.0003), pytest.raises(BudgetExceededError):
            list(stream(client))
        [event] = told
        assert (event.outcome, event.estimated) == ("cut", True)

    def test_a_refused_call_gives_none(self, told: list[UsageEvent], client: openai.OpenAI) -> None:
        with budget(max_usd=0.0000001), pytest.raises(BudgetExceededError):
            ask(client)
        assert told == []

    def test_a_call_that_fails_costs_nothing_and_says_so(
        self, told: list[UsageEvent], client: openai.OpenAI, provider: FakeProvider
    ) -> None:
        provider.reply(Reply(status=400))
        with pytest.raises(openai.BadRequestError):
            ask(client)
        [event] = told
        assert (event.outcome, event.cost_total, event.total_tokens) == ("error", 0.0, 0)

    def test_retries_are_one_call(self, told: list[UsageEvent], provider: FakeProvider) -> None:
        provider.reply(Reply(status=429), Reply(status=429))
        with openai.OpenAI(base_url=provider.openai_url, api_key="test", max_retries=3) as client:
            ask(client)
        assert len(told) == 1

    def test_a_model_without_a_price_has_no_cost(self, told: list[UsageEvent], client: openai.OpenAI) -> None:
        ask(client, model="nobody-knows-this")
        [event] = told
        assert event.cost_total is event.cost_tokens is event.cost_tools is None
        assert event.total_tokens > 0

    def test_of_the_other_sdk_with_caches_and_server_tools(self, told: list[UsageEvent]) -> None:
        usage = {
            "input_tokens": 100,
            "output_tokens": 50,
            "cache_read_input_tokens": 40,
            "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 0},
        }
        answer = {"id": "msg_1", "type": "message", "role": "assistant", "model": CLAUDE, "content": [], "usage": usage}
        # The stand-in runs no tools of the server's own.
        transport = httpx2.MockTransport(lambda request: httpx2.Response(200, json=answer))
        with anthropic.Anthropic(api_key="t", http_client=httpx2.Client(transport=transport)) as claude:
            claude.messages.create(model=CLAUDE, max_tokens=64, messages=HELLO)
        [event] = told
        assert event.tool_calls == {"web_search": 2}
        assert (event.input_tokens, event.cache_read_tokens) == (140, 40)
        assert nano(event.cost_tools) == 20_000_000  # $10 per thousand searches
        assert nano(event.cost_total) == nano(event.cost_tokens) + nano(event.cost_tools)

    def test_a_batch_of_threads(self, told: list[UsageEvent], client: openai.OpenAI, provider: FakeProvider) -> None:
        def work(number: int) -> None:
            with scope(user_id=number):
                for _ in range(4):
                    ask(client)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert len(told) == len({event.id for event in told}) == 32
        assert sum(nano(event.cost_total) for event in told) == billed(provider)
        assert {event.user_id for event in told} == {str(number) for number in range(8)}

    async def test_a_task_that_is_cancelled(self, told: list[UsageEvent], provider: FakeProvider) -> None:
        provider.default = Reply(output_tokens=3000, pace=0.01)
        async with async_client(provider) as client:
            opened = await client.chat.completions.create(model=MODEL, messages=HELLO, stream=True)

            async def read() -> None:
                async for _ in opened:
                    started.set()

            started = asyncio.Event()
            task = asyncio.create_task(read())
            await started.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await opened.close()
        [event] = told
        assert event.outcome in ("cancelled", "closed")

    def test_an_event_pickles(self, told: list[UsageEvent], client: openai.OpenAI) -> None:
        ask(client)
        assert pickle.loads(pickle.dumps(told[0])) == told[0]

    def test_ids_of_forked_workers_differ(self, told: list[UsageEvent], provider: FakeProvider) -> None:
        program = f"""
import os, openai, shekel
ids = []
shekel.on_usage(lambda event: ids.append(event.id))
def ask():
    with openai.OpenAI(base_url={provider.openai_url!r}, api_key="test") as client:
        client.chat.completions.create(model="gpt-4o-mini", messages=[{{"role": "user", "content": "hi"}}])
ask()
child = os.fork()
ask()
if child:
    os.waitpid(child, 0)
print(*ids, flush=True)
os._exit(0)
"""
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
        first, second = (line.split() for line in done.stdout.splitlines())
        assert first[0] == second[0]
        assert first[1] != second[1]


class TestListeners:
    def test_what_one_raises_is_logged_once_counted_and_seen_by_nobody(
        self, told: list[UsageEvent], client: openai.OpenAI, caplog: pytest.LogCaptureFixture
    ) -> None:
        from shekel import faults

        def fails(event: UsageEvent) -> None:
            raise RuntimeError("secret text")

        faults._said.discard("called on_usage")
        before = faults.counted["called on_usage"]
        with shekel.on_usage(fails):
            for _ in range(3):
                ask(client)
        assert faults.counted["called on_usage"] - before == 3
        assert [r.message for r in caplog.records if "on_usage" in r.message].__len__() == 1
        assert "secret text" not in caplog.text
        assert len(told) == 3

    def test_one_may_call_back(self, client: openai.OpenAI, provider: FakeProvider) -> None:
        seen: list[Any] = []
        b = budget(max_usd=1)

        def listen(event: UsageEvent) -> None:
            if not seen:
                seen.append(b.spent)  # the call that is told of is settled
                with b:
                    ask(client)
                b.set_limit(2)

        with shekel.on_usage(listen), b:
            ask(client)
        assert nano(seen[0]) == provider.bill[0].cost
        assert nano(b.spent) == billed(provider)
        assert len(provider.bill) == 2

    def test_one_holds_no_lock_while_it_waits_for_another_thread(self, client: openai.OpenAI) -> None:
        b = budget(max_usd=1)
        seen: list[float] = []

        def listen(event: UsageEvent) -> None:
            reader = threading.Thread(target=lambda: seen.append(b.spent))
            reader.start()
            reader.join(30)

        with shekel.on_usage(listen), b:
            ask(client)
        assert len(seen) == 1

    def test_the_handle_ends_it_and_takes_the_doors_off(self, client: openai.OpenAI) -> None:
        events: list[UsageEvent] = []
        users = the_runtime()._users
        handle = shekel.on_usage(events.append)
        ask(client)
        handle.cancel()
        handle.cancel()
        assert the_runtime()._users == users
        ask(client)
        assert len(events) == 1
        assert listeners.of(listeners.USAGE) == ()

    @pytest.mark.parametrize("wrong", [None, "print", 3], ids=repr)
    @pytest.mark.parametrize("subscribe", [shekel.on_usage, shekel.on_soft_limit, shekel.on_hard_limit])
    def test_what_cannot_be_called_is_refused(self, wrong: Any, subscribe: Callable[..., Any]) -> None:
        with pytest.raises(ValueError, match="function"):
            subscribe(wrong)

    def test_importing_shekel_does_not_import_them(self) -> None:
        code = "import sys, shekel; print([m for m in sys.modules if m.startswith('opentelemetry.sdk')])"
        told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert told.stdout.strip() == "[]"


class TestAsync:
    async def test_runs_on_the_loop_of_the_call(self, provider: FakeProvider) -> None:
        seen: list[Any] = []

        async def listen(event: UsageEvent) -> None:
            await asyncio.sleep(0)
            seen.append((asyncio.get_running_loop(), event.outcome))

        with shekel.on_usage(listen):
            async with async_client(provider) as client:
                await client.chat.completions.create(model=MODEL, messages=HELLO)
            while not seen:
                await asyncio.sleep(0.001)
        assert seen == [(asyncio.get_running_loop(), "complete")]

    def test_without_a_loop_in_a_thread_of_ours(self, client: openai.OpenAI) -> None:
        seen: list[str] = []

        async def listen(event: UsageEvent) -> None:
            await asyncio.sleep(0)
            seen.append(threading.current_thread().name)

        with shekel.on_usage(listen):
            ask(client)
            ask(client)
        assert deliveries.drain(30)
        assert seen == ["shekel-listeners"] * 2

    def test_a_loop_that_ends_first_loses_none(self, provider: FakeProvider) -> None:
        seen: list[str] = []

        async def listen(event: UsageEvent) -> None:
            seen.append(event.id)

        async def main() -> None:
            async with async_client(provider) as client:
                opened = await client.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
                await opened.close()
                raise SystemExit  # nothing is awaited any more

        with shekel.on_usage(listen):
            with pytest.raises(SystemExit):
                asyncio.run(main())
            until(lambda: seen)
        assert deliveries.drain(30)
        assert len(seen) == 1

    def test_what_it_raises_is_counted(self, client: openai.OpenAI) -> None:
        from shekel import faults

        async def fails(event: UsageEvent) -> None:
            raise RuntimeError("secret text")

        before = faults.counted["called on_usage"]
        with shekel.on_usage(fails):
            ask(client)
        assert deliveries.drain(30)
        assert faults.counted["called on_usage"] - before == 1

    def test_the_exit_of_a_program_waits_for_them(self, provider: FakeProvider) -> None:
        program = f"""
import asyncio, openai, shekel
async def listen(event):
    await asyncio.sleep(0.2)
    print(event.outcome, event.stream, flush=True)
shekel.on_usage(listen)
client = openai.OpenAI(base_url={provider.openai_url!r}, api_key="test")
ask = dict(model="gpt-4o-mini", messages=[{{"role": "user", "content": "hi"}}])
client.chat.completions.create(**ask)
stream = client.chat.completions.create(**ask, stream=True)
next(iter(stream))
"""
        done = subprocess.run(
            [sys.executable, "-c", program], env=os.environ, capture_output=True, text=True, check=True, timeout=60
        )
        assert sorted(done.stdout.splitlines()) == ["complete False", "dropped True"], done.stderr
