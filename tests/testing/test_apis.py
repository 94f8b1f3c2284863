"""The real SDKs understand the stand-in, plain, streamed and through their helpers, and its bill is exact."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import ROUND_CEILING, Decimal
from typing import Any

import anthropic
import openai
import pytest
from genai_prices import Usage, calc_price
from pydantic import BaseModel

from shekel.testing import FakeProvider, Outcome, Reply, ToolCall, count
from shekel.testing.text import SCRIPTS

GPT, CLAUDE = "gpt-4.1-mini", "claude-haiku-4-5"
ASK: list[Any] = [{"role": "user", "content": "How much is the bread?"}]
WEATHER: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
CHAT_TOOL: Any = {"type": "function", "function": {"name": "weather", "parameters": WEATHER, "strict": True}}
RESPONSES_TOOL: Any = {"type": "function", "name": "weather", "parameters": WEATHER, "strict": True}
CLAUDE_TOOL: Any = {"name": "weather", "input_schema": WEATHER}


class Price(BaseModel):
    amount: int
    currency: str


def nano(provider: str, model: str, **usage: int) -> int:
    price = calc_price(Usage(**usage), model, provider_id=provider).total_price
    return int((price * 10**9).to_integral_value(rounding=ROUND_CEILING))


class TestPlain:
    def test_chat(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        answer = client.chat.completions.create(model=GPT, messages=ASK, n=2)
        assert [choice.finish_reason for choice in answer.choices] == ["stop", "stop"]
        texts = [choice.message.content or "" for choice in answer.choices]
        assert texts[0] != texts[1]
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 128 == sum(map(count, texts))
        assert answer.service_tier == "default"
        [attempt] = provider.bill
        assert attempt.cost == nano("openai", GPT, input_tokens=answer.usage.prompt_tokens, output_tokens=128)
        assert provider.bill.total == attempt.cost
        assert provider.bill.usd == Decimal(attempt.cost) / 10**9

    def test_responses(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        answer = client.responses.create(model=GPT, input="How much?", instructions="Be brief.")
        assert answer.status == "completed"
        assert answer.usage is not None
        assert answer.usage.output_tokens == 64 == count(answer.output_text)
        [attempt] = provider.bill
        assert attempt.cost == nano("openai", GPT, input_tokens=answer.usage.input_tokens, output_tokens=64)

    @pytest.mark.parametrize("beta", [False, True])
    def test_messages(self, provider: FakeProvider, claude: anthropic.Anthropic, beta: bool) -> None:
        create: Any = claude.beta.messages.create if beta else claude.messages.create
        answer = create(model=CLAUDE, messages=ASK, max_tokens=100)
        assert answer.stop_reason == "end_turn"
        assert answer.usage.output_tokens == 64 == count(answer.content[0].text)
        [attempt] = provider.bill
        assert attempt.cost == nano("anthropic", CLAUDE, input_tokens=answer.usage.input_tokens, output_tokens=64)

    async def test_async(
        self, provider: FakeProvider, async_client: openai.AsyncOpenAI, async_claude: anthropic.AsyncAnthropic
    ) -> None:
        await async_client.chat.completions.create(model=GPT, messages=ASK)
        await async_client.responses.create(model=GPT, input="How much?")
        await async_claude.messages.create(model=CLAUDE, messages=ASK, max_tokens=100)
        assert [attempt.endpoint for attempt in provider.bill] == ["chat.completions", "responses", "messages"]

    def test_exact_text_is_counted_by_the_public_tokenizer(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        text = 'Bread, 面包, 🍞: "3.20"\u2028\x85 done'
        provider.reply(Reply(text=text), Reply(text=text))
        answer = client.chat.completions.create(model=GPT, messages=ASK)
        assert answer.choices[0].message.content == text
        assert answer.usage is not None
        assert answer.usage.completion_tokens == count(text)
        stream = client.chat.completions.create(model=GPT, messages=ASK, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == text


class TestStreamed:
    @pytest.mark.parametrize("script", SCRIPTS)
    def test_chat_reports_usage_only_if_asked(self, provider: FakeProvider, client: openai.OpenAI, script: str) -> None:
        provider.default = Reply(script=script, output_tokens=40)
        plain = client.chat.completions.create(model=GPT, messages=ASK, stream=True)
        chunks = list(plain)
        assert all(chunk.choices and chunk.usage is None for chunk in chunks)
        assert chunks[0].choices[0].delta.role == "assistant"
        assert chunks[-1].choices[0].finish_reason == "stop"
        asked = list(
            client.chat.completions.create(model=GPT, messages=ASK, stream=True, stream_options={"include_usage": True})
        )
        assert asked[-1].choices == []
        assert asked[-1].usage is not None
        assert asked[-1].usage.completion_tokens == 40
        assert [attempt.output_tokens for attempt in provider.bill] == [40, 40]

    def test_chat_choices_are_interleaved(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        provider.default = Reply(output_tokens=10)
        stream = client.chat.completions.create(model=GPT, messages=ASK, stream=True, n=2)
        order = [chunk.choices[0].index for chunk in stream]
        assert order[:6] == [0, 1, 0, 1, 0, 1]
        assert provider.bill[0].output_tokens == 20

    def test_chunk_tokens_sets_the_size_of_a_delta(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        provider.default = Reply(output_tokens=20, chunk_tokens=8)
        stream = client.chat.completions.create(model=GPT, messages=ASK, stream=True)
        assert [count(c.choices[0].delta.content) for c in stream if c.choices[0].delta.content] == [8, 8, 4]

    def test_chat_helper(self, client: openai.OpenAI) -> None:
        with client.chat.completions.stream(model=GPT, messages=ASK, stream_options={"include_usage": True}) as stream:
            final = stream.get_final_completion()
        assert final.usage is not None
        assert final.usage.completion_tokens == count(final.choices[0].message.content or "") == 64

    def test_responses_events_come_in_the_providers_order(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        provider.default = Reply(output_tokens=2, reasoning_tokens=3)
        events = list(client.responses.create(model="gpt-5", input="How much?", stream=True))
        assert [event.type for event in events] == [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.output_item.done",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]
        assert [getattr(event, "sequence_number", None) for event in events] == list(range(12))

    def test_responses_helper(self, client: openai.OpenAI) -> None:
        with client.responses.stream(model=GPT, input="How much?") as stream:
            final = stream.get_final_response()
        assert final.usage is not None
        assert final.usage.output_tokens == count(final.output_text) == 64

    def test_messages_start_with_a_placeholder_and_end_with_the_count(
        self, provider: FakeProvider, claude: anthropic.Anthropic
    ) -> None:
        provider.default = Reply(output_tokens=3)
        stream = claude.messages.create(model=CLAUDE, messages=ASK, max_tokens=100, stream=True)
        events: list[Any] = list(stream)
        assert [event.type for event in events] == [
            "message_start",
            "content_block_start",
            *["content_block_delta"] * 3,
            "content_block_stop",
            "message_delta",
            "message_stop",
        ]
        assert events[0].message.usage.output_tokens != 3
        assert events[-2].usage.output_tokens == 3

    def test_messages_helper(self, claude: anthropic.Anthropic) -> None:
        with claude.messages.stream(model=CLAUDE, messages=ASK, max_tokens=100) as stream:
            text = "".join(stream.text_stream)
            final = stream.get_final_message()
        assert final.usage.output_tokens == count(text) == 64

    async def test_async(
        self, provider: FakeProvider, async_client: openai.AsyncOpenAI, async_claude: anthropic.AsyncAnthropic
    ) -> None:
        async for _ in await async_client.chat.completions.create(model=GPT, messages=ASK, stream=True):
            pass
        async with async_client.chat.completions.stream(model=GPT, messages=ASK) as chat:
            assert (await chat.get_final_completion()).choices[0].finish_reason == "stop"
        async with async_client.responses.stream(model=GPT, input="How much?") as responses:
            assert (await responses.get_final_response()).status == "completed"
        async with async_claude.messages.stream(model=CLAUDE, messages=ASK, max_tokens=100) as messages:
            assert (await messages.get_final_message()).stop_reason == "end_turn"
        assert [attempt.outcome for attempt in provider.bill] == [Outcome.COMPLETE] * 4
        assert provider.open_streams == 0


class TestCaps:
    def test_each_api_says_that_the_cap_cut_it(
        self, provider: FakeProvider, client: openai.OpenAI, claude: anthropic.Anthropic
    ) -> None:
        chat = client.chat.completions.create(model=GPT, messages=ASK, max_completion_tokens=20)
        assert chat.choices[0].finish_reason == "length"
        old = client.chat.completions.create(model=GPT, messages=ASK, max_tokens=20)
        assert old.choices[0].finish_reason == "length"
        responses = client.responses.create(model=GPT, input="How much?", max_output_tokens=20)
        assert responses.status == "incomplete"
        assert responses.incomplete_details is not None
        assert responses.incomplete_details.reason == "max_output_tokens"
        messages = claude.messages.create(model=CLAUDE, messages=ASK, max_tokens=20)
        assert messages.stop_reason == "max_tokens"
        assert [attempt.output_tokens for attempt in provider.bill] == [20] * 4

    def test_reasoning_is_inside_the_cap(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        provider.default = Reply(reasoning_tokens=100)
        answer = client.chat.completions.create(model="gpt-5", messages=ASK, max_completion_tokens=30)
        assert not answer.choices[0].message.content
        assert (provider.bill[0].output_tokens, provider.bill[0].reasoning_tokens) == (30, 30)


class TestUsage:
    def test_reasoning_is_billed_and_unseen(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        provider.default = Reply(output_tokens=10, reasoning_tokens=500)
        answer = client.responses.create(model="gpt-5", input="How much?")
        assert answer.usage is not None
        assert answer.usage.output_tokens == 510
        assert answer.usage.output_tokens_details.reasoning_tokens == 500
        assert count(answer.output_text) == 10
        assert provider.bill[0].reasoning_tokens == 500

    @pytest.mark.parametrize("show", [False, True])
    def test_thinking(self, provider: FakeProvider, claude: anthropic.Anthropic, show: bool) -> None:
        provider.default = Reply(output_tokens=10, reasoning_tokens=50, show_reasoning=show)
        with claude.messages.stream(
            model=CLAUDE,
            messages=ASK,
            max_tokens=2000,
            thinking={"type": "enabled", "budget_tokens": 1024},
        ) as stream:
            final = stream.get_final_message()
        thinking: Any = final.content[0]
        assert thinking.type == "thinking"
        assert thinking.signature
        assert count(thinking.thinking) == (50 if show else 0)
        assert final.usage.output_tokens == 60
        assert provider.bill[0].reasoning_tokens == 50

    def test_caches_are_reported_and_priced(
        self, provider: FakeProvider, client: openai.OpenAI, claude: anthropic.Anthropic
    ) -> None:
        provider.default = Reply(
            input_tokens=5000, cached_tokens=3000, cache_write_tokens=1500, cache_write_1h_tokens=500, output_tokens=9
        )
        usage = claude.messages.create(model=CLAUDE, messages=ASK, max_tokens=100).usage
        assert (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (
            500,
            3000,
            1500,
        )
        assert usage.cache_creation is not None
        assert usage.cache_creation.ephemeral_5m_input_tokens == 1000
        assert usage.cache_creation.ephemeral_1h_input_tokens == 500
        assert provider.bill[0].cost == nano(
            "anthropic",
            CLAUDE,
            input_tokens=5000,
            output_tokens=9,
            cache_read_tokens=3000,
            cache_write_tokens=1500,
            cache_write_1h_tokens=500,
        )
        provider.default = Reply(input_tokens=5000, cached_tokens=3000, output_tokens=9)
        chat = client.chat.completions.create(model=GPT, messages=ASK).usage
        assert chat is not None
        assert chat.prompt_tokens_details is not None
        assert (chat.prompt_tokens, chat.prompt_tokens_details.cached_tokens) == (5000, 3000)
        assert provider.bill[1].cost == nano("openai", GPT, input_tokens=5000, output_tokens=9, cache_read_tokens=3000)

    def test_a_tier_is_echoed_and_priced(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        answer = client.responses.create(model="gpt-5", input="How much?", service_tier="flex")
        client.responses.create(model="gpt-5", input="How much?")
        assert answer.service_tier == "flex"
        flex, default = provider.bill
        assert flex.cost is not None
        assert default.cost is not None
        assert flex.cost < default.cost

    def test_usage_can_be_withheld(
        self, provider: FakeProvider, client: openai.OpenAI, claude: anthropic.Anthropic
    ) -> None:
        provider.default = Reply(usage=False)
        assert client.chat.completions.create(model=GPT, messages=ASK).usage is None
        asked = client.chat.completions.create(
            model=GPT, messages=ASK, stream=True, stream_options={"include_usage": True}
        )
        assert all(chunk.usage is None for chunk in asked)
        assert client.responses.create(model=GPT, input="How much?").usage is None
        with client.responses.stream(model=GPT, input="How much?") as stream:
            assert stream.get_final_response().usage is None
        assert claude.messages.create(model=CLAUDE, messages=ASK, max_tokens=100).usage is None
        with claude.messages.stream(model=CLAUDE, messages=ASK, max_tokens=100) as messages:
            assert messages.get_final_message().usage.output_tokens is None
        assert [attempt.output_tokens for attempt in provider.bill] == [64] * 6

    def test_another_model_may_answer_and_is_billed(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        provider.reply(Reply(model="gpt-4o-2024-08-06"))
        assert client.chat.completions.create(model=GPT, messages=ASK).model == "gpt-4o-2024-08-06"
        [attempt] = provider.bill
        assert attempt.cost == nano("openai", "gpt-4o", input_tokens=attempt.input_tokens, output_tokens=64)

    def test_an_unknown_price_is_not_zero(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        client.chat.completions.create(model="my-own-model", messages=ASK)
        assert provider.bill[0].cost is None
        assert provider.bill.unpriced == provider.bill.attempts


class TestPrompt:
    def test_a_short_prompt_counts_what_the_real_ones_count(
        self, provider: FakeProvider, client: openai.OpenAI, claude: anthropic.Anthropic
    ) -> None:
        # OpenAI's cookbook: 3 per message, 1 for the role, 3 for the answer.
        client.chat.completions.create(model=GPT, messages=[{"role": "user", "content": "one"}])
        client.responses.create(model=GPT, input="one")
        claude.messages.create(model=CLAUDE, max_tokens=10, messages=[{"role": "user", "content": "one"}])
        assert [attempt.input_tokens for attempt in provider.bill] == [8, 8, 8]

    def test_anthropic_adds_its_documented_prompt_for_tools(
        self, provider: FakeProvider, claude: anthropic.Anthropic
    ) -> None:
        claude.messages.create(model=CLAUDE, messages=ASK, max_tokens=10)
        claude.messages.create(model=CLAUDE, messages=ASK, max_tokens=10, tools=[CLAUDE_TOOL])
        claude.messages.create(
            model=CLAUDE, messages=ASK, max_tokens=10, tools=[CLAUDE_TOOL], tool_choice={"type": "any"}
        )
        schema = count(json.dumps(CLAUDE_TOOL, separators=(",", ":")))
        plain, auto, forced = (attempt.input_tokens for attempt in provider.bill)
        assert auto - plain == 346 + schema
        assert forced - plain == 313 + schema

    def test_pictures_are_not_counted_as_text(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 9000}}
        content: Any = [{"type": "text", "text": ""}, picture]
        client.chat.completions.create(model=GPT, messages=[{"role": "user", "content": content}])
        assert provider.bill[0].input_tokens == 7 + 85


def _chat(client: openai.OpenAI, claude: anthropic.Anthropic) -> tuple[str, Any]:
    answer = client.chat.completions.create(model=GPT, messages=ASK, tools=[CHAT_TOOL])
    assert answer.choices[0].finish_reason == "tool_calls"
    assert answer.choices[0].message.tool_calls is not None
    call: Any = answer.choices[0].message.tool_calls[0]
    return call.function.name, json.loads(call.function.arguments)


def _chat_stream(client: openai.OpenAI, claude: anthropic.Anthropic) -> tuple[str, Any]:
    with client.chat.completions.stream(model=GPT, messages=ASK, tools=[CHAT_TOOL]) as stream:
        answer = stream.get_final_completion()
    assert answer.choices[0].message.tool_calls is not None
    call = answer.choices[0].message.tool_calls[0]
    return call.function.name, json.loads(call.function.arguments)


def _responses(client: openai.OpenAI, claude: anthropic.Anthropic) -> tuple[str, Any]:
    call: Any = client.responses.create(model=GPT, input="How much?", tools=[RESPONSES_TOOL]).output[0]
    return call.name, json.loads(call.arguments)


def _responses_stream(client: openai.OpenAI, claude: anthropic.Anthropic) -> tuple[str, Any]:
    with client.responses.stream(model=GPT, input="How much?", tools=[RESPONSES_TOOL]) as stream:
        call: Any = stream.get_final_response().output[0]
    return call.name, json.loads(call.arguments)


def _messages(client: openai.OpenAI, claude: anthropic.Anthropic) -> tuple[str, Any]:
    answer = claude.messages.create(model=CLAUDE, messages=ASK, max_tokens=100, tools=[CLAUDE_TOOL])
    assert answer.stop_reason == "tool_use"
    call: Any = answer.content[0]
    return call.name, call.input


def _messages_stream(client: openai.OpenAI, claude: anthropic.Anthropic) -> tuple[str, Any]:
    with claude.messages.stream(model=CLAUDE, messages=ASK, max_tokens=100, tools=[CLAUDE_TOOL]) as stream:
        call: Any = stream.get_final_message().content[0]
    return call.name, call.input


WAYS = [_chat, _chat_stream, _responses, _responses_stream, _messages, _messages_stream]


class TestTools:
    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize("arguments", [None, {"city": "Überlingen"}])
    def test_a_scripted_call_arrives(
        self,
        provider: FakeProvider,
        client: openai.OpenAI,
        claude: anthropic.Anthropic,
        way: Callable[[openai.OpenAI, anthropic.Anthropic], tuple[str, Any]],
        arguments: dict[str, str] | None,
    ) -> None:
        provider.default = Reply(tool_call=ToolCall("weather", arguments))
        assert way(client, claude) == ("weather", arguments or {"city": "word"})
        assert provider.bill[0].output_tokens > count('{"city":"word"}')

    def test_a_forced_choice_needs_no_script(self, client: openai.OpenAI, claude: anthropic.Anthropic) -> None:
        chat = client.chat.completions.create(model=GPT, messages=ASK, tools=[CHAT_TOOL], tool_choice="required")
        assert chat.choices[0].finish_reason == "tool_calls"
        messages = claude.messages.create(
            model=CLAUDE,
            messages=ASK,
            max_tokens=100,
            tools=[CLAUDE_TOOL],
            tool_choice={"type": "tool", "name": "weather"},
        )
        assert messages.stop_reason == "tool_use"

    def test_several_calls_after_a_text(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        provider.default = Reply(text="Let me see.", tool_call=(ToolCall(), ToolCall("weather", {"city": "Rome"})))
        with client.chat.completions.stream(model=GPT, messages=ASK, tools=[CHAT_TOOL]) as stream:
            message = stream.get_final_completion().choices[0].message
        assert message.content == "Let me see."
        assert message.tool_calls is not None
        assert [json.loads(call.function.arguments)["city"] for call in message.tool_calls] == ["word", "Rome"]


class TestParse:
    def test_openai(self, client: openai.OpenAI) -> None:
        chat = client.chat.completions.parse(model=GPT, messages=ASK, response_format=Price)
        assert isinstance(chat.choices[0].message.parsed, Price)
        responses = client.responses.parse(model=GPT, input="How much?", text_format=Price)
        assert isinstance(responses.output_parsed, Price)
        with client.responses.stream(model=GPT, input="How much?", text_format=Price) as stream:
            assert isinstance(stream.get_final_response().output_parsed, Price)

    def test_anthropic(self, claude: anthropic.Anthropic) -> None:
        parsed = claude.messages.parse(model=CLAUDE, messages=ASK, max_tokens=100, output_format=Price)
        assert isinstance(parsed.parsed_output, Price)

    def test_a_cap_breaks_the_answer_after_it_was_paid(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        with pytest.raises(openai.LengthFinishReasonError):
            client.chat.completions.parse(model=GPT, messages=ASK, response_format=Price, max_completion_tokens=2)
        assert provider.bill[0].output_tokens == 2
        assert provider.bill.total > 0
