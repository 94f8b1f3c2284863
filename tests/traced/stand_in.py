"""A stand-in for Bedrock, Google and OpenAI's embeddings: what SDKs ask for over HTTP, with usage that the test sets.

Shapes are those of the providers' API references: Converse, ConverseStream, InvokeModel and
InvokeModelWithResponseStream with Claude's body (AWS event streams), generateContent and streamGenerateContent (SSE).
"""

from __future__ import annotations

import base64
import json
import struct
import threading
from binascii import crc32
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote


@dataclass
class StandIn:
    """What it answers next, and what it was asked.

    Attributes:
        url: where it listens.
        usage: input, output, cache read and cache write tokens of every answer, as the provider would count them.
        status: the HTTP status of every answer.
        asked: paths that were asked for.
        headers: of the requests, by name in lower case.
    """

    url: str = ""
    usage: dict[str, int] = field(default_factory=lambda: {"input": 1000, "output": 100})
    status: int = 200
    asked: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


@contextmanager
def stand_in() -> Iterator[StandIn]:
    """Serve on a free port of 127.0.0.1 until the block ends."""
    state = StandIn()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            path = unquote(self.path.split("?")[0])
            state.asked.append(path)
            state.headers.append({name.lower(): value for name, value in self.headers.items()})
            if state.status != 200:
                kind = {429: "ThrottlingException", 400: "ValidationException"}.get(
                    state.status, "InternalServerException"
                )
                body = {"message": "no", "error": {"code": state.status, "message": "no", "status": kind}}
                self._answer(json.dumps(body).encode(), "application/json", {"x-amzn-errortype": kind})
            elif path.endswith("/converse-stream"):
                self._answer(_converse_stream(state.usage), "application/vnd.amazon.eventstream")
            elif path.endswith("/invoke-with-response-stream"):
                self._answer(_claude_stream(state.usage), "application/vnd.amazon.eventstream")
            elif path.endswith(":streamGenerateContent"):
                parts = [_gemini({}), _gemini(state.usage)]
                self._answer(
                    b"".join(b"data: " + json.dumps(part).encode() + b"\r\n\r\n" for part in parts), "text/event-stream"
                )
            else:
                self._answer(json.dumps(_plain(path, state.usage)).encode(), "application/json")

        def _answer(self, body: bytes, kind: str, more: dict[str, str] | None = None) -> None:
            self.send_response(state.status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            for name, value in (more or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            """Keep the test's output to itself."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _plain(path: str, usage: dict[str, int]) -> dict[str, Any]:
    if path.endswith("/converse"):
        return {
            "output": {"message": {"role": "assistant", "content": [{"text": "Hi."}]}},
            "stopReason": "end_turn",
            "usage": _bedrock_usage(usage),
            "metrics": {"latencyMs": 1},
        }
    if path.endswith("/invoke"):
        return {
            "id": "m",
            "type": "message",
            "role": "assistant",
            "content": [{"type": "text", "text": "Hi."}],
            "stop_reason": "end_turn",
            "usage": {"input_tokens": usage["input"], "output_tokens": usage["output"]},
        }
    if path.endswith("/embeddings"):
        return {
            "object": "list",
            "model": "text-embedding-3-small",
            "data": [{"object": "embedding", "index": 0, "embedding": [0.5, 0.5]}],
            "usage": {"prompt_tokens": usage["input"], "total_tokens": usage["input"]},
        }
    return _gemini(usage)


def _bedrock_usage(usage: dict[str, int]) -> dict[str, int]:
    """Bedrock's `inputTokens` leaves out what was read from a cache or written to one."""
    return {
        "inputTokens": usage["input"],
        "outputTokens": usage["output"],
        "totalTokens": sum(usage.values()),
        "cacheReadInputTokens": usage.get("cache_read", 0),
        "cacheWriteInputTokens": usage.get("cache_write", 0),
    }


def _converse_stream(usage: dict[str, int]) -> bytes:
    return b"".join(
        [
            _event("messageStart", {"role": "assistant"}),
            _event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Hi."}}),
            _event("contentBlockStop", {"contentBlockIndex": 0}),
            _event("messageStop", {"stopReason": "end_turn"}),
            _event("metadata", {"usage": _bedrock_usage(usage), "metrics": {"latencyMs": 1}}),
        ]
    )


def _claude_stream(usage: dict[str, int]) -> bytes:
    chunks: list[dict[str, Any]] = [
        {
            "type": "message_start",
            "message": {"role": "assistant", "usage": {"input_tokens": usage["input"], "output_tokens": 1}},
        },
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi."}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": usage["output"]}},
        {
            "type": "message_stop",
            "amazon-bedrock-invocationMetrics": {
                "inputTokenCount": usage["input"],
                "outputTokenCount": usage["output"],
                "invocationLatency": 1,
                "firstByteLatency": 1,
            },
        },
    ]
    return b"".join(_event("chunk", {"bytes": base64.b64encode(json.dumps(each).encode()).decode()}) for each in chunks)


def _event(name: str, payload: dict[str, Any]) -> bytes:
    """One message of an AWS event stream: lengths, their checksum, headers, payload, checksum."""
    pairs = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    headers = b"".join(
        struct.pack("!B", len(key)) + key.encode() + struct.pack("!BH", 7, len(value)) + value.encode()
        for key, value in pairs.items()
    )
    body = json.dumps(payload).encode()
    prelude = struct.pack("!II", 16 + len(headers) + len(body), len(headers))
    message = prelude + struct.pack("!I", crc32(prelude)) + headers + body
    return message + struct.pack("!I", crc32(message))


def _gemini(usage: dict[str, int]) -> dict[str, Any]:
    """Gemini's `candidatesTokenCount` leaves out the thoughts; `promptTokenCount` holds what was read from a cache."""
    answer: dict[str, Any] = {
        "candidates": [{"content": {"role": "model", "parts": [{"text": "Hi."}]}, "finishReason": "STOP"}],
        "modelVersion": "gemini-2.5-flash",
        "responseId": "r",
    }
    if usage:
        thoughts = usage.get("reasoning", 0)
        answer["usageMetadata"] = {
            "promptTokenCount": usage["input"],
            "candidatesTokenCount": usage["output"] - thoughts,
            "thoughtsTokenCount": thoughts,
            "cachedContentTokenCount": usage.get("cache_read", 0),
            "totalTokenCount": usage["input"] + usage["output"],
        }
    return answer
