"""The three APIs that are measured: clients of the real SDKs over an in-process transport, and the bytes it answers.

The bytes are made before anything is measured. Every 50th piece of text is not ASCII, as a dash or a quotation mark of
ordinary prose.

Each SDK is imported twice. An instrumentation wraps the copy in `sys.modules` only, so that the other one stays plain,
and both can be called in turn without wrappers coming and going. Knows nothing of Shekel.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import httpx2

_away: dict[str, dict[str, ModuleType]] = {}
"""The modules of the copy that is not in use, by SDK."""

_plain_in_use: dict[str, bool] = {}


def use(name: str, *, plain: bool) -> None:
    """Put one copy of an SDK into `sys.modules`, as functions of the SDK import other parts of it when they run."""
    if _plain_in_use.setdefault(name, True) is plain:
        return
    here = {key: module for key, module in sys.modules.items() if key.partition(".")[0] == name}
    for key in here:
        del sys.modules[key]
    sys.modules.update(_away.get(name, {}))
    _away[name] = here
    _plain_in_use[name] = plain
    importlib.import_module(name)


_MESSAGES = [
    {"role": "system", "content": "You are a careful assistant that answers in plain words. " * 4},
    {"role": "user", "content": "What does a span say of a call that a meter does not, and the other way round? " * 4},
]
_SYSTEM, _USER = (message["content"] for message in _MESSAGES)
_GPT, _CLAUDE = "gpt-4o-mini", "claude-sonnet-4-6"
_OUTPUT = 40


def _piece(n: int) -> str:
    return " —" if n % 50 == 49 else " word"


def _sse(events: list[dict[str, Any]], *, named: bool) -> bytes:
    blocks = [f"data: {json.dumps(event)}\n\n" for event in events]
    if named:
        blocks = [f"event: {event['type']}\n{block}" for event, block in zip(events, blocks, strict=True)]
    else:
        blocks.append("data: [DONE]\n\n")
    return "".join(blocks).encode()


def _chat_usage(output: int) -> dict[str, Any]:
    return {"prompt_tokens": 120, "completion_tokens": output, "total_tokens": 120 + output}


def _chat_answer() -> bytes:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": " word" * _OUTPUT}}
    answer = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": f"{_GPT}-2024-07-18"}
    return json.dumps({**answer, "choices": [choice], "usage": _chat_usage(_OUTPUT)}).encode()


def _chat_stream(chunks: int) -> bytes:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": f"{_GPT}-2024-07-18"}

    def chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        return {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}], "usage": None}

    events = [chunk({"role": "assistant", "content": ""})]
    events += [chunk({"content": _piece(n)}) for n in range(chunks)]
    events += [chunk({}, "stop"), {**head, "choices": [], "usage": _chat_usage(chunks)}]
    return _sse(events, named=False)


def _response(output: int, status: str) -> dict[str, Any]:
    details = {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
    usage = {"input_tokens": 120, "output_tokens": output, "total_tokens": 120 + output, **details}
    part = {"type": "output_text", "text": " word" * output, "annotations": []}
    message = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]}
    done = status == "completed"
    return {
        "id": "resp_1", "object": "response", "created_at": 1, "status": status, "model": f"{_GPT}-2024-07-18",
        "output": [message] if done else [], "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
        "usage": usage if done else None, "error": None, "incomplete_details": None, "metadata": {},
    }  # fmt: skip


def _response_stream(chunks: int) -> bytes:
    where = {"item_id": "msg_1", "output_index": 0, "content_index": 0, "logprobs": []}
    events = [{"type": "response.created", "response": _response(chunks, "in_progress")}]
    events += [{"type": "response.output_text.delta", "delta": _piece(n), **where} for n in range(chunks)]
    events += [{"type": "response.completed", "response": _response(chunks, "completed")}]
    return _sse([{**event, "sequence_number": n} for n, event in enumerate(events)], named=True)


def _message(output: int, text: str, stop: str | None) -> dict[str, Any]:
    content = [{"type": "text", "text": text}] if text else []
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": _CLAUDE}
    usage = {"input_tokens": 120, "output_tokens": output}
    return {**head, "content": content, "stop_reason": stop, "stop_sequence": None, "usage": usage}


def _message_stream(chunks: int) -> bytes:
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": _message(1, "", None)},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    ]
    deltas = ({"type": "text_delta", "text": _piece(n)} for n in range(chunks))
    events += [{"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas]
    stop = {"stop_reason": "end_turn", "stop_sequence": None}
    events += [
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": stop, "usage": {"output_tokens": chunks}},
        {"type": "message_stop"},
    ]
    return _sse(events, named=True)


@dataclass(frozen=True, slots=True)
class Api:
    """One API.

    Attributes:
        name: for the table.
        answer: the bytes of a plain answer.
        stream: the bytes of a stream with so many pieces of text.
        method: the SDK's method, of a client.
        arguments: what it is called with.
        streaming: what it is called with beside that for a stream. A chat stream asks for its usage by itself, so that
            all variants read the same chunks.
        sdk: the SDK's name.
    """

    name: str
    answer: bytes
    stream: Callable[[int], bytes]
    method: Callable[[Any], Callable[..., Any]]
    arguments: dict[str, Any]
    streaming: dict[str, Any]
    sdk: str

    def client(self, body: bytes, *, stream: bool, is_async: bool) -> Any:
        """A client of the copy of the SDK that is in use, whose every request is answered with `body`."""
        headers = {"content-type": "text/event-stream" if stream else "application/json"}

        def answer(request: httpx2.Request) -> httpx2.Response:
            return httpx2.Response(200, headers=headers, content=body)

        transport = httpx2.MockTransport(answer)
        http = httpx2.AsyncClient(transport=transport) if is_async else httpx2.Client(transport=transport)
        names = {"openai": ("OpenAI", "AsyncOpenAI"), "anthropic": ("Anthropic", "AsyncAnthropic")}
        # Its own spans are off: they would stand in for ours, and the plain SDK would be charged for them.
        silent = {"open_telemetry": False} if self.sdk == "anthropic" else {}
        return getattr(importlib.import_module(self.sdk), names[self.sdk][is_async])(
            api_key="none", http_client=http, **silent
        )


def replay(kind: Any, chunks: list[Any], *, is_async: bool) -> Callable[[], None]:
    """Have all streams of a class hand out chunks that were parsed before, instead of parsing their bytes.

    What `chunks` holds when a stream is read is what that stream has. Returns what undoes it. Parsing takes fifty
    times as long as what is measured, and varies by more than that from one stream to the next.
    """

    def ready(self: Any) -> Iterator[Any]:
        try:
            yield from chunks
        finally:
            self.response.close()

    async def ready_async(self: Any) -> AsyncIterator[Any]:
        try:
            for chunk in chunks:
                yield chunk
        finally:
            await self.response.aclose()

    former = kind.__stream__
    kind.__stream__ = ready_async if is_async else ready
    return lambda: setattr(kind, "__stream__", former)


APIS = (
    Api(
        "chat",
        _chat_answer(),
        _chat_stream,
        lambda client: client.chat.completions.create,
        {"model": _GPT, "messages": _MESSAGES, "temperature": 0.5},
        {"stream": True, "stream_options": {"include_usage": True}},
        "openai",
    ),
    Api(
        "responses",
        json.dumps(_response(_OUTPUT, "completed")).encode(),
        _response_stream,
        lambda client: client.responses.create,
        {"model": _GPT, "instructions": _SYSTEM, "input": _USER, "temperature": 0.5},
        {"stream": True},
        "openai",
    ),
    Api(
        "messages",
        json.dumps(_message(_OUTPUT, " word" * _OUTPUT, "end_turn")).encode(),
        _message_stream,
        lambda client: client.messages.create,
        {"model": _CLAUDE, "max_tokens": 1_024, "system": _SYSTEM, "messages": _MESSAGES[1:]},
        {"stream": True, "max_tokens": 64_000},
        "anthropic",
    ),
)
