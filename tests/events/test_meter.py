"""Explicit wrapping: one call in a scope, plain or streamed, without instrument() and without a block around it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import openai
import pytest

import shekel
from budgets.conftest import HELLO, MODEL, ask, ask_async, async_client, billed, nano, stream
from shekel import BudgetExceededError, ShekelInstrumentor, UsageEvent, ameter, budget, meter, per, scope
from shekel.runtime import the_runtime
from shekel.testing import FakeProvider

from .test_record import spent


@pytest.fixture(autouse=True)
def policies() -> Iterator[None]:
    """One policy, whose doors are taken off again: `meter` has to put them there itself."""
    shekel.configure(policies=[per("user.id", "$1/day")])
    the_runtime().release_doors()
    yield
    the_runtime().acquire_doors()
    shekel.configure(policies=[])


def test_a_plain_call_is_charged_and_returned_as_it_is(client: openai.OpenAI, provider: FakeProvider) -> None:
    answer = meter(lambda: ask(client), user_id="ada")
    assert type(answer).__module__.startswith("openai.")
    assert spent("ada") == billed(provider) == nano(shekel.call_of(answer).cost)
    ask(client)  # outside, nobody looks
    assert spent("ada") == provider.bill[0].cost


def test_a_stream_that_is_read_later_elsewhere(client: openai.OpenAI, provider: FakeProvider) -> None:
    the_runtime().usage_hosts = frozenset({"127.0.0.1"})
    opened = meter(lambda: stream(client), {"user.id": "ada"})
    the_runtime().usage_hosts = frozenset()
    assert isinstance(opened, openai.Stream)
    reader = threading.Thread(target=lambda: list(opened))
    with scope(user_id="bob"):
        reader.start()
        reader.join()
    assert spent("ada") == billed(provider) > 0
    assert spent("bob") == 0


async def test_the_async_twin(provider: FakeProvider) -> None:
    async with async_client(provider) as client:
        answer, other = await asyncio.gather(
            ameter(lambda: ask_async(client), user_id="ada"), ameter(lambda: ask_async(client), user_id="bob")
        )
        assert isinstance(answer, openai.types.chat.ChatCompletion)
        opened = await ameter(
            lambda: client.chat.completions.create(model=MODEL, messages=HELLO, stream=True), user_id="eve"
        )
        assert [chunk async for chunk in opened]
    assert spent("ada") == nano(shekel.call_of(answer).cost) > 0
    assert spent("bob") == nano(shekel.call_of(other).cost)
    assert spent("eve") > 0
    assert await ameter(lambda: 7) == 7


@pytest.mark.parametrize("instrumented", [False, True])
def test_inside_scopes_and_budgets_it_is_one_charge(
    instrumented: bool, client: openai.OpenAI, provider: FakeProvider
) -> None:
    events: list[UsageEvent] = []
    if instrumented:
        ShekelInstrumentor().instrument()
    try:
        with shekel.on_usage(events.append), budget() as b, scope(user_id="ada", team="red"):
            meter(lambda: meter(lambda: ask(client), session_id="s"), user_id="ada")
    finally:
        if instrumented:
            ShekelInstrumentor().uninstrument()
    assert spent("ada") == nano(b.spent) == billed(provider)
    [event] = events
    assert event.scope == {"user.id": "ada", "team": "red", "session.id": "s"}


def test_a_refusal_comes_before_any_chunk(client: openai.OpenAI, provider: FakeProvider) -> None:
    shekel.record(1, user_id="ada")
    for make in (ask, stream):
        with pytest.raises(BudgetExceededError) as refused:
            meter(lambda make=make: make(client), user_id="ada")  # type: ignore[misc]
        assert refused.value.scope == "user.id=ada"
    assert provider.requests == []


def test_what_the_call_raises_goes_through_and_the_doors_come_off(client: openai.OpenAI) -> None:
    users = the_runtime()._users
    with pytest.raises(KeyError):
        meter(lambda: {}["nothing"], user_id="ada")
    assert the_runtime()._users == users


async def test_an_async_call_in_the_sync_one_says_what_to_use(provider: FakeProvider) -> None:
    async with async_client(provider) as client:
        with pytest.raises(TypeError, match="ameter"):
            meter(lambda: ask_async(client), user_id="ada")
    assert provider.requests == []


@pytest.mark.parametrize("wrong", [((None,), {}), ((7,), {}), ((ask, "ada"), {}), ((ask,), {"user_id": ""})], ids=repr)
def test_what_makes_no_sense_is_refused(wrong: tuple[tuple[Any, ...], dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match=r"."):
        meter(*wrong[0], **wrong[1])
