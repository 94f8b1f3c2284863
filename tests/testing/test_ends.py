"""Errors, drops, stalls and disconnects: what the SDKs raise, and what the stand-in bills."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from shekel.testing import Attempt, FakeProvider, Outcome, Reply

GPT, CLAUDE = "gpt-4.1-mini", "claude-haiku-4-5"
ASK: list[Any] = [{"role": "user", "content": "How much is the bread?"}]

Stream = Callable[[openai.OpenAI, anthropic.Anthropic], Iterator[Any]]


def chat(client: openai.OpenAI, claude: anthropic.Anthropic) -> Any:
    return client.chat.completions.create(model=GPT, messages=ASK, stream=True)


def responses(client: openai.OpenAI, claude: anthropic.Anthropic) -> Any:
    return client.responses.create(model=GPT, input="How much?", stream=True)


def messages(client: openai.OpenAI, claude: anthropic.Anthropic) -> Any:
    return claude.messages.create(model=CLAUDE, messages=ASK, max_tokens=1000, stream=True)


streams = pytest.mark.parametrize("stream", [chat, responses, messages])


def only(provider: FakeProvider) -> Attempt:
    provider.wait_idle()
    [attempt] = provider.bill
    return attempt


def read(events: Iterator[Any], into: list[Any]) -> None:
    for event in events:
        into.append(event)  # noqa: PERF402 - what came before an exception is what counts


def tokens_in(event: Any) -> int:
    """1 for an event that carries a piece of text."""
    if hasattr(event, "choices"):
        return bool(event.choices and event.choices[0].delta.content)
    return event.type in ("response.output_text.delta", "content_block_delta")


class TestErrors:
    @pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 409, 422, 429, 500, 502, 503, 504, 529])
    @streams
    def test_each_status_is_the_sdks_own_exception(
        self, provider: FakeProvider, client: openai.OpenAI, claude: anthropic.Anthropic, stream: Stream, status: int
    ) -> None:
        provider.reply(Reply(status=status, error="No bread today."))
        with pytest.raises((openai.APIStatusError, anthropic.APIStatusError)) as raised:
            stream(client, claude)
        assert raised.value.status_code == status
        assert "No bread today." in str(raised.value)
        attempt = only(provider)
        assert (attempt.status, attempt.cost, attempt.output_tokens) == (status, 0, 0)
        unbegun = status not in (408, 409, 500, 502, 504)
        assert attempt.outcome == (Outcome.REJECTED if unbegun else Outcome.ERROR)

    def test_the_error_objects_fields_can_be_set(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        provider.reply(Reply(status=429, error={"code": "insufficient_quota", "type": "insufficient_quota"}))
        with pytest.raises(openai.RateLimitError) as raised:
            client.responses.create(model=GPT, input="How much?")
        assert raised.value.code == "insufficient_quota"

    def test_retries_are_quick_and_each_is_an_attempt(self, provider: FakeProvider) -> None:
        provider.reply(Reply(status=500, bill_error=True), Reply(status=429), Reply(output_tokens=5))
        began = time.monotonic()
        with openai.OpenAI(base_url=provider.openai_url, api_key="test") as client:
            client.chat.completions.create(model=GPT, messages=ASK)
        assert time.monotonic() - began < 1.0  # the SDKs' own backoff for two retries is longer
        assert [attempt.outcome for attempt in provider.bill] == ["error", "rejected", "complete"]
        assert [attempt.output_tokens for attempt in provider.bill] == [64, 0, 5]
        costs = [attempt.cost or 0 for attempt in provider.bill]
        assert costs[0] > costs[2] > costs[1] == 0
        assert provider.bill.total == sum(costs)
        assert [seen.headers["x-stainless-retry-count"] for seen in provider.requests] == ["0", "1", "2"]

    @pytest.mark.parametrize(
        ("body", "says"),
        [
            ({"model": GPT}, "messages"),
            ({"messages": ASK}, "model"),
            ({"model": GPT, "messages": ASK, "n": 0}, "below minimum"),
            ({"model": GPT, "messages": ASK, "max_tokens": "9"}, "expected an integer"),
            ({"model": GPT, "messages": ASK, "stream_options": {}}, "stream_options"),
            ({"model": "gpt-5", "messages": ASK, "max_tokens": 9}, "max_completion_tokens"),
            ({"model": GPT, "messages": ASK, "tools": [{"type": "function"}]}, "malformed"),
        ],
    )
    def test_a_malformed_chat_is_refused(
        self, provider: FakeProvider, client: openai.OpenAI, body: dict[str, Any], says: str
    ) -> None:
        with pytest.raises(openai.BadRequestError, match=says):
            client.post("/chat/completions", body=body, cast_to=object)
        assert only(provider).cost == 0

    @pytest.mark.parametrize(
        ("body", "says"),
        [({"model": GPT}, "input"), ({"model": GPT, "input": "a", "max_output_tokens": 15}, "expected a value >= 16")],
    )
    def test_a_malformed_response_is_refused(self, client: openai.OpenAI, body: dict[str, Any], says: str) -> None:
        with pytest.raises(openai.BadRequestError, match=f"(?i){says}"):
            client.post("/responses", body=body, cast_to=object)

    @pytest.mark.parametrize(
        ("body", "says"),
        [
            ({"model": CLAUDE, "messages": ASK}, "max_tokens: Field required"),
            ({"model": CLAUDE, "messages": [], "max_tokens": 9}, "at least one message"),
            (
                {
                    "model": CLAUDE,
                    "messages": ASK,
                    "max_tokens": 1024,
                    "thinking": {"type": "enabled", "budget_tokens": 1024},
                },
                "must be greater than",
            ),
        ],
    )
    def test_a_malformed_message_is_refused(self, claude: anthropic.Anthropic, body: dict[str, Any], says: str) -> None:
        with pytest.raises(anthropic.BadRequestError, match=says):
            claude.post("/v1/messages", body=body, cast_to=object)

    def test_not_json_and_unknown_paths(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        answer = httpx2.post(f"{provider.openai_url}/chat/completions", content=b"{")
        assert answer.status_code == 400
        assert answer.json()["error"]["type"] == "invalid_request_error"
        with pytest.raises(openai.NotFoundError):
            client.embeddings.create(model="text-embedding-3-small", input="bread")
        assert provider.requests[-1].endpoint == "/v1/embeddings"
        assert provider.bill.total == 0


class TestReplies:
    def test_queue_then_decide_then_default(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        provider.default = Reply(text="default")
        provider.decide = lambda seen: Reply(text="decided") if seen.body["model"] == "gpt-4o" else None
        provider.reply(Reply(text="queued"))
        said = [client.responses.create(model=model, input="?").output_text for model in ("gpt-4o", "gpt-4o", GPT)]
        assert said == ["queued", "decided", "default"]

    def test_a_fault_in_decide_is_told_to_the_client(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        provider.decide = lambda seen: seen.body["nothing"]
        with pytest.raises(openai.BadRequestError, match="decide raised KeyError"):
            client.responses.create(model=GPT, input="?")

    def test_requests_are_kept_up_to_a_bound(self) -> None:
        with FakeProvider(keep_requests=2, text="ok") as provider:
            with openai.OpenAI(base_url=provider.openai_url, api_key="secret") as client:
                for said in "abc":
                    client.responses.create(model=GPT, input=said)
            assert [seen.body["input"] for seen in provider.requests] == ["b", "c"]
            assert provider.requests[0].headers["authorization"] == "Bearer secret"
            assert provider.requests[0].endpoint == "responses"


class TestOurEnds:
    @streams
    def test_a_drop_raises_what_a_reset_raises(
        self, provider: FakeProvider, client: openai.OpenAI, claude: anthropic.Anthropic, stream: Stream
    ) -> None:
        provider.reply(Reply(drop_after=5))
        got: list[Any] = []
        with pytest.raises((openai.APIConnectionError, httpx2.ReadError)):
            read(stream(client, claude), got)
        attempt = only(provider)
        assert sum(map(tokens_in, got)) == 5 == attempt.output_tokens
        assert attempt.outcome is Outcome.DROPPED
        assert provider.open_connections == 0

    @streams
    def test_a_drop_before_the_status_line(
        self, provider: FakeProvider, client: openai.OpenAI, claude: anthropic.Anthropic, stream: Stream
    ) -> None:
        provider.reply(Reply(drop_after=-1))
        with pytest.raises((openai.APIConnectionError, anthropic.APIConnectionError)):
            stream(client, claude)
        attempt = only(provider)
        assert (attempt.status, attempt.output_tokens) == (0, 0)
        assert attempt.cost

    @streams
    def test_an_early_end_of_the_body_raises_nothing(
        self, provider: FakeProvider, client: openai.OpenAI, claude: anthropic.Anthropic, stream: Stream
    ) -> None:
        provider.reply(Reply(eof_after=5))
        events = list(stream(client, claude))
        assert sum(map(tokens_in, events)) == 5 == only(provider).output_tokens
        assert getattr(events[-1], "type", None) not in ("response.completed", "message_stop")
        assert provider.bill[0].outcome is Outcome.EOF

    @pytest.mark.parametrize("stream", [chat, messages])
    def test_an_error_event_raises(
        self, provider: FakeProvider, client: openai.OpenAI, claude: anthropic.Anthropic, stream: Stream
    ) -> None:
        provider.reply(Reply(error_event_after=5, error="The oven broke."))
        with pytest.raises((openai.APIError, anthropic.APIStatusError), match="The oven broke"):
            list(stream(client, claude))
        attempt = only(provider)
        assert (attempt.outcome, attempt.output_tokens) == (Outcome.ERROR_EVENT, 5)

    def test_an_error_event_of_responses_is_handed_on(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        provider.reply(Reply(error_event_after=5, error="The oven broke."))
        events: list[Any] = list(client.responses.create(model=GPT, input="?", stream=True))
        assert [event.type for event in events[-2:]] == ["error", "response.failed"]
        assert events[-2].message == events[-1].response.error.message == "The oven broke."

    @streams
    @pytest.mark.parametrize("goes_on", [False, True])
    def test_a_stall_ends_by_the_clients_timeout(
        self,
        provider: FakeProvider,
        client: openai.OpenAI,
        claude: anthropic.Anthropic,
        stream: Stream,
        goes_on: bool,
    ) -> None:
        provider.reply(Reply(stall_after=5, keep_generating=goes_on))
        impatient = client.with_options(timeout=0.1), claude.with_options(timeout=0.1)
        with pytest.raises((openai.APITimeoutError, httpx2.ReadTimeout)):
            list(stream(*impatient))
        attempt = only(provider)
        assert attempt.output_tokens == (64 if goes_on else 5)
        assert attempt.outcome is Outcome.DISCONNECTED
        assert attempt.closed_at is not None

    def test_generation_lingers_after_a_drop_for_as_long_as_told(
        self, provider: FakeProvider, client: openai.OpenAI
    ) -> None:
        provider.default = Reply(output_tokens=1000, pace=0.002, drop_after=10, keep_generating=True, linger=0.1)
        with suppress(openai.APIConnectionError):
            list(chat(client, None))  # type: ignore[arg-type]
        attempt = only(provider)
        assert 10 + 40 <= attempt.output_tokens < 10 + 100
        assert attempt.closed_at is not None
        assert attempt.ended - attempt.closed_at >= 0.1

    def test_a_body_that_ended_early_does_not_hold_up_the_next_request(
        self, provider: FakeProvider, client: openai.OpenAI
    ) -> None:
        provider.reply(Reply(output_tokens=400, pace=0.0025, eof_after=5, keep_generating=True))
        began = time.monotonic()
        list(responses(client, None))  # type: ignore[arg-type]
        client.responses.create(model=GPT, input="?")
        assert time.monotonic() - began < 0.8
        provider.wait_idle()
        assert sorted(attempt.output_tokens for attempt in provider.bill) == [64, 400]


class TestDisconnects:
    @streams
    def test_generation_stops_within_its_pace(
        self, provider: FakeProvider, client: openai.OpenAI, claude: anthropic.Anthropic, stream: Stream
    ) -> None:
        pace = 0.01
        provider.default = Reply(output_tokens=500, pace=pace)
        got = 0
        events = stream(client, claude)
        for event in events:
            got += tokens_in(event)
            if got == 10:
                break
        assert provider.open_streams == 1
        events.close()  # type: ignore[attr-defined]
        closed = time.monotonic()
        attempt = only(provider)
        assert attempt.outcome is Outcome.DISCONNECTED
        assert attempt.closed_at is not None
        assert abs(attempt.closed_at - closed) < 0.25
        assert attempt.output_tokens == int((attempt.closed_at - attempt.started) / pace + 1e-6)
        assert attempt.output_tokens >= 10
        assert provider.open_streams == provider.open_connections == 0

    def test_generation_does_not_wait_for_a_slow_reader(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        provider.default = Reply(output_tokens=5000, pace=0.0001)
        events = chat(client, None)  # type: ignore[arg-type]
        next(events)
        time.sleep(0.3)
        events.close()
        assert only(provider).output_tokens >= 2500

    def test_without_a_pace_all_is_generated_at_once(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        provider.default = Reply(output_tokens=50_000)
        events = chat(client, None)  # type: ignore[arg-type]
        next(events)
        events.close()
        attempt = only(provider)
        assert (attempt.outcome, attempt.output_tokens) == (Outcome.DISCONNECTED, 50_000)

    @pytest.mark.parametrize(("pace", "least", "most"), [(0.0, 64, 64), (0.01, 3, 40)])
    def test_a_plain_answer_nobody_waits_for(
        self, provider: FakeProvider, client: openai.OpenAI, pace: float, least: int, most: int
    ) -> None:
        provider.default = Reply(delay=0.0 if pace else 5.0, pace=pace)
        with pytest.raises(openai.APITimeoutError):
            client.responses.create(model=GPT, input="?", timeout=0.1)
        attempt = only(provider)
        assert attempt.outcome is Outcome.DISCONNECTED
        assert least <= attempt.output_tokens <= most

    def test_a_client_that_leaves_before_the_first_token_pays_the_input(
        self, provider: FakeProvider, claude: anthropic.Anthropic
    ) -> None:
        provider.default = Reply(delay=5.0)
        with pytest.raises(anthropic.APITimeoutError):
            messages(None, claude.with_options(timeout=0.1))  # type: ignore[arg-type]
        attempt = only(provider)
        assert (attempt.output_tokens, attempt.status) == (0, 0)
        assert attempt.cost

    async def test_a_cancelled_task(self, provider: FakeProvider, async_client: openai.AsyncOpenAI) -> None:
        provider.default = Reply(output_tokens=500, pace=0.01)

        async def read() -> None:
            async for _ in await async_client.responses.create(model=GPT, input="?", stream=True):
                pass

        task = asyncio.create_task(read())
        await asyncio.sleep(0.15)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await asyncio.to_thread(provider.wait_idle)
        assert provider.bill[0].outcome is Outcome.DISCONNECTED
        assert provider.bill[0].output_tokens < 50


class TestManyAtOnce:
    async def test_two_hundred_streams(
        self, provider: FakeProvider, async_client: openai.AsyncOpenAI, async_claude: anthropic.AsyncAnthropic
    ) -> None:
        provider.default = Reply(output_tokens=20, pace=0.005)

        async def one(at: int) -> int:
            stream: Any
            if at % 2:
                stream = await async_claude.messages.create(model=CLAUDE, messages=ASK, max_tokens=99, stream=True)
            else:
                stream = await async_client.chat.completions.create(model=GPT, messages=ASK, stream=True)
            return sum([tokens_in(event) async for event in stream])

        assert await asyncio.gather(*(one(at) for at in range(200))) == [20] * 200
        assert len(provider.bill) == 200
        assert {attempt.outcome for attempt in provider.bill} == {Outcome.COMPLETE}
        assert provider.open_streams == 0

    def test_threads_share_a_client(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        def work() -> None:
            for _ in range(5):
                client.responses.create(model=GPT, input="?")

        threads = [threading.Thread(target=work) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(provider.bill) == 80
        assert len({attempt.id for attempt in provider.bill}) == 80


class TestKeepAlive:
    def test_one_connection_serves_many_requests(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        for _ in range(3):
            client.responses.create(model=GPT, input="?")
            list(responses(client, None))  # type: ignore[arg-type]
        assert provider.open_connections == 1
        client.close()
        provider.wait_idle()
        assert provider.open_connections == 0
        assert provider.bill[-1].closed_at is not None
