"""What the three wire formats have in common: frames, server-sent events, and each provider's way to say an error.

A wire turns a request into what it asks, and an answer into bytes. It knows no time, no sockets and no money.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from .answer import Answer, Asked


@dataclass(frozen=True, slots=True)
class Frame:
    """One server-sent event.

    Attributes:
        due: how many tokens (per choice) must have been generated before it can be sent.
        data: its bytes.
        final: whether it belongs to the end of the stream: without it a client cannot tell that all has come.
    """

    due: int
    data: bytes
    final: bool = False


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a request: the message, the parameter, the provider's code for it."""

    message: str
    param: str | None = None
    code: str | None = None
    status: int = 400


class Wire(Protocol):
    """One API's format."""

    endpoint: str
    provider: str

    def check(self, body: Any) -> Problem | None:
        """What the provider would refuse in this body; None if nothing."""
        ...

    def asked(self, body: Mapping[str, Any]) -> Asked:
        """What the request says of its answer."""
        ...

    def prompt(self, body: Mapping[str, Any]) -> int:
        """Input tokens."""
        ...

    def plain(self, answer: Answer) -> dict[str, Any]:
        """The answer as one JSON object."""
        ...

    def frames(self, answer: Answer) -> Iterator[Frame]:
        """The answer as a stream, in the order of `due`."""
        ...

    def error(self, status: int, problem: Problem, fields: Mapping[str, Any], request_id: str) -> dict[str, Any]:
        """The body of an HTTP error; `fields` replace those of the inner error object."""
        ...

    def error_event(self, answer: Answer, sent: int, problem: Problem, fields: Mapping[str, Any]) -> bytes:
        """An error in the middle of a stream of which `sent` frames went out."""
        ...

    def request_id_header(self) -> str:
        """The header that carries the request id."""
        ...


def encode(value: Any) -> bytes:
    """Compact JSON, as the providers send it. A lone surrogate becomes "?", which no wire could carry either."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def sse(value: Any, event: str | None = None) -> bytes:
    """One server-sent event, with or without a name."""
    head = f"event: {event}\n".encode() if event else b""
    return head + b"data: " + encode(value) + b"\n\n"


# What OpenAI's SDK maps to its exceptions; the types are those of api.openai.com's error objects.
_OPENAI_TYPES = {429: "requests", 500: "server_error", 502: "server_error", 503: "server_error", 504: "server_error"}
_OPENAI_CODES = {401: "invalid_api_key", 429: "rate_limit_exceeded"}


def openai_error(status: int, problem: Problem, fields: Mapping[str, Any]) -> dict[str, Any]:
    """OpenAI's error body."""
    inner = {
        "message": problem.message,
        "type": _OPENAI_TYPES.get(status, "invalid_request_error"),
        "param": problem.param,
        "code": problem.code or _OPENAI_CODES.get(status),
    }
    return {"error": {**inner, **fields}}


def bad_number(body: Mapping[str, Any], name: str, least: int) -> Problem | None:
    """The problem with an optional integer parameter, in OpenAI's words."""
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        kind = type(value).__name__
        return Problem(
            f"Invalid type for '{name}': expected an integer, but got a {kind} instead.", name, "invalid_type"
        )
    if value < least:
        return Problem(
            f"Invalid '{name}': integer below minimum value. Expected a value >= {least}, but got {value} instead.",
            name,
            "integer_below_min_value",
        )
    return None


OPENAI_NOT_JSON = Problem("We could not parse the JSON body of your request. Expected a JSON object.")
OPENAI_NO_MODEL = Problem("you must provide a model parameter")
