"""Answers: how a result is taken from the SDK, parsed or raw, and what several results of one call are together."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from .. import faults, late
from ..providers.base import Answer
from ..settlement import Outcome
from ..usage import ModelUsage

if TYPE_CHECKING:
    from .passage import Passage


class ResultHook:
    """Takes the place of `options.post_parser`: sees the parsed result before the caller's own parser can raise.

    It is also what ties a call to the SDK's options: if they are collected and nothing came back (a raw answer that
    nobody parsed or closed), the call ends as dropped.
    """

    __slots__ = ("__weakref__", "former", "passage")

    def __init__(self, passage: Passage, former: Any) -> None:
        self.passage = passage
        self.former = former if callable(former) else None

    def __call__(self, parsed: Any) -> Any:
        passage = self.passage
        try:
            passage.seen(parsed)
        except Exception as error:
            faults.report("read an answer", error)
        if self.former is None:
            result = parsed
        else:
            try:
                result = self.former(parsed)
            except BaseException as error:
                passage.parser_failed(error)
                raise
            passage.made(result)
        passage.parsed()
        return result

    def __copy__(self) -> ResultHook:
        """A copy of the options belongs to the same call, and its answer counts once."""
        return self

    def __deepcopy__(self, memo: Any) -> ResultHook:
        return self

    def __del__(self) -> None:
        passage = getattr(self, "passage", None)  # not there where somebody made one without `__init__`
        if passage is None:
            return
        call = passage.call
        if call.is_open and call.reader is None:
            late.put(partial(call.finish, Outcome.DROPPED))


def is_stream(parsed: Any) -> bool:
    """Whether the SDK made a stream. `_iterator` must not be touched to find out: it may be made when first read."""
    own = getattr(parsed, "__dict__", {})
    return "response" in own and ("_iterator" in own or hasattr(type(parsed), "_iterator"))


def passage_of(options: Any) -> Passage | None:
    """The passage that these options belong to, if they came through a door."""
    hook = getattr(options, "post_parser", None)
    return hook.passage if isinstance(hook, ResultHook) else None


def decoded(response: Any) -> Any:
    """The JSON of a response whose body is read; None if it is none."""
    if "json" not in response.headers.get("content-type", ""):
        return None
    try:
        return json.loads(response.content)
    except ValueError:
        return None


def merged(answers: Mapping[str, Answer]) -> Answer:
    """The answers of one call as one: the last, with what the others consumed beside it (a middleware's hops)."""
    *others, last = answers.values()
    also = tuple(ModelUsage(other.model, other.usage) for other in others if other.usage is not None)
    if not also or last.usage is None:
        return last
    return replace(last, usage=replace(last.usage, also=(*last.usage.also, *also)))
