"""Scoped clients: the client's own type and pool, and a scope that goes wherever its calls are made."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import openai
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import shekel
from shekel import BudgetExceededError, ShekelInstrumentor, per, scope, scoped_client
from shekel.testing import FakeProvider, Reply

HELLO: list[Any] = [{"role": "user", "content": "Hello."}]
CHAT: dict[str, Any] = {"model": "gpt-4o-mini", "messages": HELLO, "max_tokens": 8}
CLAUDE: dict[str, Any] = {"model": "claude-haiku-4-5", "messages": HELLO, "max_tokens": 8}


class Payers:
    """Who paid, by the spans."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def take(self) -> list[Any]:
        found = [(span.attributes or {}).get("user.id") for span in self.exporter.get_finished_spans()]
        self.exporter.clear()
        return found


@pytest.fixture
def payers(provider: FakeProvider) -> Iterator[Payers]:
    provider.default = Reply(output_tokens=5)
    payers = Payers()
    ShekelInstrumentor().instrument(tracer_provider=payers.provider)
    yield payers
    ShekelInstrumentor().uninstrument()


SYNC_OPENAI: dict[str, Callable[[Any], Any]] = {
    "create": lambda c: c.chat.completions.create(**CHAT),
    "stream": lambda c: list(c.chat.completions.create(**CHAT, stream=True)),
    "helper": lambda c: _read(c.chat.completions.stream(**CHAT)),
    "raw": lambda c: c.chat.completions.with_raw_response.create(**CHAT).parse(),
    "raw of the client": lambda c: c.with_raw_response.chat.completions.create(**CHAT).parse(),
    "streaming response": lambda c: _read(c.chat.completions.with_streaming_response.create(**CHAT)),
    "beta": lambda c: c.beta.chat.completions.parse(**CHAT),
    "responses": lambda c: c.responses.create(model="gpt-4o-mini", input="Hello."),
    "post": lambda c: c.post("/chat/completions", body=CHAT, cast_to=object),
    "with_options": lambda c: c.with_options(timeout=9).chat.completions.create(**CHAT),
    "copy of a copy": lambda c: c.copy().with_options(max_retries=0).chat.completions.create(**CHAT),
    "raw of a copy": lambda c: c.with_options(timeout=9).with_raw_response.chat.completions.create(**CHAT).parse(),
}
SYNC_ANTHROPIC: dict[str, Callable[[Any], Any]] = {
    "create": lambda c: c.messages.create(**CLAUDE),
    "stream": lambda c: list(c.messages.create(**CLAUDE, stream=True)),
    "helper": lambda c: _read(c.messages.stream(**CLAUDE)),
    "raw": lambda c: c.messages.with_raw_response.create(**CLAUDE).parse(),
    "beta": lambda c: c.beta.messages.create(**CLAUDE),
    "beta helper": lambda c: _read(c.beta.messages.stream(**CLAUDE)),
    "with_options": lambda c: c.with_options(timeout=9).messages.create(**CLAUDE),
    "copy": lambda c: c.copy().beta.messages.create(**CLAUDE),
    "middleware": lambda c: c.with_middleware(_through).messages.create(**CLAUDE),
}


def _read(opened: Any) -> None:
    with opened as stream:
        list(stream if hasattr(stream, "__iter__") else stream.iter_bytes())


def _through(request: Any, following: Any) -> Any:
    return following(request)


@pytest.mark.parametrize("way", SYNC_OPENAI.values(), ids=SYNC_OPENAI)
def test_openai_calls_carry_it(way: Callable[[Any], Any], client: openai.OpenAI, payers: Payers) -> None:
    mine = scoped_client(client, user_id="ada")
    way(mine)
    assert payers.take() == ["ada"]
    way(client)
    assert payers.take() == [None]


@pytest.mark.parametrize("way", SYNC_ANTHROPIC.values(), ids=SYNC_ANTHROPIC)
def test_anthropic_calls_carry_it(way: Callable[[Any], Any], claude: anthropic.Anthropic, payers: Payers) -> None:
    mine = scoped_client(claude, user_id="ada")
    way(mine)
    assert payers.take()[-1:] == ["ada"]
    way(claude)
    assert payers.take()[-1:] == [None]


