"""OpenAI Chat Completions on the wire."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator, Mapping
from typing import Any

from . import prompt
from .answer import Answer, Asked, Choice, Finish, Kind
from .reply import ToolCall
from .wire import (
    OPENAI_NO_MODEL,
    OPENAI_NOT_JSON,
    Frame,
    Problem,
    bad_number,
    openai_error,
    sse,
)

_FINISH = {Finish.STOP: "stop", Finish.LENGTH: "length", Finish.TOOL: "tool_calls"}
# OpenAI's API reference, `max_tokens`: "not compatible with o-series models"; gpt-5 refuses it likewise.
_NO_MAX_TOKENS = re.compile(r"(o\d|gpt-5)")


class Chat:
    """POST /v1/chat/completions"""

    endpoint = "chat.completions"
    provider = "openai"

    def check(self, body: Any) -> Problem | None:
        if not isinstance(body, Mapping):
            return OPENAI_NOT_JSON
        if not isinstance(body.get("model"), str):
            return OPENAI_NO_MODEL
        if not isinstance(body.get("messages"), list):
            return Problem("Missing required parameter: 'messages'.", "messages", "missing_required_parameter")
        if not body["messages"]:
            return Problem(
                "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array "
                "instead.",
                "messages",
                "empty_array",
            )
        if not all(isinstance(message, Mapping) and "role" in message for message in body["messages"]):
            return Problem("Missing required parameter: 'messages[0].role'.", "messages[0].role")
        for name in ("max_tokens", "max_completion_tokens", "n"):
            if problem := bad_number(body, name, 1):
                return problem
        if body.get("max_tokens") is not None:
            if body.get("max_completion_tokens") is not None:
                return Problem("Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.")
            if _NO_MAX_TOKENS.match(body["model"]):
                return Problem(
                    "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
                    "'max_completion_tokens' instead.",
                    "max_tokens",
                    "unsupported_parameter",
                )
        if body.get("stream_options") is not None and not body.get("stream"):
            return Problem("The 'stream_options' parameter is only allowed when 'stream' is enabled.", "stream_options")
        return None

    def asked(self, body: Mapping[str, Any]) -> Asked:
        tools = {
            tool["function"]["name"]: tool["function"].get("parameters") or {}
            for tool in body.get("tools") or []
            if tool.get("type") == "function"
        }
        choice = body.get("tool_choice")
        forced = None
        if isinstance(choice, Mapping) and choice.get("type") == "function":
            forced = ToolCall(choice["function"]["name"])
        elif choice == "required":
            forced = ToolCall()
        wanted = body.get("response_format") or {}
        return Asked(
            model=body["model"],
            stream=bool(body.get("stream")),
            choices=body.get("n") or 1,
            cap=body.get("max_completion_tokens") or body.get("max_tokens"),
            tools=tools,
            tool=forced,
            schema=wanted["json_schema"].get("schema", {}) if wanted.get("type") == "json_schema" else None,
            tier=openai_tier(body),
        )

    def prompt(self, body: Mapping[str, Any]) -> int:
        return prompt.openai(body)

    def plain(self, answer: Answer) -> dict[str, Any]:
        head = _head(answer, "chat.completion")
        head["choices"] = [_choice(choice) for choice in answer.choices]
        if answer.reply.usage:
            head["usage"] = _usage(answer)
        return head

    def frames(self, answer: Answer) -> Iterator[Frame]:
        asked_for_usage = bool((answer.body.get("stream_options") or {}).get("include_usage"))
        head = _head(answer, "chat.completion.chunk")
        nothing: dict[str, Any] = {"usage": None} if asked_for_usage else {}
        rows = [_row(choice, answer.reply.chunk_tokens) for choice in answer.choices]
        for due, choice, final in heapq.merge(*rows, key=lambda item: item[0]):
            yield Frame(due, sse({**head, "choices": [choice], **nothing}), final)
        if asked_for_usage and answer.reply.usage:
            yield Frame(answer.steps, sse({**head, "choices": [], "usage": _usage(answer)}), True)
        yield Frame(answer.steps, b"data: [DONE]\n\n", True)

    def error(self, status: int, problem: Problem, fields: Mapping[str, Any], request_id: str) -> dict[str, Any]:
        return openai_error(status, problem, fields)

    def error_event(self, answer: Answer, sent: int, problem: Problem, fields: Mapping[str, Any]) -> bytes:
        return sse(openai_error(500, problem, fields))

    def request_id_header(self) -> str:
        return "x-request-id"


def openai_tier(body: Mapping[str, Any]) -> str:
    """The tier that OpenAI says it used: what was asked for, where that is a tier ("auto" is a wish)."""
    asked = body.get("service_tier")
    return asked if isinstance(asked, str) and asked != "auto" else "default"


def _head(answer: Answer, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{answer.serial}",
        "object": kind,
        "created": answer.created,
        "model": answer.model,
        "service_tier": answer.tier,
        "system_fingerprint": None,
    }


def _usage(answer: Answer) -> dict[str, Any]:
    output, reasoning = answer.output(answer.steps)
    details = {"cached_tokens": answer.input.cached, "audio_tokens": 0}
    if answer.input.cache_write:
        details["cache_write_tokens"] = answer.input.cache_write
    return {
        "prompt_tokens": answer.input.total,
        "completion_tokens": output,
        "total_tokens": answer.input.total + output,
        "prompt_tokens_details": details,
        "completion_tokens_details": {
            "reasoning_tokens": reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _choice(choice: Choice) -> dict[str, Any]:
    texts, tools = choice.of(Kind.TEXT), choice.of(Kind.TOOL)
    message: dict[str, Any] = {"role": "assistant", "content": texts[0].text if texts else None if tools else ""}
    if tools:
        message["tool_calls"] = [
            {"id": f"call_{part.id}", "type": "function", "function": {"name": part.name, "arguments": part.text}}
            for part in tools
        ]
    message |= {"refusal": None, "annotations": []}
    return {"index": choice.index, "message": message, "logprobs": None, "finish_reason": _FINISH[choice.finish]}


def _row(choice: Choice, size: int) -> Iterator[tuple[int, dict[str, Any], bool]]:
    """The chunks of one choice: (due, the choice object, whether it ends the choice)."""

    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        return {"index": choice.index, "delta": delta, "logprobs": None, "finish_reason": finish}

    tools = choice.of(Kind.TOOL)
    opening = {"role": "assistant", "content": None if tools and not choice.of(Kind.TEXT) else "", "refusal": None}
    yield 0, chunk(opening), False
    due = 0
    for part in choice.parts:
        if part.kind is Kind.TEXT:
            for when, text in part.deltas(due, size):
                yield when, chunk({"content": text}), False
        elif part.kind is Kind.TOOL:
            at = tools.index(part)
            function = {"name": part.name, "arguments": ""}
            call = {"index": at, "id": f"call_{part.id}", "type": "function", "function": function}
            yield due, chunk({"tool_calls": [call]}), False
            for when, text in part.deltas(due, size):
                yield when, chunk({"tool_calls": [{"index": at, "function": {"arguments": text}}]}), False
        due += len(part.tokens)
    yield due, chunk({}, _FINISH[choice.finish]), True
