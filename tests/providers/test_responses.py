"""OpenAI Responses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shekel.estimation import Estimator, Rates, measure
from shekel.providers import find_endpoint
from shekel.usage import ModelUsage, Usage

from .recorded import answered, check_answers, check_bounds, events, input_ratios, is_stream, output_ratios, reader_of

ENDPOINT = find_endpoint("openai", "POST", "/responses")


def true_input(usage: dict[str, Any]) -> int:
    return int(usage["input_tokens"])


def final(record: dict[str, Any]) -> dict[str, Any]:
    if not is_stream(record):
        return dict(json.loads(record["response_body"]))
    return dict([event["response"] for event in events(record) if "response" in event][-1])


def expected(record: dict[str, Any]) -> Usage:
    usage, response = record["usage"], final(record)
    kinds = [item["type"] for item in response.get("output") or []]
    searches = [
        item
        for item in response.get("output") or []
        if item["type"] == "web_search_call" and (item.get("action") or {"type": "search"})["type"] == "search"
    ]
    counted = ((response.get("tool_usage") or {}).get("web_search") or {}).get("num_requests")
    return Usage(
        input=usage["input_tokens"],
        output=usage["output_tokens"],
        cache_read=usage["input_tokens_details"].get("cached_tokens") or 0,
        cache_write=usage["input_tokens_details"].get("cache_write_tokens") or 0,
        reasoning=usage["output_tokens_details"]["reasoning_tokens"],
        web_searches=len(searches) if counted is None else counted,
        storage_searches=kinds.count("file_search_call"),
        code_executions=kinds.count("code_interpreter_call"),
        service_tier=response.get("service_tier"),
        also=image_pass(response),
    )


def image_pass(response: dict[str, Any]) -> tuple[ModelUsage, ...]:
    made = (response.get("tool_usage") or {}).get("image_gen") or {}
    if not made.get("total_tokens"):
        return ()
    tool = next(t for t in response["tools"] if t["type"] == "image_generation")
    return (
        ModelUsage(
            tool.get("model") or "gpt-image-1",
            Usage(
                input=made["input_tokens"],
                output=made["output_tokens"],
                input_image=made["input_tokens_details"]["image_tokens"],
                output_image=(made.get("output_tokens_details") or {}).get("image_tokens", 0),
            ),
        ),
    )


def request(**body: Any) -> Any:
    assert ENDPOINT is not None
    return ENDPOINT.read_request({"model": "gpt-5", "input": "", **body})


class TestRecorded:
    @pytest.mark.parametrize(("api", "least"), [("responses", 250), ("responses.compact", 3)])
    def test_usage_is_that_of_the_provider(self, records: Any, api: str, least: int) -> None:
        assert check_answers(records(api), expected) > least

    @pytest.mark.parametrize(("api", "least"), [("responses", 190), ("responses.compact", 2)])
    def test_no_input_is_above_its_bound(self, records: Any, api: str, least: int) -> None:
        assert check_bounds(records(api), true_input) > least

    def test_estimates_are_near(self, records: Any, record_property: Any) -> None:
        sent, made = input_ratios(records("responses"), true_input), output_ratios(records("responses"))
        record_property("input", sent)
        record_property("output", made)
        assert 0.8 < sent["median"] < 1.25
        assert 0.8 < made["median"] < 1.25

    def test_usage_comes_with_the_event_that_ends_the_stream(self, records: Any) -> None:
        seen = 0
        for record in answered(records("responses")):
            if is_stream(record) and record["usage"] is not None:
                reader = reader_of(record)
                for event in events(record):
                    if event["type"] in ("response.completed", "response.incomplete", "response.failed"):
                        assert reader.answer().usage is None
                        assert not reader.terminal
                    reader.feed(event)
                assert reader.terminal
                assert reader.answer().usage is not None
                seen += 1
        assert seen > 100

    def test_background_work_is_pending(self, records: Any) -> None:
        assert ENDPOINT is not None
        seen = 0
        for record in answered(records("responses")):
            if not is_stream(record) and record["usage"] is None:
                answer = ENDPOINT.read_answer(json.loads(record["response_body"]))
                assert answer.pending == (answer.finish_reasons[0] in ("queued", "in_progress"))
                assert ENDPOINT.read_request(record["request"]).background
                seen += answer.pending
        assert seen


class TestRequest:
    def test_reads_what_the_caller_asked(self) -> None:
        facts = request(input="hi", instructions="be", max_output_tokens=50, service_tier="priority", background=True)
        assert (facts.cap, facts.cap_field, facts.min_cap) == (50, "max_output_tokens", 16)
        assert (facts.background, facts.service_tier) == (True, "priority")
        assert facts.text == measure("hibe")
        assert facts.attributes["gen_ai.request.max_tokens"] == 50

    def test_ids_of_former_items_are_no_text_and_encrypted_reasoning_is_bounded(self) -> None:
        items = [
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x" * 1_000},
            {"type": "message", "id": "msg_1", "role": "assistant", "content": [{"type": "output_text", "text": "ok"}]},
        ]
        facts = request(input=items)
        assert facts.text == measure("ok")
        assert 1_000 < facts.input_bound < 1_300

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({"previous_response_id": "r"}, "previous_response_id"),
            ({"conversation": "c"}, "conversation"),
            ({"prompt": {"id": "p"}}, "prompt"),
            ({"tools": [{"type": "web_search"}]}, "web_search"),
            ({"tools": [{"type": "mcp"}]}, "mcp"),
            ({"reasoning": {"mode": "pro"}}, "reasoning.mode"),
            ({"context_management": [{"type": "compaction"}]}, "context_management"),
            ({"input": [{"type": "item_reference", "id": "x"}]}, "item_reference"),
            ({"input": [{"type": "reasoning", "id": "rs_1"}]}, "reasoning"),
            ({"input": [{"content": [{"type": "input_image", "image_url": "https://x/y.png"}]}]}, "url"),
            ({"input": [{"content": [{"type": "input_image", "file_id": "f"}]}]}, "file_id"),
            ({"input": [{"content": [{"type": "input_file", "file_id": "f"}]}]}, "file_id"),
            ({"input": [{"content": [{"type": "input_file", "file_data": "data:;base64,AA"}]}]}, "file_data"),
        ],
    )
    def test_says_what_makes_the_input_unbounded(self, body: dict[str, Any], field: str) -> None:
        facts = request(**body)
        assert (facts.unbounded, facts.input_bound) == (field, None)

    def test_compaction_takes_no_cap(self) -> None:
        compact = find_endpoint("openai", "POST", "/responses/compact")
        assert compact is not None
        body = {"model": "gpt-5", "input": "x"}
        assert compact.read_request(body).cap_field == ""
        assert compact.with_cap(body, 50) == body

    def test_no_previous_response_is_no_reason(self) -> None:
        assert request(previous_response_id=None).unbounded is None


class TestStream:
    @pytest.mark.parametrize(
        "kind",
        [
            "response.output_text.delta",
            "response.refusal.delta",
            "response.function_call_arguments.delta",
            "response.reasoning_summary_text.delta",
            "response.reasoning_text.delta",
            "response.mcp_call_arguments.delta",
            "response.code_interpreter_call_code.delta",
            "response.custom_tool_call_input.delta",
            "response.something_new.delta",
        ],
    )
    def test_deltas_of_every_kind_count(self, kind: str) -> None:
        assert ENDPOINT is not None
        reader = ENDPOINT.reader(request(), Rates(1000, 1000, 1000, 1000))
        reader.limit = 5_000
        assert reader.feed({"type": kind, "delta": "abcde"}) is False
        assert reader.feed({"type": kind, "delta": "é"}) is True
        assert reader.answer().text == measure("abcdeé")

    @pytest.mark.parametrize("odd", [None, 5, "x", {}, [], {"type": 3}, {"type": "response.completed"}, object()])
    def test_whatever_comes_is_no_error(self, odd: Any) -> None:
        assert ENDPOINT is not None
        reader = ENDPOINT.reader(request(), Estimator().rates("m"))
        reader.limit = 10
        assert reader.feed(odd) is False
        assert reader.answer().usage is None


class TestAnswer:
    def test_the_image_tool_is_a_pass_of_its_own(self) -> None:
        assert ENDPOINT is not None
        answer = ENDPOINT.read_answer(
            {
                "status": "completed",
                "usage": {"input_tokens": 5, "output_tokens": 6},
                "tools": [{"type": "image_generation", "model": "gpt-image-2"}],
                "tool_usage": {
                    "image_gen": {
                        "input_tokens": 7,
                        "input_tokens_details": {"image_tokens": 2, "text_tokens": 5},
                        "output_tokens": 8,
                        "total_tokens": 15,
                    },
                    "web_search": {"num_requests": 3},
                },
            }
        )
        assert answer.usage == Usage(
            input=5,
            output=6,
            web_searches=3,
            also=(ModelUsage("gpt-image-2", Usage(input=7, output=8, input_image=2)),),
        )
