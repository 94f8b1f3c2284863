"""What a test tells the stand-in to do with a request, and what it is shown of the request."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .text import SCRIPTS

UNBILLED = frozenset({503, 529})
"""With every 4xx but 408 and 409: the statuses of requests that no model has worked on. They are never billed."""


def rejected(status: int) -> bool:
    """Whether this status says that nothing was generated, so that nothing is billed."""
    return (400 <= status < 500 and status not in (408, 409)) or status in UNBILLED


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call for the stand-in to make.

    Attributes:
        name: the tool's name; None for the first tool of the request.
        arguments: its arguments; None for the smallest that the tool's schema allows.
    """

    name: str | None = None
    arguments: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """How the stand-in answers one HTTP request. Counts are in tokens, times in seconds.

    Attributes:
        output_tokens: length of the visible answer, per choice, before the request's cap.
        reasoning_tokens: hidden tokens, per choice, generated before the visible ones; billed, and inside the cap.
        show_reasoning: Anthropic only: stream the reasoning as thinking text instead of hiding it.
        input_tokens: what the prompt counts, instead of the stand-in's own count.
        cached_tokens: how many of the input were read from a cache (at most the input).
        cache_write_tokens: how many of the input were written to a cache (at most the rest).
        cache_write_1h_tokens: how many of those for one hour (Anthropic).
        script: the kind of text: "english", "chinese", "emoji", "code" or "mixed".
        text: exactly this text instead of a made-up one; `output_tokens` is then not used.
        tool_call: call this tool (or these) after `text`, or instead of any text.
        chunk_tokens: tokens per streamed delta.
        delay: seconds until the first byte, and until the first token is generated.
        pace: seconds per generated token (per choice), hidden ones included. 0: all is generated at once, so a
            client that leaves in the middle is billed for the whole answer.
        status: an HTTP status other than 200 makes this an error.
        error: the error's message, or a mapping over the fields of the provider's error object.
        retry_after: seconds, sent as `retry-after-ms` with statuses that SDKs retry; None to send none.
        bill_error: whether a failed attempt (408, 409, 5xx) is billed for the full generation all the same.
        drop_after: reset the TCP connection after so many visible tokens; -1: before the status line.
        eof_after: end the body properly after so many visible tokens, before the terminal event (streams only).
        error_event_after: send the provider's error event after so many visible tokens, then end (streams only).
        stall_after: send nothing more after so many visible tokens, but keep the connection (-1: not even headers).
        keep_generating: go on generating, and billing, when the answer no longer reaches the client: stalled,
            dropped, or the client gone.
        linger: with `keep_generating`, for how many seconds after the connection is gone; no end by default.
        usage: whether usage is reported. Anthropic's `message_start` carries the input's all the same.
        model: the model that the answer names, and that is billed; None for the request's.
        service_tier: the tier that the answer names, and that is billed; None for the request's.
    """

    output_tokens: int = 64
    reasoning_tokens: int = 0
    show_reasoning: bool = False
    input_tokens: int | None = None
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    script: str = "english"
    text: str | None = None
    tool_call: ToolCall | tuple[ToolCall, ...] | None = None
    chunk_tokens: int = 1
    delay: float = 0.0
    pace: float = 0.0
    status: int = 200
    error: str | Mapping[str, Any] | None = None
    retry_after: float | None = 0.001
    bill_error: bool = False
    drop_after: int | None = None
    eof_after: int | None = None
    error_event_after: int | None = None
    stall_after: int | None = None
    keep_generating: bool = False
    linger: float = math.inf
    usage: bool = True
    model: str | None = None
    service_tier: str | None = None

    def __post_init__(self) -> None:
        if self.script not in SCRIPTS:
            raise ValueError(f"script={self.script!r} is not one of {', '.join(SCRIPTS)}")
        if self.chunk_tokens < 1:
            raise ValueError(f"chunk_tokens={self.chunk_tokens!r} must be at least 1")
        for name in ("output_tokens", "reasoning_tokens", "cached_tokens", "cache_write_tokens", "delay", "pace"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)!r} must not be negative")
        if not 0 <= self.cache_write_1h_tokens <= self.cache_write_tokens:
            raise ValueError(
                f"cache_write_1h_tokens={self.cache_write_1h_tokens} is a part of "
                f"cache_write_tokens={self.cache_write_tokens}, so it must lie between 0 and that"
            )
        ends = [
            n for n in ("drop_after", "eof_after", "error_event_after", "stall_after") if getattr(self, n) is not None
        ]
        if len(ends) > 1:
            raise ValueError(f"an answer ends in one way: give one of {' and '.join(ends)}")
        if self.status != 200 and not 400 <= self.status < 600:
            raise ValueError(f"status={self.status} must be 200 or an error, 400 to 599")
        if self.bill_error and (self.status == 200 or rejected(self.status)):
            raise ValueError(
                f"bill_error has no meaning for status {self.status}: only 408, 409 and 5xx other than "
                "503 and 529 can fail after something was generated"
            )

    @property
    def ends_after(self) -> int | None:
        """After how many visible tokens the answer stops reaching the client; None if it does not stop."""
        for after in (self.drop_after, self.eof_after, self.error_event_after, self.stall_after):
            if after is not None:
                return after
        return None


@dataclass(frozen=True, slots=True)
class RequestSeen:
    """One HTTP request that the stand-in received.

    Attributes:
        endpoint: "chat.completions", "responses" or "messages"; the path for anything else.
        path: the path with its query.
        headers: the headers, names in lower case.
        body: the parsed JSON body; None if it was not JSON.
        received: when it was complete, `time.monotonic()` seconds.
    """

    endpoint: str
    path: str
    headers: Mapping[str, str]
    body: Any
    received: float
