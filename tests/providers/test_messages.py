"""Anthropic Messages."""

from __future__ import annotations

from typing import Any

import pytest
from anthropic.types import TextBlock, ToolUseBlock

from shekel.estimation import Estimator, Rates, measure
from shekel.providers import find_endpoint
from shekel.usage import ModelUsage, Usage

from .recorded import (
    answered,
    check_answers,
    check_bounds,
    events,
    input_ratios,
    is_stream,
    output_ratios,
    reader_of,
)

ENDPOINT = find_endpoint("anthropic", "POST", "/v1/messages")
RATES = Estimator().rates("m")


def true_input(usage: dict[str, Any]) -> int:
    return sum(
        usage.get(name) or 0 for name in ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    )


def plain(usage: dict[str, Any]) -> Usage:
    split = usage.get("cache_creation") or {}
    written = usage.get("cache_creation_input_tokens") or 0
    hour, five = split.get("ephemeral_1h_input_tokens", 0), split.get("ephemeral_5m_input_tokens", 0)
    return Usage(
        input=true_input(usage),
        output=usage["output_tokens"],
        cache_read=usage.get("cache_read_input_tokens") or 0,
        cache_write=written,
        cache_write_1h=written if hour and not five else hour,
        reasoning=(usage.get("output_tokens_details") or {}).get("thinking_tokens", 0),
        web_searches=(usage.get("server_tool_use") or {}).get("web_search_requests", 0),
        service_tier=usage.get("service_tier"),
        speed=usage.get("speed"),
    )


def expected(record: dict[str, Any]) -> Usage:
    usage = record["usage"]
    passes = usage.get("iterations") or []
    beside = [one for one in passes if one["type"] in ("compaction", "advisor_message")]
    main = plain(usage)
    if passes:  # what is in the totals is exactly the rest
        assert main.input == sum(true_input(one) for one in passes if one not in beside)
        assert main.output == sum(one["output_tokens"] for one in passes if one not in beside)
    return Usage(
        **{name: getattr(main, name) for name in Usage.__dataclass_fields__ if name != "also"},
        also=tuple(ModelUsage(one.get("model"), plain(one)) for one in beside),
    )


def request(**body: Any) -> Any:
    assert ENDPOINT is not None
    return ENDPOINT.read_request({"model": "claude-sonnet-4-5", "max_tokens": 10, "messages": [], **body})


class TestRecorded:
    def test_usage_is_that_of_the_provider(self, records: Any) -> None:
        assert check_answers(records("messages"), expected) > 250

    def test_no_input_is_above_its_bound(self, records: Any) -> None:
        assert check_bounds(records("messages"), true_input) > 200

    def test_estimates_are_near(self, records: Any, record_property: Any) -> None:
        sent, made = input_ratios(records("messages"), true_input), output_ratios(records("messages"))
        record_property("input", sent)
        record_property("output", made)
        assert 0.8 < sent["median"] < 1.25
        assert 0.8 < made["median"] < 1.25

    def test_input_is_known_from_the_start_and_usage_only_at_the_end(self, records: Any) -> None:
        seen = 0
        for record in answered(records("messages")):
            if not is_stream(record):
                continue
            reader = reader_of(record)
            assert reader.input_tokens() is None
            for event in events(record):
                if event["type"] == "message_delta":
                    break
                reader.feed(event)
                if event["type"] == "message_start":
                    assert reader.input_tokens() == true_input(event["message"]["usage"])
            assert reader.answer().usage is None
            assert not reader.terminal
            seen += 1
        assert seen > 100


