"""`shekel.call_of`: id, usage and cost of a call, from whatever the SDK has returned."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import openai
import pytest
from pydantic import BaseModel

import shekel
from shekel import ShekelInstrumentor, budget, call_of, receipts
from shekel.testing import FakeProvider, Reply

from .conftest import (
    CLAUDE,
    HELLO,
    MODEL,
    ask,
    async_claude,
    async_client,
    billed,
    nano,
    stream,
)


class River(BaseModel):
    name: str


def read(opened: Any) -> Any:
    """A stream to its end."""
    for _ in opened:
        pass
    return opened


def raw_stream(response: Any) -> Any:
    read(response.parse())
    return response


Way = Callable[[openai.OpenAI, anthropic.Anthropic], Any]
"""What the program has in its hand once the answer is read."""

WAYS: dict[str, Way] = {
    "chat": lambda o, a: ask(o),
    "chat, raw": lambda o, a: o.chat.completions.with_raw_response.create(model=MODEL, messages=HELLO),
    "chat, raw and parsed": lambda o, a: o.chat.completions.with_raw_response.create(
        model=MODEL, messages=HELLO
    ).parse(),
    "chat, parsed": lambda o, a: o.chat.completions.parse(model=MODEL, messages=HELLO, response_format=River),
    "chat, stream": lambda o, a: read(stream(o)),
    "chat, raw stream": lambda o, a: raw_stream(
        o.chat.completions.with_raw_response.create(model=MODEL, messages=HELLO, stream=True)
    ),
    "responses": lambda o, a: o.responses.create(model=MODEL, input="Hello"),
    "responses, parsed": lambda o, a: o.responses.parse(model=MODEL, input="Hello", text_format=River),
    "responses, stream": lambda o, a: read(o.responses.create(model=MODEL, input="Hello", stream=True)),
    "responses, raw": lambda o, a: o.responses.with_raw_response.create(model=MODEL, input="Hello"),
    "messages": lambda o, a: a.messages.create(model=CLAUDE, max_tokens=64, messages=HELLO),
    "messages, raw": lambda o, a: a.messages.with_raw_response.create(model=CLAUDE, max_tokens=64, messages=HELLO),
    "messages, stream": lambda o, a: read(a.messages.create(model=CLAUDE, max_tokens=64, messages=HELLO, stream=True)),
    "messages, raw stream": lambda o, a: raw_stream(
        a.messages.with_raw_response.create(model=CLAUDE, max_tokens=64, messages=HELLO, stream=True)
    ),
    "messages, post": lambda o, a: a.post(
        "/v1/messages",
        cast_to=anthropic.types.Message,
        body={"model": CLAUDE, "max_tokens": 64, "messages": HELLO},
    ),
}


@pytest.fixture(params=[True, False], ids=["told", "silent"])
def instrumented(request: pytest.FixtureRequest) -> Iterator[None]:
    if not request.param:
        yield
        return
    ShekelInstrumentor().instrument()
    yield
    ShekelInstrumentor().uninstrument()


def same(receipt: Any, provider: FakeProvider, name: str | None = "b") -> None:
    """The receipt says what the provider's bill says."""
    total = billed(provider)
    [attempt] = provider.bill
    assert receipt.ended
    assert receipt.outcome == "complete"
    assert nano(receipt.cost) == total
    assert not receipt.estimated
    assert (receipt.usage.input, receipt.usage.output) == (attempt.input_tokens, attempt.output_tokens)
    assert receipt.budget == name