async def test_async_clients_carry_it(provider: FakeProvider, payers: Payers) -> None:
    async with (
        openai.AsyncOpenAI(base_url=provider.openai_url, api_key="test", max_retries=0) as chat,
        anthropic.AsyncAnthropic(base_url=provider.anthropic_url, api_key="test", max_retries=0) as claude,
    ):
        ada, bob = scoped_client(chat, user_id="ada"), scoped_client(claude, user_id="bob")
        assert type(ada) is openai.AsyncOpenAI
        await ada.chat.completions.create(**CHAT)
        async for _ in await ada.with_options(timeout=9).chat.completions.create(**CHAT, stream=True):
            pass
        (await ada.with_raw_response.chat.completions.create(**CHAT)).parse()
        assert payers.take() == ["ada"] * 3
        await bob.messages.create(**CLAUDE)
        async with bob.copy().beta.messages.stream(**CLAUDE) as stream:
            await stream.get_final_text()
        assert payers.take()[-2:] == ["bob"] * 2
        await asyncio.gather(*(scoped_client(chat, user_id=n).chat.completions.create(**CHAT) for n in range(8)))
        assert sorted(payers.take()) == [str(n) for n in range(8)]


def test_it_is_the_clients_own_type_and_pool_and_leaves_it_as_it_is(client: openai.OpenAI) -> None:
    chat, before = client.chat, dict(vars(client))
    mine = scoped_client(client, user_id="ada")
    assert type(mine) is type(client)
    assert isinstance(mine, openai.OpenAI)
    assert mine._client is client._client
    assert mine.with_options(timeout=3)._client is client._client
    assert mine.with_options(timeout=3).timeout == 3
    assert vars(client) == before
    assert client.chat is chat
    assert mine.chat is not chat
    assert mine.chat is mine.chat
    assert (mine.base_url, mine.api_key, mine.max_retries) == (client.base_url, client.api_key, client.max_retries)
    assert mine.copy.__doc__ == client.copy.__doc__


def test_a_subclass_with_a_constructor_of_its_own(provider: FakeProvider, payers: Payers) -> None:
    class House(openai.OpenAI):
        def __init__(self, house: str) -> None:
            super().__init__(base_url=provider.openai_url, api_key="test")
            self.house = house

    with House("ours") as client:
        mine = scoped_client(client, user_id="ada")
        assert (type(mine), mine.house) == (House, "ours")
        mine.chat.completions.create(**CHAT)
    assert payers.take() == ["ada"]


def test_dropping_it_leaves_the_pool_open_and_either_may_go_first(provider: FakeProvider, payers: Payers) -> None:
    client = openai.OpenAI(base_url=provider.openai_url, api_key="test")
    mine = scoped_client(client, user_id="ada")
    mine.chat.completions.create(**CHAT)
    pool = client._client
    del mine
    gc.collect()
    assert not pool.is_closed
    mine = scoped_client(client, user_id="bob")
    del client
    gc.collect()
    mine.chat.completions.create(**CHAT)
    assert payers.take() == ["ada", "bob"]
    mine.close()
    assert pool.is_closed


def test_it_goes_before_the_scope_around_and_adds_to_it(client: openai.OpenAI, payers: Payers) -> None:
    mine = scoped_client(scoped_client(client, user_id="ada"), tenant_id="acme")
    with scope(user_id="eve", **{"team.id": "7"}):
        mine.chat.completions.create(**CHAT)
        client.chat.completions.create(**CHAT)
    first, second = payers.exporter.get_finished_spans()
    keys = ("user.id", "tenant.id", "team.id")
    assert [(first.attributes or {}).get(key) for key in keys] == ["ada", "acme", "7"]
    assert [(second.attributes or {}).get(key) for key in keys] == ["eve", None, "7"]


def test_policies_charge_it_and_the_stream_belongs_to_it(client: openai.OpenAI, provider: FakeProvider) -> None:
    shekel.configure(policies=[per("user.id", "1 calls")])
    ada, bob = scoped_client(client, user_id="ada"), scoped_client(client, user_id="bob")
    stream = ada.chat.completions.create(**CHAT, stream=True)
    with scope(user_id="eve"):
        list(stream)
    bob.chat.completions.create(**CHAT)
    for each, name in ((ada, "ada"), (bob, "bob"), (ada.with_options(timeout=5), "ada")):
        with pytest.raises(BudgetExceededError) as refused:
            each.chat.completions.create(**CHAT)
        assert refused.value.scope == f"user.id={name}"
    with scope(user_id="eve"):
        client.chat.completions.create(**CHAT)
    assert len(provider.requests) == 3


@pytest.mark.parametrize(
    ("given", "entries", "error"),
    [
        (openai.OpenAI, {"user_id": "ada"}, TypeError),
        (object(), {"user_id": "ada"}, TypeError),
        (None, {}, ValueError),
        (None, {"user_id": ""}, ValueError),
        (None, {"user id": "x"}, ValueError),
    ],
)
def test_what_makes_no_sense_is_refused(given: Any, entries: Any, error: Any, client: openai.OpenAI) -> None:
    with pytest.raises(error):
        scoped_client(client if given is None else given, **entries)