class TestRequest:
    def test_reads_what_the_caller_asked(self) -> None:
        facts = request(
            stream=True, max_tokens=300, service_tier="auto", speed="fast", temperature=0.5, stop_sequences=["x"],
            thinking={"type": "enabled", "budget_tokens": 200},
        )  # fmt: skip
        assert (facts.model, facts.stream, facts.cap, facts.min_cap) == ("claude-sonnet-4-5", True, 300, 201)
        assert (facts.service_tier, facts.speed) == ("auto", "fast")
        assert facts.attributes == {
            "gen_ai.request.model": "claude-sonnet-4-5",
            "gen_ai.request.max_tokens": 300,
            "gen_ai.request.temperature": 0.5,
            "gen_ai.request.stream": True,
        }

    def test_text_is_all_text_and_no_media(self) -> None:
        image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 10_000}}
        facts = request(
            system=[{"type": "text", "text": "S" * 100}],
            messages=[{"role": "user", "content": [{"type": "text", "text": "é" * 50}, image]}],
        )
        assert (facts.text.one, facts.text.two) == (100, 100)
        assert facts.input_bound < 3_000
        assert facts.extra_input >= 1_600

    def test_blocks_of_former_answers_count(self) -> None:
        blocks = [
            TextBlock(type="text", text="hello", citations=None),
            ToolUseBlock(type="tool_use", id="t1", name="add", input={"type": "x", "n": 5}),
        ]
        facts = request(messages=({"role": "assistant", "content": blocks},))
        assert facts.unbounded is None
        assert facts.text.one >= len("helloaddtypexn")

    def test_tools_bring_the_published_prompt(self) -> None:
        tool = {"name": "f", "description": "", "input_schema": {"type": "object"}}
        auto, forced = request(tools=[tool]), request(tools=[tool], tool_choice={"type": "any"})
        assert forced.extra_input - auto.extra_input == 588 - 496
        assert auto.input_bound > 588

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "web_search_20250305"),
            ({"mcp_servers": [{}]}, "mcp_servers"),
            ({"container": "c"}, "container"),
            ({"context_management": {"edits": [{"type": "compact_20260112"}]}}, "context_management"),
            ({"something_new": 1}, "something_new"),
            ({"messages": iter([])}, "messages"),
            (
                {"messages": [{"content": [{"type": "image", "source": {"type": "url", "url": "https://x"}}]}]},
                "url",
            ),
            (
                {"messages": [{"content": [{"type": "document", "source": {"type": "file", "file_id": "f"}}]}]},
                "document",
            ),
        ],
    )
    def test_says_what_makes_the_input_unbounded(self, body: dict[str, Any], field: str) -> None:
        facts = request(**body)
        assert (facts.unbounded, facts.input_bound) == (field, None)

    def test_a_cap_is_written_to_a_copy(self) -> None:
        assert ENDPOINT is not None
        body = {"model": "m", "max_tokens": 5}
        assert ENDPOINT.with_cap(body, 3) == {"model": "m", "max_tokens": 3}
        assert ENDPOINT.with_usage(body) == body == {"model": "m", "max_tokens": 5}


class TestStream:
    def test_passing_the_limit_is_told_by_the_chunk_that_passes_it(self) -> None:
        assert ENDPOINT is not None
        reader = ENDPOINT.reader(request(), Rates(1000, 1000, 1000, 1000))
        reader.limit = 10_000

        def delta(**fields: str) -> dict[str, Any]:
            return {"type": "content_block_delta", "delta": fields}

        assert reader.feed(delta(text="12345")) is False
        assert reader.feed(delta(partial_json="12345")) is False
        assert reader.feed(delta(thinking="1")) is True
        assert reader.answer().text == measure("12345123451")

    @pytest.mark.parametrize("odd", [None, 5, {}, [], {"type": "message_delta", "usage": 3}, object(), {"type": []}])
    def test_whatever_comes_is_no_error(self, odd: Any) -> None:
        assert ENDPOINT is not None
        reader = ENDPOINT.reader(request(), RATES)
        reader.limit = 10
        assert reader.feed(odd) is False
        assert reader.answer().usage is None

    def test_totals_replace_and_never_add(self) -> None:
        assert ENDPOINT is not None
        reader = ENDPOINT.reader(request(), RATES)
        start = {"input_tokens": 10, "cache_creation_input_tokens": 5, "output_tokens": 8, "service_tier": "standard"}
        reader.feed({"type": "message_start", "message": {"id": "m1", "model": "c", "usage": start}})
        reader.feed({"type": "message_delta", "delta": {}, "usage": {"output_tokens": 20}})
        assert reader.answer().usage is None
        reader.feed({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 30}})
        answer = reader.answer()
        assert answer.usage == Usage(input=15, output=30, cache_write=5, service_tier="standard")
        assert (answer.id, answer.model, answer.finish_reasons) == ("m1", "c", ("end_turn",))