@pytest.mark.usefixtures("instrumented")
class TestEverySurface:
    @pytest.mark.parametrize("way", WAYS)
    def test_the_receipt_is_the_bill(
        self, provider: FakeProvider, client: openai.OpenAI, claude: anthropic.Anthropic, way: str
    ) -> None:
        provider.default = Reply(text='{"name": "Spree"}') if "parsed" in way else Reply()
        with budget(name="b") as b, budget():
            got = WAYS[way](client, claude)
        receipt = call_of(got)
        same(receipt, provider)
        assert b.summary_data()["calls"][0]["call_id"] == receipt.id
        assert receipt.model in (MODEL, CLAUDE)

    def test_helper_streams_of_chat(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        with budget(name="b"):
            with client.chat.completions.stream(model=MODEL, messages=HELLO) as opened:
                for number, _ in enumerate(opened):
                    if number == 20:
                        assert not call_of(opened).ended
        same(call_of(opened), provider)

    def test_helper_streams_of_responses(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        with budget(name="b"):
            with client.responses.stream(model=MODEL, input="Hello") as opened:
                response = opened.get_final_response()
        same(call_of(opened), provider)
        with pytest.raises(LookupError):
            call_of(response)  # put together by the helper: the stream is what belongs to the call

    def test_helper_streams_of_messages(self, provider: FakeProvider, claude: anthropic.Anthropic) -> None:
        with budget(name="b"):
            with claude.messages.stream(model=CLAUDE, max_tokens=64, messages=HELLO) as opened:
                assert opened.get_final_text()
        same(call_of(opened), provider)

    def test_with_streaming_response(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        with budget(name="b"):
            with client.chat.completions.with_streaming_response.create(model=MODEL, messages=HELLO) as response:
                assert not call_of(response).ended
                response.read()
        same(call_of(response), provider)

    def test_with_streaming_response_of_messages(self, provider: FakeProvider, claude: anthropic.Anthropic) -> None:
        with budget(name="b"):
            with claude.messages.with_streaming_response.create(
                model=CLAUDE, max_tokens=64, messages=HELLO
            ) as response:
                response.parse()
        same(call_of(response), provider)

    async def test_async(self, provider: FakeProvider) -> None:
        async def chat(o: Any, a: Any) -> Any:
            return await o.chat.completions.create(model=MODEL, messages=HELLO)

        async def chat_raw(o: Any, a: Any) -> Any:
            return await o.chat.completions.with_raw_response.create(model=MODEL, messages=HELLO)

        async def chat_stream(o: Any, a: Any) -> Any:
            opened = await o.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
            async for _ in opened:
                pass
            return opened

        async def chat_helper(o: Any, a: Any) -> Any:
            async with o.chat.completions.stream(model=MODEL, messages=HELLO) as opened:
                async for _ in opened:
                    pass
                return opened

        async def responses_helper(o: Any, a: Any) -> Any:
            async with o.responses.stream(model=MODEL, input="Hello") as opened:
                await opened.get_final_response()
                return opened

        async def messages(o: Any, a: Any) -> Any:
            return await a.messages.create(model=CLAUDE, max_tokens=64, messages=HELLO)

        async def messages_helper(o: Any, a: Any) -> Any:
            async with a.messages.stream(model=CLAUDE, max_tokens=64, messages=HELLO) as opened:
                await opened.get_final_message()
                return opened

        async def streaming(o: Any, a: Any) -> Any:
            async with o.chat.completions.with_streaming_response.create(model=MODEL, messages=HELLO) as response:
                await response.read()
                return response

        async with async_client(provider) as o, async_claude(provider) as a:
            for way in (
                chat, chat_raw, chat_stream, chat_helper, responses_helper, messages, messages_helper, streaming,
            ):  # fmt: skip
                async with budget(name="b"):
                    got = await way(o, a)
                same(call_of(got), provider)
                provider.bill.clear()


class TestReceipt:
    def test_an_open_stream_shows_what_it_has_cost_so_far(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        provider.default = Reply(output_tokens=400)
        with budget(name="live") as b:
            opened = stream(client)
            receipt = call_of(opened)
            seen = []
            for number, _ in enumerate(opened):
                if number in (100, 300):
                    seen.append(receipt.cost)
                    assert (receipt.ended, receipt.estimated, receipt.usage, receipt.outcome) == (
                        False, True, None, None,
                    )  # fmt: skip
                    assert receipt.cost == b.spent
                    assert "(estimated)" in repr(receipt)
        assert seen[0] < seen[1] < receipt.cost  # type: ignore[operator]
        assert receipt.budget == "live"
        same(receipt, provider, "live")

    def test_a_stream_that_was_left_is_an_estimate(self, client: openai.OpenAI) -> None:
        with budget() as b:
            opened = stream(client)
            next(opened)
            opened.close()
        receipt = call_of(opened)
        assert (receipt.ended, receipt.estimated, receipt.outcome) == (True, True, "closed")
        assert receipt.cost == b.spent
        assert receipt.budget is None

    def test_a_model_without_a_price_costs_nobody_knows_what(self, client: openai.OpenAI) -> None:
        with budget():
            receipt = call_of(ask(client, model="nobodys-model"))
        assert receipt.cost is None
        assert "cost unknown" in repr(receipt)
        assert receipt.usage is not None

    def test_the_fallback_is_the_model(self, client: openai.OpenAI) -> None:
        with budget("$0.0005", fallback={"at_pct": 1, "model": "gpt-4.1-nano"}, on_fallback=lambda *at: None):
            assert call_of(ask(client, model="gpt-4o", max_tokens=1000)).model == "gpt-4.1-nano"

    def test_with_an_options_copy_of_the_client(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        with budget(name="b"):
            same(call_of(ask(client.with_options(timeout=20))), provider)

    @pytest.mark.usefixtures("nothing_in_force")
    def test_what_is_no_answer_is_a_lookup_error(self, client: openai.OpenAI) -> None:
        for thing in (None, 5, "text", object(), client):
            with pytest.raises(LookupError, match="no call is known for this"):
                call_of(thing)
        unseen = ask(client)  # nobody looks: no budget, no instrument()
        with pytest.raises(LookupError, match="inside a budget, or after instrument"):
            call_of(unseen)

    def test_it_keeps_nothing_alive(self, client: openai.OpenAI) -> None:
        gc.collect()
        before = len(receipts._known)
        with budget():
            kept = [ask(client) for _ in range(20)]
            streams = [stream(client) for _ in range(5)]
            for each in streams:
                read(each)
        assert len(receipts._known) > before
        del kept, streams, each
        gc.collect()
        assert len(receipts._known) <= before

    def test_reconciled_by_its_id(self, client: openai.OpenAI) -> None:
        with budget() as b:
            receipt = call_of(ask(client))
        shekel.reconcile(receipt.id, 0.25)
        assert b.spent == 0.25
