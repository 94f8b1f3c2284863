"""Anthropic Messages on the wire."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from . import prompt
from .answer import Answer, Asked, Finish, Kind, Part
from .reply import ToolCall
from .wire import Frame, Problem, sse

_STOP = {Finish.STOP: "end_turn", Finish.LENGTH: "max_tokens", Finish.TOOL: "tool_use"}
# Anthropic's documentation, "Errors".
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}
# `output_tokens` of `message_start` is a placeholder: a small number that counts nothing.
_PLACEHOLDER = 4
_SIGNATURE = "c3RhbmQtaW4="  # opaque to clients, so any base64 does


class Messages:
    """POST /v1/messages"""

    endpoint = "messages"
    provider = "anthropic"

    def check(self, body: Any) -> Problem | None:
        if not isinstance(body, Mapping):
            return Problem("The request body is not valid JSON: expected an object")
        for name in ("model", "max_tokens", "messages"):
            if body.get(name) is None:
                return Problem(f"{name}: Field required")
        cap = body["max_tokens"]
        if not isinstance(cap, int) or isinstance(cap, bool):
            return Problem("max_tokens: Input should be a valid integer")
        if cap < 1:
            return Problem("max_tokens: Input should be greater than or equal to 1")
        if not isinstance(body["messages"], list):
            return Problem("messages: Input should be a valid list")
        if not body["messages"]:
            return Problem("messages: at least one message is required")
        if not all(isinstance(message, Mapping) and "role" in message for message in body["messages"]):
            return Problem("messages.0.role: Field required")
        thinking = body.get("thinking") or {}
        if thinking.get("type") == "enabled":
            budget = thinking.get("budget_tokens", 0)
            # Anthropic's documentation, "Extended thinking": at least 1,024, and less than max_tokens.
            if budget < 1024:
                return Problem("thinking.enabled.budget_tokens: Input should be greater than or equal to 1024")
            if budget >= cap:
                return Problem("`max_tokens` must be greater than `thinking.budget_tokens`.")
        return None

    def asked(self, body: Mapping[str, Any]) -> Asked:
        tools = {tool["name"]: tool["input_schema"] for tool in body.get("tools") or [] if "input_schema" in tool}
        choice = body.get("tool_choice") or {}
        forced = None
        if choice.get("type") == "tool":
            forced = ToolCall(choice["name"])
        elif choice.get("type") == "any":
            forced = ToolCall()
        return Asked(
            model=body["model"],
            stream=bool(body.get("stream")),
            choices=1,
            cap=body["max_tokens"],
            tools=tools,
            tool=forced,
            schema=prompt.anthropic_schema(body),
            tier="standard",
        )

    def prompt(self, body: Mapping[str, Any]) -> int:
        return prompt.anthropic(body)

    def plain(self, answer: Answer) -> dict[str, Any]:
        choice = answer.choices[0]
        message = _message(answer)
        message["content"] = [_block(answer, part) for part in _shown(answer)]
        message["stop_reason"] = _STOP[choice.finish]
        message["usage"] = _usage(answer) if answer.reply.usage else None
        return message

    def frames(self, answer: Answer) -> Iterator[Frame]:
        start = _message(answer)
        start["usage"] = {**_usage(answer), "output_tokens": _PLACEHOLDER}
        start["usage"].pop("output_tokens_details", None)
        yield _frame(0, "message_start", message=start)
        due = answer.hidden if not _shows_reasoning(answer) else 0
        for at, part in enumerate(_shown(answer)):
            yield _frame(due, "content_block_start", index=at, content_block=_block(answer, part, empty=True))
            if at == 0:
                yield _frame(due, "ping")
            for when, text in part.deltas(due, answer.reply.chunk_tokens):
                yield _frame(when, "content_block_delta", index=at, delta=_delta(part, text))
            due += len(part.tokens)
            if part.kind is Kind.REASONING:
                delta = {"type": "signature_delta", "signature": _SIGNATURE}
                yield _frame(due, "content_block_delta", index=at, delta=delta)
            yield _frame(due, "content_block_stop", index=at)
        usage = _usage(answer)
        totals = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
        cumulative: dict[str, Any] = {name: usage[name] for name in (*totals, "output_tokens")}
        if "output_tokens_details" in usage:
            cumulative["output_tokens_details"] = usage["output_tokens_details"]
        if not answer.reply.usage:
            cumulative = {"output_tokens": None}  # the SDK's helper reads this field of every message_delta
        stop = {"stop_reason": _STOP[answer.choices[0].finish], "stop_sequence": None}
        yield _frame(answer.steps, "message_delta", True, delta=stop, usage=cumulative)
        yield _frame(answer.steps, "message_stop", True)

    def error(self, status: int, problem: Problem, fields: Mapping[str, Any], request_id: str) -> dict[str, Any]:
        inner = {"type": _TYPES.get(status, "api_error"), "message": problem.message, **fields}
        return {"type": "error", "error": inner, "request_id": request_id}

    def error_event(self, answer: Answer, sent: int, problem: Problem, fields: Mapping[str, Any]) -> bytes:
        return sse(self.error(529, problem, fields, f"req_{answer.serial}"), "error")

    def request_id_header(self) -> str:
        return "request-id"


def _frame(due: int, kind: str, final: bool = False, **fields: Any) -> Frame:
    return Frame(due, sse({"type": kind, **fields}, kind), final)


def _shows_reasoning(answer: Answer) -> bool:
    """A request with thinking gets a thinking block, with or without its text; without, reasoning leaves no trace."""
    asked = (answer.body.get("thinking") or {}).get("type") in ("enabled", "adaptive")
    return answer.hidden > 0 and (asked or answer.reply.show_reasoning)


def _shown(answer: Answer) -> list[Part]:
    shows = _shows_reasoning(answer)
    return [part for part in answer.choices[0].parts if shows or part.kind is not Kind.REASONING]


def _delta(part: Part, text: str) -> dict[str, str]:
    if part.kind is Kind.REASONING:
        return {"type": "thinking_delta", "thinking": text}
    if part.kind is Kind.TOOL:
        return {"type": "input_json_delta", "partial_json": text}
    return {"type": "text_delta", "text": text}


def _block(answer: Answer, part: Part, *, empty: bool = False) -> dict[str, Any]:
    if part.kind is Kind.REASONING:
        return {
            "type": "thinking",
            "thinking": "" if empty else part.text,
            "signature": "" if empty else _SIGNATURE,
        }
    if part.kind is Kind.TOOL:
        given = {} if empty else _parsed(part.text)
        return {"type": "tool_use", "id": f"toolu_{part.id}", "name": part.name, "input": given}
    return {"type": "text", "text": "" if empty else part.text}


def _parsed(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except ValueError:
        return {}  # cut off by max_tokens


def _message(answer: Answer) -> dict[str, Any]:
    return {
        "model": answer.model,
        "id": f"msg_{answer.serial}",
        "type": "message",
        "role": "assistant",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _usage(answer: Answer) -> dict[str, Any]:
    output, reasoning = answer.output(answer.steps)
    usage: dict[str, Any] = {
        "input_tokens": answer.input.fresh,
        "cache_creation_input_tokens": answer.input.cache_write,
        "cache_read_input_tokens": answer.input.cached,
        "cache_creation": {
            "ephemeral_5m_input_tokens": answer.input.cache_write - answer.input.cache_write_1h,
            "ephemeral_1h_input_tokens": answer.input.cache_write_1h,
        },
        "output_tokens": output,
        "service_tier": answer.tier,
        "inference_geo": "not_available",
    }
    if reasoning:
        usage["output_tokens_details"] = {"thinking_tokens": reasoning}
    if speed := answer.body.get("speed"):
        usage["speed"] = speed
    return usage
