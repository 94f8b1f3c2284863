"""Everything a program can see of a call, as plain data that two runs can be compared by.

Types, values, which fields were sent, exceptions with their causes, the order of it all; not object addresses, and
not what differs between any two runs (dates, durations).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pydantic

_ADDRESS = re.compile(r"0x[0-9a-f]{6,}")

# Where the SDKs keep or make a stream's iterator (they too put another in its place), and what Python adds to a class
# when an object of it is copied for the first time.
_NOT_SHOWN = frozenset({"_iterator", "__stream__", "__slotnames__"})


def name_of(value: object) -> str:
    """The full name of a value's type."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


def shown(value: Any) -> Any:
    """A value as data: models with their type, all their attributes, and which fields the provider sent."""
    if isinstance(value, pydantic.BaseModel):
        return (
            name_of(value),
            {key: shown(item) for key, item in vars(value).items()},
            sorted(value.model_fields_set),
            {key: shown(item) for key, item in (value.__pydantic_extra__ or {}).items()},
            {key: shown(item) for key, item in (value.__pydantic_private__ or {}).items()},
        )
    if isinstance(value, Mapping):
        return (name_of(value), {key: shown(item) for key, item in value.items()})
    if isinstance(value, list | tuple):
        return (name_of(value), [shown(item) for item in value])
    if value is None or isinstance(value, str | int | float | bytes):
        return value
    return (name_of(value), _ADDRESS.sub("0x", repr(value)))


def shown_error(error: BaseException | None, depth: int = 3) -> Any:
    """An exception as data: type, message, arguments, what SDK errors carry, its cause and its context."""
    if error is None:
        return None
    carried = {
        name: shown(getattr(error, name))
        for name in ("message", "code", "param", "type", "body", "status_code", "request_id")
        if hasattr(error, name)
    }
    return (
        name_of(error),
        _ADDRESS.sub("0x", str(error)),
        [shown(argument) for argument in error.args],
        carried,
        getattr(error, "__notes__", []),
        error.__suppress_context__,
        shown_error(error.__cause__, depth - 1) if depth else "…",
        shown_error(error.__context__, depth - 1) if depth else "…",
    )


def shown_response(response: Any) -> Any:
    """An HTTP response as a program finds it on a stream or a raw answer."""
    return (
        name_of(response),
        response.status_code,
        sorted((key, value) for key, value in response.headers.items() if key != "date"),
        str(response.url),
        response.is_closed,
        response.is_stream_consumed,
    )


def shown_object(value: Any) -> Any:
    """An object that is neither data nor an exception (a stream, a manager): its type, names and representation."""
    return (
        name_of(value),
        [name_of(type(value))] + [f"{base.__module__}.{base.__qualname__}" for base in type(value).__mro__],
        sorted(set(dir(value)) - _NOT_SHOWN),
        sorted((key, name_of(item)) for key, item in vars(value).items() if key not in _NOT_SHOWN),
        _ADDRESS.sub("0x", repr(value)),
    )


class Transcript:
    """What one program saw, line by line, and (apart, as no program sees it) what the provider was sent."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, Any]] = []
        self.sent: list[tuple[str, dict[str, str], Any]] = []

    def value(self, what: str, value: Any) -> None:
        self.lines.append((what, shown(value)))

    def object(self, what: str, value: Any) -> None:
        self.lines.append((what, shown_object(value)))

    def error(self, what: str, error: BaseException) -> None:
        self.lines.append((what, shown_error(error)))

    def response(self, what: str, response: Any) -> None:
        self.lines.append((what, shown_response(response)))


def first_difference(plain: Transcript, other: Transcript) -> str | None:
    """Where what two programs saw parts, in one line for a failure message; None if it is the same."""
    for at, (left, right) in enumerate(zip(plain.lines, other.lines, strict=False)):
        if left != right:
            return f"line {at}: {_part(left, right)}"
    if len(plain.lines) == len(other.lines):
        return None
    more = plain.lines[len(other.lines) :] or other.lines[len(plain.lines) :]
    who = "plain" if len(plain.lines) > len(other.lines) else "instrumented"
    return f"only the {who} one goes on, with {_cut(more[0])}"


def first_difference_sent(plain: Transcript, other: Transcript) -> str | None:
    """Where what was sent parts; None if it is the same, but for the usage that chat streams are asked for."""
    expected = [(path, headers, _asking_for_usage(path, headers, body)) for path, headers, body in plain.sent]
    if len(expected) != len(other.sent):
        return f"{len(expected)} requests sent plain, {len(other.sent)} instrumented"
    return next(
        (f"sent: {_part(left, right)}" for left, right in zip(expected, other.sent, strict=True) if left != right), None
    )


def _asking_for_usage(path: str, headers: dict[str, str], body: Any) -> Any:
    """The body that Shekel is to send: a chat stream to OpenAI asks for its usage, unless the program spoke."""
    if headers.get("x-stainless-raw-response") == "stream":
        return body  # who reads the bytes would see the usage chunk
    options = body.get("stream_options") or {}
    if not path.endswith("/chat/completions") or not body.get("stream") or "include_usage" in options:
        return body
    return {**body, "stream_options": {**options, "include_usage": True}}


def _part(left: Any, right: Any, path: str = "") -> str:
    """The first place inside two structures where they differ."""
    if isinstance(left, tuple | list) and isinstance(right, tuple | list) and len(left) == len(right):
        for at, (a, b) in enumerate(zip(left, right, strict=True)):
            if a != b:
                return _part(a, b, f"{path}[{at}]")
    if isinstance(left, list) and isinstance(right, list):
        gone, come = [x for x in left if x not in right], [x for x in right if x not in left]
        return f"{path}: without {_cut(gone)}, with {_cut(come)}"
    if isinstance(left, dict) and isinstance(right, dict) and left.keys() == right.keys():
        for key in left:
            if left[key] != right[key]:
                return _part(left[key], right[key], f"{path}.{key}")
    return f"{path}: plain {_cut(left)} | instrumented {_cut(right)}"


def _cut(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 300 else text[:300] + "…"
