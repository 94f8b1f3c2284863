"""Bodies: what a request says, read from the SDK's options as the SDK will send it.

Most bodies are mappings, which may be written to. One that the program has encoded itself is read where it is JSON and
sent as it is, always: a cap or another model cannot be put there.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, cast

from ..providers.base import WHOLE, Request

_ONE_SHOT = ("messages", "tools", "system", "input")


class Body(NamedTuple):
    """The body of one request.

    Attributes:
        fields: what it says; empty where it cannot be read.
        changed: whether `fields` must be sent in place of what the options hold.
        fixed: whether it must be sent as it is.
    """

    fields: Mapping[str, Any]
    changed: bool = False
    fixed: bool = False


def read(options: Any) -> Body:
    """The request's body as one mapping: `extra_body` over the arguments, as the SDK merges them."""
    body, extra, content = options.json_data, options.extra_json, getattr(options, "content", None)
    if content is not None:
        return Body(_decoded(content), fixed=True)
    if extra is not None and not isinstance(extra, Mapping):
        return Body(body if isinstance(body, Mapping) else {}, fixed=True)
    if body is None:
        if extra is None:
            return Body({}, fixed=True)
        body = extra
    elif not isinstance(body, Mapping):
        return Body(_decoded(body), fixed=True)
    elif extra is not None:
        body = {k: v for k, v in {**body, **extra}.items() if type(v).__name__ != "Omit"}
    return _with_lists(body, options)


def _decoded(content: Any) -> Mapping[str, Any]:
    """The JSON object that some bytes are; nothing of what is none, or is used up by reading it."""
    if not isinstance(content, bytes | bytearray | str):
        return {}
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _with_lists(body: Mapping[str, Any], options: Any) -> Body:
    """The body with lists for one-shot iterators, which measuring uses up, where the SDK would send lists for them."""
    changed = False
    for key in _ONE_SHOT:
        value = body.get(key)
        if hasattr(value, "__next__") and (sent_as_list := _list_test(options)) is not None and sent_as_list(value):
            body = {**body, key: _all(cast("Iterator[Any]", value))}
            changed = True
    return Body(body, changed)


def _list_test(options: Any) -> Callable[[object], bool] | None:
    """The SDK's own word on what it sends as a list; None where it sends no iterators."""
    package = type(options).__module__.partition(".")[0]
    found: Callable[[object], bool] | None = getattr(
        sys.modules.get(f"{package}._utils._json"), "is_sent_as_list", None
    )
    return found


def _all(iterator: Iterator[Any]) -> Any:
    """The members of an iterator. If it raises, one that does the same again, for the SDK to come upon."""
    members: list[Any] = []
    try:
        members.extend(iterator)
    except Exception as error:
        return _again(members, error)
    return members


def _again(members: list[Any], error: Exception) -> Iterator[Any]:
    yield from members
    raise error


def as_it_is(request: Request) -> Request:
    """The facts of a request whose body cannot be written: what a strict budget grants is the caller's cap, or none."""
    if request.cap is not None:
        return replace(request, fixed=True, min_cap=request.cap)
    field = request.unbounded or "a body of bytes, which no cap can be written to"
    return replace(request, fixed=True, min_cap=WHOLE, input_bound=None, unbounded=field)
