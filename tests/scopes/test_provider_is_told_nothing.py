"""Nothing about who pays reaches the provider, with HTTP client instrumentation and the SDK's own tracing on.

Both write the baggage of the current context into every request. What is not about who pays they may send.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from opentelemetry import baggage
from opentelemetry import context as otel
from opentelemetry.instrumentation.httpx import HTTPX2ClientInstrumentor
from opentelemetry.sdk.trace import TracerProvider

import shekel
from shekel import ShekelInstrumentor, context, per, scope
from shekel.testing import FakeProvider, Reply

from .test_trust import HOUSE, arrived, header, signed

HELLO: list[Any] = [{"role": "user", "content": "Hello."}]
CHAT: dict[str, Any] = {"model": "gpt-4o-mini", "messages": HELLO, "max_tokens": 8}
CLAUDE: dict[str, Any] = {"model": "claude-haiku-4-5", "messages": HELLO, "max_tokens": 8}


class Clients:
    """A client of each kind, made while everything is instrumented."""

    def __init__(self, provider: FakeProvider, traced: TracerProvider) -> None:
        self.chat = openai.OpenAI(base_url=provider.openai_url, api_key="test", max_retries=2)
        self.async_chat = openai.AsyncOpenAI(base_url=provider.openai_url, api_key="test", max_retries=2)
        options: Any = {"tracer_provider": traced}
        self.claude = anthropic.Anthropic(base_url=provider.anthropic_url, api_key="test", open_telemetry=options)
        self.async_claude = anthropic.AsyncAnthropic(
            base_url=provider.anthropic_url, api_key="test", open_telemetry=options
        )


@pytest.fixture
def clients(provider: FakeProvider) -> Iterator[Clients]:
    provider.default = Reply(output_tokens=5)
    traced = TracerProvider()
    HTTPX2ClientInstrumentor().instrument(tracer_provider=traced)
    ShekelInstrumentor().instrument(tracer_provider=traced)
    shekel.configure(trust="signed", baggage_keys=[HOUSE], policies=[per("plan.id", "user.id", "$5")])
    made = Clients(provider, traced)
    with made.chat, made.claude:
        yield made
    ShekelInstrumentor().uninstrument()
    HTTPX2ClientInstrumentor().uninstrument()


async def _async_ways(clients: Clients) -> None:
    await clients.async_chat.chat.completions.create(**CHAT)
    async for _ in await clients.async_chat.chat.completions.create(**CHAT, stream=True):
        pass
    await clients.async_claude.messages.create(**CLAUDE)
    async with clients.async_claude.messages.stream(**CLAUDE) as stream:
        await stream.get_final_text()
    with contextlib.suppress(openai.APIError):
        await clients.async_chat.models.list()
    await clients.async_chat.close()
    await clients.async_claude.close()


def _ways(clients: Clients, provider: FakeProvider) -> None:
    clients.chat.chat.completions.create(**CHAT)
    list(clients.chat.chat.completions.create(**CHAT, stream=True))
    clients.chat.chat.completions.with_raw_response.create(**CHAT)
    clients.claude.messages.create(**CLAUDE)
    with clients.claude.beta.messages.stream(**CLAUDE) as stream:
        stream.get_final_message()
    provider.reply(Reply(status=500))  # a retry is a request of its own
    clients.chat.chat.completions.create(**CHAT)
    for other in (clients.chat.models.list, clients.claude.models.list, clients.chat.batches.list):
        with contextlib.suppress(openai.APIError, anthropic.APIError):
            other()


def _scope() -> contextlib.AbstractContextManager[Any]:
    return scope(user_id="ada", **{"plan.id": "pro", "team.id": "7"})


@contextlib.contextmanager
def _request() -> Iterator[None]:
    values = {"user.id": "ada", "plan.id": "pro", "team.id": "7"}
    token = otel.attach(arrived(header(signed(values))))
    yield
    otel.detach(token)


@contextlib.contextmanager
def _untrusted() -> Iterator[None]:
    values = {"user.id": "ada", "plan.id": "pro", "team.id": "7"}
    token = otel.attach(arrived(header(signed(values, key="x" * 32))))
    yield
    otel.detach(token)


PAYERS: dict[str, Callable[[], contextlib.AbstractContextManager[Any]]] = {
    "a scope of ours": _scope,
    "signed in a request": _request,
    "signed by strangers": _untrusted,
}


@pytest.mark.parametrize("payer", PAYERS.values(), ids=PAYERS)
@pytest.mark.parametrize("weather", [None, "fair"])
async def test_no_request_to_the_provider_names_the_payer(
    payer: Callable[[], Any], weather: str | None, clients: Clients, provider: FakeProvider
) -> None:
    with payer():
        here = context.current()
        token = otel.attach(here if weather is None else baggage.set_baggage("weather", weather, here))
        _ways(clients, provider)
        await _async_ways(clients)
        otel.detach(token)
    assert {request.path for request in provider.requests} >= {"/v1/models", "/v1/batches", "/v1/messages"}
    for request in provider.requests:
        assert "traceparent" in request.headers, "the instrumentation was on"
        assert request.headers.get("baggage") == (None if weather is None else "weather=fair")


def test_to_others_it_is_sent_as_the_readme_warns(provider: FakeProvider, clients: Clients) -> None:
    with scope(user_id="ada"), scope(tenant_id="acme", propagate=False), httpx2.Client(trust_env=False) as client:
        client.get(f"{provider.anthropic_url}/elsewhere")
    [request] = provider.requests
    sent = request.headers["baggage"]
    assert sent.startswith("user.id=ada,shekel.signature=1.")
    assert "acme" not in sent
