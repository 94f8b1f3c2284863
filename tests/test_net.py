"""The net: a call that comes around `request` (a bound method that was kept) is one call, however often it is tried."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import openai
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from shekel import BudgetExceededError, ShekelInstrumentor, budget
from shekel.testing import FakeProvider, Reply

UNTOUCHED = {
    each: each.__dict__["request"]
    for module in (openai._base_client, anthropic._base_client)
    for each in (module.SyncAPIClient, module.AsyncAPIClient)
}
Ask = Callable[..., Any]


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    tracer_provider = TracerProvider()
    tracer_provider.add_span_processor(SimpleSpanProcessor(exporter))
    ShekelInstrumentor().instrument(tracer_provider=tracer_provider)
    yield exporter
    ShekelInstrumentor().uninstrument()


@pytest.fixture(params=["openai", "openai-async", "anthropic", "anthropic-async"])
def ask(request: pytest.FixtureRequest, provider: FakeProvider) -> Ask:
    """Makes one call with a client whose `request` is the SDK's own, and tries it three times."""
    sdk, _, is_async = request.param.partition("-")
    given: dict[str, Any] = {
        "base_url": getattr(provider, f"{sdk}_url"),
        "api_key": "test",
        "max_retries": 2,
        "timeout": 0.5,
    }
    body: dict[str, Any] = {"max_tokens": 64, "messages": [{"role": "user", "content": "Hello there"}]}

    def made(client: Any) -> Any:
        former = next(request for base, request in UNTOUCHED.items() if isinstance(client, base))
        client.request = types.MethodType(former, client)
        return client

    def create(client: Any, **more: Any) -> Any:
        if sdk == "openai":
            return client.chat.completions.create(model="gpt-4o-mini", **body, **more)
        return client.messages.create(model="claude-haiku-4-5", **body, **more)

    def sync(**more: Any) -> list[Any]:
        with made((openai.OpenAI if sdk == "openai" else anthropic.Anthropic)(**given)) as client:
            answer = create(client, **more)
            return list(answer) if more else [answer]

    async def in_loop(**more: Any) -> list[Any]:
        async with made((openai.AsyncOpenAI if sdk == "openai" else anthropic.AsyncAnthropic)(**given)) as client:
            answer = await create(client, **more)
            return [chunk async for chunk in answer] if more else [answer]

    return (lambda **more: asyncio.run(in_loop(**more))) if is_async else sync


@pytest.mark.parametrize("more", [{}, {"stream": True}], ids=["plain", "stream"])
def test_attempts_are_one_call(
    provider: FakeProvider, exporter: InMemorySpanExporter, ask: Ask, more: dict[str, Any]
) -> None:
    with budget("$1 + 2 calls") as b:
        plain = [type(chunk) for chunk in ask(**more)]
        provider.reply(Reply(status=500, retry_after=0), Reply(status=529, retry_after=0))
        assert [type(chunk) for chunk in ask(**more)] == plain
        with pytest.raises(BudgetExceededError):
            ask(**more)
    provider.wait_idle()
    assert (b.calls_used, b.held) == (2, 0)
    assert b.spent == pytest.approx(provider.bill.total / 1e9)
    told = [(span.attributes or {}).get("shekel.attempts") for span in exporter.get_finished_spans()]
    assert told == [None, 3, None]
    bodies = [each.body for each in provider.requests]
    assert bodies[1:] == [bodies[0]] * 3  # also what was written into the first


def test_an_attempt_that_timed_out_is_charged_beside_the_next(provider: FakeProvider, ask: Ask) -> None:
    with budget(max_usd=1) as b:
        ask()
        once = b.spent
        provider.reply(Reply(drop_after=-1))
        ask()
    assert b.calls_used == 2
    assert b.spent > once * 2


@pytest.mark.parametrize("status", [400, 529])
def test_what_was_refused_there_costs_nothing(
    provider: FakeProvider, exporter: InMemorySpanExporter, ask: Ask, status: int
) -> None:
    provider.reply(*(Reply(status=status, retry_after=0) for _ in range(3 if status == 529 else 1)))
    with budget(max_usd=1) as b, pytest.raises((openai.APIStatusError, anthropic.APIStatusError)) as raised:
        ask()
    assert (b.calls_used, b.spent, b.held) == (0, 0, 0)
    [span] = exporter.get_finished_spans()
    assert (span.attributes or {})["error.type"] == raised.type.__name__
