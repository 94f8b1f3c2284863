"""OpenAI Chat Completions."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessage

from shekel.estimation import Estimator, Rates, measure
from shekel.providers import find_endpoint
from shekel.usage import Usage

from .recorded import answered, check_answers, check_bounds, events, input_ratios, is_stream, output_ratios, reader_of

ENDPOINT = find_endpoint("openai", "POST", "/chat/completions")
RATES = Estimator().rates("m")


def true_input(usage: dict[str, Any]) -> int:
    return int(usage["prompt_tokens"])


def expected(record: dict[str, Any]) -> Usage:
    usage = record["usage"]
    sent, made = usage.get("prompt_tokens_details") or {}, usage.get("completion_tokens_details") or {}
    bodies: list[Any] = list(events(record)) if is_stream(record) else [json.loads(record["response_body"])]
    return Usage(
        input=usage["prompt_tokens"],
        output=usage["completion_tokens"],
        cache_read=sent.get("cached_tokens") or 0,
        cache_write=sent.get("cache_write_tokens") or 0,
        reasoning=made.get("reasoning_tokens") or 0,
        input_audio=sent.get("audio_tokens") or 0,
        output_audio=made.get("audio_tokens") or 0,
        input_image=sent.get("image_tokens") or 0,
        service_tier=next((body["service_tier"] for body in reversed(bodies) if body.get("service_tier")), None),
    )


def request(**body: Any) -> Any:
    assert ENDPOINT is not None
    return ENDPOINT.read_request({"model": "gpt-4o", "messages": [], **body})


def chunk(*choices: dict[str, Any], **fields: Any) -> ChatCompletionChunk:
    return ChatCompletionChunk.construct(
        **ChatCompletionChunk.model_validate(
            {
                "id": "c1",
                "created": 0,
                "model": "gpt-4o-2024",
                "object": "chat.completion.chunk",
                "choices": [{"index": i, "finish_reason": None, "delta": {}, **c} for i, c in enumerate(choices)],
                **fields,
            }
        ).__dict__
    )


class TestRecorded:
    def test_usage_is_that_of_the_provider(self, records: Any) -> None:
        assert check_answers(records("chat.completions"), expected) > 250

    def test_no_input_is_above_its_bound(self, records: Any) -> None:
        assert check_bounds(records("chat.completions"), true_input) > 200

    def test_estimates_are_near(self, records: Any, record_property: Any) -> None:
        sent = input_ratios(records("chat.completions"), true_input)
        made = output_ratios(records("chat.completions"))
        record_property("input", sent)
        record_property("output", made)
        assert 0.8 < sent["median"] < 1.25
        assert 0.8 < made["median"] < 1.35

    def test_a_whole_stream_has_its_end_and_no_more_than_one_usage_chunk(self, records: Any) -> None:
        seen = 0
        for record in answered(records("chat.completions")):
            if is_stream(record):
                reader = reader_of(record)
                extra = 0
                for event in events(record):
                    told = reader.feed(event)
                    assert told == reader.is_usage_only(event) or event.get("choices") is None, record["id"]
                    extra += reader.is_usage_only(event)
                assert extra <= 1
                assert reader.terminal or "error" in record["features"], record["id"]
                seen += 1
        assert seen > 100


class TestRequest:
    def test_reads_what_the_caller_asked(self) -> None:
        facts = request(
            stream=True, max_completion_tokens=9, n=3, seed=7, top_p=0.5, service_tier="flex", stop=["secret"],
            temperature=openai.NOT_GIVEN, user=openai.omit, stream_options={"include_usage": True},
        )  # fmt: skip
        assert (facts.stream, facts.cap, facts.cap_field, facts.choices) == (True, 9, "max_completion_tokens", 3)
        assert (facts.service_tier, facts.wants_usage, facts.unbounded) == ("flex", True, None)
        assert facts.attributes == {
            "gen_ai.request.model": "gpt-4o",
            "gen_ai.request.stream": True,
            "gen_ai.request.max_tokens": 9,
            "gen_ai.request.choice.count": 3,
            "gen_ai.request.seed": 7,
            "gen_ai.request.top_p": 0.5,
            "openai.request.service_tier": "flex",
        }

    @pytest.mark.parametrize(
        ("body", "field", "cap"),
        [
            ({}, "max_completion_tokens", None),
            ({"max_tokens": 5}, "max_tokens", 5),
            ({"max_tokens": None, "max_completion_tokens": 6}, "max_completion_tokens", 6),
            ({"model": "gpt-3.5-turbo"}, "max_tokens", None),
            ({"model": "o3"}, "max_completion_tokens", None),
        ],
    )
    def test_a_cap_goes_to_the_field_that_the_caller_or_the_model_uses(
        self, body: dict[str, Any], field: str, cap: int | None
    ) -> None:
        assert ENDPOINT is not None
        facts = request(**body)
        assert (facts.cap_field, facts.cap) == (field, cap)
        assert ENDPOINT.with_cap({"model": "gpt-4o", **body}, 3)[field] == 3

    @pytest.mark.parametrize(
        ("options", "wants"),
        [(None, None), ({}, None), ({"include_usage": False}, False), ({"include_usage": True}, True)],
    )
    def test_asking_for_usage_leaves_the_callers_own_dict_alone(self, options: Any, wants: bool | None) -> None:
        assert ENDPOINT is not None
        body = {"model": "m", "messages": [], "stream": True, "stream_options": options}
        before = None if options is None else dict(options)
        assert ENDPOINT.read_request(body).wants_usage is wants
        assert ENDPOINT.with_usage(body)["stream_options"] == {**(options or {}), "include_usage": True}
        assert body["stream_options"] == before

    def test_asking_for_usage_takes_a_sentinel_for_nothing(self) -> None:
        assert ENDPOINT is not None
        asked = ENDPOINT.with_usage({"model": "m", "stream_options": openai.NOT_GIVEN})
        assert asked["stream_options"] == {"include_usage": True}

    def test_media_is_no_text(self) -> None:
        url = "data:image/png;base64," + "A" * 100_000
        content = [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": url}}]
        facts = request(messages=[{"role": "user", "content": content}])
        assert facts.text == measure("look")
        assert facts.input_bound < 2_000

    def test_former_answers_of_the_sdk_count(self) -> None:
        message = ChatCompletionMessage.model_validate({"role": "assistant", "content": "früher"})
        assert request(messages=[message]).text == measure("früher")

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({"web_search_options": {}}, "web_search_options"),
            ({"model": "gpt-4o-search-preview"}, "model"),
            ({"something_new": 1}, "something_new"),
            ({"tools": [{"type": "mystery"}]}, "mystery"),
            ({"messages": (m for m in ())}, "messages"),
            ({"messages": [{"content": [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}]}]}, "url"),
            ({"messages": [{"content": [{"type": "file", "file": {"file_id": "f"}}]}]}, "file_id"),
            ({"messages": [{"content": [{"type": "input_audio", "input_audio": {"data": "AAAA"}}]}]}, "input_audio"),
            ({"messages": [{"role": "assistant", "audio": {"id": "a"}}]}, "audio"),
        ],
    )
    def test_says_what_makes_the_input_unbounded(self, body: dict[str, Any], field: str) -> None:
        facts = request(**body)
        assert (facts.unbounded, facts.input_bound) == (field, None)

    def test_an_iterator_is_not_used_up(self) -> None:
        messages = iter([{"role": "user", "content": "x"}])
        request(messages=messages)
        assert next(messages)["content"] == "x"


class TestStream:
    def reader(self, choices: int = 1, limit: int = 10**9) -> Any:
        assert ENDPOINT is not None
        reader = ENDPOINT.reader(request(n=choices), Rates(1000, 1000, 1000, 1000))
        reader.limit = limit
        return reader

    def test_all_generated_text_counts(self) -> None:
        reader = self.reader()
        call = {"index": 0, "function": {"name": "f", "arguments": "{}"}}
        for delta in (
            {"content": "a"},
            {"content": "bc"},
            {"content": "й"},
            {"refusal": "de"},
            {"tool_calls": [call]},
            {"function_call": {"name": "g", "arguments": "[]"}},
        ):
            reader.feed(chunk({"delta": delta}))
        assert reader.answer().text == measure("abcйdef{}g[]")

    def test_the_limit_is_told(self) -> None:
        reader = self.reader(limit=3_000)
        assert [reader.feed(chunk({"delta": {"content": "x"}})) for _ in range(5)] == [False, False, False, True, True]

    def test_ends_when_every_choice_has_finished(self) -> None:
        reader = self.reader(choices=2)
        reader.feed(chunk({"finish_reason": "stop"}))
        assert not reader.terminal
        reader.feed(chunk({}, {"finish_reason": "length"}))
        assert reader.terminal
        assert reader.answer().finish_reasons == ("stop", "length")

    def test_knows_the_extra_chunk(self) -> None:
        reader = self.reader()
        usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
        extra = chunk(usage=usage)
        assert reader.feed(extra)
        assert reader.is_usage_only(extra)
        assert not reader.is_usage_only(chunk())
        assert not reader.is_usage_only(chunk({}, usage=usage))
        assert reader.answer().usage == Usage(input=3, output=4)
        assert reader.answer().id == "c1"

    @pytest.mark.parametrize("odd", [None, 5, "x", {}, [], {"choices": 3}, {"choices": [None]}, object()])
    def test_whatever_comes_is_no_error(self, odd: Any) -> None:
        reader = self.reader()
        assert reader.feed(odd) is False
        assert reader.answer().usage is None
        assert not reader.is_usage_only(odd)
