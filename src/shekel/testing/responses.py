"""OpenAI Responses on the wire."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count as counter
from typing import Any

from . import prompt
from .answer import Answer, Asked, Finish, Kind, Part
from .chat import openai_tier
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

# The least `max_output_tokens` that OpenAI accepts (its error: "Expected a value >= 16").
_LEAST_OUTPUT = 16


class Responses:
    """POST /v1/responses"""

    endpoint = "responses"
    provider = "openai"

    def check(self, body: Any) -> Problem | None:
        if not isinstance(body, Mapping):
            return OPENAI_NOT_JSON
        if not isinstance(body.get("model"), str) and not body.get("prompt"):
            return OPENAI_NO_MODEL
        if not any(body.get(name) for name in ("input", "prompt", "previous_response_id", "conversation")):
            return Problem(
                "One of \"input\" or \"previous_response_id\" or 'prompt' or 'conversation_id' must be provided.",
                None,
                "missing_required_parameter",
            )
        if not isinstance(body.get("input", ""), str | list):
            return Problem("Invalid type for 'input': expected one of a string or array.", "input", "invalid_type")
        return bad_number(body, "max_output_tokens", _LEAST_OUTPUT)

    def asked(self, body: Mapping[str, Any]) -> Asked:
        tools = {
            tool["name"]: tool.get("parameters") or {}
            for tool in body.get("tools") or []
            if tool.get("type") == "function"
        }
        choice = body.get("tool_choice")
        forced = None
        if isinstance(choice, Mapping) and choice.get("type") == "function":
            forced = ToolCall(choice["name"])
        elif choice == "required":
            forced = ToolCall()
        wanted = (body.get("text") or {}).get("format") or {}
        return Asked(
            # A stored prompt may bring its own model; the stand-in keeps no prompts and serves a common one.
            model=body.get("model") or "gpt-4o-mini",
            stream=bool(body.get("stream")),
            choices=1,
            cap=body.get("max_output_tokens"),
            tools=tools,
            tool=forced,
            schema=wanted.get("schema", {}) if wanted.get("type") == "json_schema" else None,
            tier=openai_tier(body),
        )

    def prompt(self, body: Mapping[str, Any]) -> int:
        return prompt.openai(body)

    def plain(self, answer: Answer) -> dict[str, Any]:
        items = [_item(answer, part, _status(answer, last)) for part, last in _parts(answer)]
        return _response(answer, items, done=True)

    def frames(self, answer: Answer) -> Iterator[Frame]:
        sequence = counter()

        def frame(due: int, kind: str, **fields: Any) -> Frame:
            final = kind in ("response.completed", "response.incomplete")
            return Frame(due, sse({"type": kind, **fields, "sequence_number": next(sequence)}, kind), final)

        yield frame(0, "response.created", response=_response(answer, [], done=False))
        yield frame(0, "response.in_progress", response=_response(answer, [], done=False))
        items: list[dict[str, Any]] = []
        due = 0
        for at, (part, last) in enumerate(_parts(answer)):
            place: dict[str, Any] = {"item_id": _id(answer, part), "output_index": at}
            end = due + len(part.tokens)
            empty = _item(answer, Part(part.kind, (), part.name, part.id), "in_progress")
            if part.kind is Kind.TEXT:
                empty["content"] = []
            yield frame(due, "response.output_item.added", output_index=at, item=empty)
            if part.kind is Kind.TEXT:
                inner = {**place, "content_index": 0}
                yield frame(due, "response.content_part.added", **inner, part=_text(""))
                for when, text in part.deltas(due, answer.reply.chunk_tokens):
                    yield frame(when, "response.output_text.delta", **inner, delta=text, logprobs=[])
                yield frame(end, "response.output_text.done", **inner, text=part.text, logprobs=[])
                yield frame(end, "response.content_part.done", **inner, part=_text(part.text))
            elif part.kind is Kind.TOOL:
                for when, text in part.deltas(due, answer.reply.chunk_tokens):
                    yield frame(when, "response.function_call_arguments.delta", **place, delta=text)
                yield frame(end, "response.function_call_arguments.done", **place, arguments=part.text)
            items.append(_item(answer, part, _status(answer, last)))
            yield frame(end, "response.output_item.done", output_index=at, item=items[-1])
            due = end
        kind = "response.incomplete" if _incomplete(answer) else "response.completed"
        yield frame(due, kind, response=_response(answer, items, done=True))

    def error(self, status: int, problem: Problem, fields: Mapping[str, Any], request_id: str) -> dict[str, Any]:
        return openai_error(status, problem, fields)

    def error_event(self, answer: Answer, sent: int, problem: Problem, fields: Mapping[str, Any]) -> bytes:
        inner = {"code": "server_error", "message": problem.message, "param": None, **fields}
        failed = _response(answer, [], done=False)
        failed |= {"status": "failed", "error": {"code": inner["code"], "message": inner["message"]}}
        return sse({"type": "error", **inner, "sequence_number": sent}, "error") + sse(
            {"type": "response.failed", "response": failed, "sequence_number": sent + 1}, "response.failed"
        )

    def request_id_header(self) -> str:
        return "x-request-id"


def _parts(answer: Answer) -> list[tuple[Part, bool]]:
    """The parts of the one choice, each with whether it is the last."""
    parts = answer.choices[0].parts
    return [(part, at == len(parts) - 1) for at, part in enumerate(parts)]


def _incomplete(answer: Answer) -> bool:
    return answer.choices[0].finish is Finish.LENGTH


def _status(answer: Answer, last: bool) -> str:
    return "incomplete" if last and _incomplete(answer) else "completed"


def _id(answer: Answer, part: Part) -> str:
    return {Kind.REASONING: "rs", Kind.TEXT: "msg", Kind.TOOL: "fc"}[part.kind] + f"_{answer.serial}{part.id}"


def _text(text: str) -> dict[str, Any]:
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def _item(answer: Answer, part: Part, status: str) -> dict[str, Any]:
    if part.kind is Kind.REASONING:
        return {"id": _id(answer, part), "type": "reasoning", "summary": []}
    if part.kind is Kind.TOOL:
        return {
            "id": _id(answer, part),
            "type": "function_call",
            "status": status,
            "arguments": part.text,
            "call_id": f"call_{part.id}",
            "name": part.name,
        }
    return {
        "id": _id(answer, part),
        "type": "message",
        "status": status,
        "content": [_text(part.text)],
        "role": "assistant",
    }


def _usage(answer: Answer) -> dict[str, Any]:
    output, reasoning = answer.output(answer.steps)
    details = {"cached_tokens": answer.input.cached}
    if answer.input.cache_write:
        details["cache_write_tokens"] = answer.input.cache_write
    return {
        "input_tokens": answer.input.total,
        "input_tokens_details": details,
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": answer.input.total + output,
    }


def _response(answer: Answer, output: list[dict[str, Any]], *, done: bool) -> dict[str, Any]:
    body = answer.body
    status = "in_progress"
    if done:
        status = "incomplete" if _incomplete(answer) else "completed"
    return {
        "id": f"resp_{answer.serial}",
        "object": "response",
        "created_at": answer.created,
        "status": status,
        "background": False,
        "completed_at": answer.created if status == "completed" else None,
        "error": None,
        "frequency_penalty": 0.0,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "max_tool_calls": body.get("max_tool_calls"),
        "model": answer.model,
        "output": output,
        "parallel_tool_calls": body.get("parallel_tool_calls", True),
        "presence_penalty": 0.0,
        "previous_response_id": body.get("previous_response_id"),
        "prompt_cache_key": body.get("prompt_cache_key"),
        "prompt_cache_retention": body.get("prompt_cache_retention"),
        "reasoning": body.get("reasoning") or {"effort": None, "summary": None},
        "safety_identifier": None,
        "service_tier": answer.tier if done else "auto",
        "store": body.get("store", True),
        "temperature": body.get("temperature", 1.0),
        "text": body.get("text") or {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": body.get("tool_choice", "auto"),
        "tools": body.get("tools") or [],
        "top_logprobs": 0,
        "top_p": body.get("top_p", 1.0),
        "truncation": body.get("truncation", "disabled"),
        "usage": _usage(answer) if done and answer.reply.usage else None,
        "user": body.get("user"),
        "metadata": body.get("metadata") or {},
    }
