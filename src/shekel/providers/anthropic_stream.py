"""Streams of Anthropic Messages, read event by event as they pass.

`message_start` brings the input and a placeholder for the output; each `message_delta` brings totals, whose fields
replace the former ones and never add to them. ASCII text is counted in the loops that hand events on, all the rest by
`feed`. Keeps counts and the usage, never a chunk, and imports no SDK.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from contextlib import suppress
from typing import Any

from shekel.estimation import Rates
from shekel.usage import Usage

from .base import Answer, Watch
from .body import get, string
from .counting import Counting

_USAGE_FIELDS = (
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "cache_creation",
    "output_tokens_details",
    "server_tool_use",
    "service_tier",
    "speed",
    "iterations",
)


_CALL = 45_000  # thousandths of a token that a tool call brings beside its name and input: the mean of recorded ones


class MessageReader(Counting):
    """Reads the events of one Messages stream."""

    __slots__ = ("_final", "_input", "_quick", "_read", "_stop", "_usage")

    def __init__(self, rates: Rates, read: Callable[[Any], Usage]) -> None:
        super().__init__(rates)
        self._read = read
        self._usage: dict[str, Any] = {}
        self._input: int | None = None  # asked for with each slice, while it changes once or twice
        self._stop: str | None = None
        self._final = False
        self._quick: Any = None  # the SDK's class of a delta of text, once one has come

    def hand_on(self, chunks: Iterator[Any], watch: Watch) -> Generator[Any, None, None]:
        """See `StreamReader`."""
        feed, rate, quick = self.feed, self._rate, self._quick
        with watch:
            yield None
            for chunk in chunks:
                try:
                    delta = chunk.delta
                    if type(delta) is quick:
                        text = delta.text
                        if text.isascii():
                            self.units += len(text) * rate
                        else:
                            self._count(text)
                        attention = self.units > self.limit
                    else:
                        attention = feed(chunk)
                        quick = self._quick
                except Exception:
                    attention = watch.feed(chunk)
                if attention and watch.look(chunk):
                    continue
                yield chunk

    async def hand_on_async(self, chunks: AsyncIterator[Any], watch: Watch) -> AsyncGenerator[Any, None]:
        """See `StreamReader`."""
        feed, rate, quick = self.feed, self._rate, self._quick
        with watch:
            yield None
            async for chunk in chunks:
                try:
                    delta = chunk.delta
                    if type(delta) is quick:
                        text = delta.text
                        if text.isascii():
                            self.units += len(text) * rate
                        else:
                            self._count(text)
                        attention = self.units > self.limit
                    else:
                        attention = feed(chunk)
                        quick = self._quick
                except Exception:
                    attention = watch.feed(chunk)
                if attention and await watch.look_async(chunk):
                    continue
                yield chunk

    def feed(self, chunk: Any) -> bool:
        """Count one event. True if the limit is passed. A delta takes a shorter way than the rest."""
        try:
            # Asking a model of the SDK for an attribute that it lacks takes ten times as long as its dictionary does.
            delta = chunk.delta
            fields = delta.__dict__
            text = fields.get("text")
            if text:
                self._quick = type(delta)
            else:
                text = fields.get("partial_json")
            if text:
                self._count(text)
                return self.units > self.limit
            text = fields.get("thinking")
            if text:
                self._count(text, True)
                return self.units > self.limit
        except Exception:
            pass
        with suppress(Exception):  # whatever this was, it is not ours to complain about
            self._event(chunk)
        return self.units > self.limit

    def _event(self, event: Any) -> None:
        kind = get(event, "type")
        if kind == "content_block_delta":
            delta = get(event, "delta")
            thought = get(delta, "thinking")
            if thought is not None:
                self._count(thought, True)
            else:
                for name in ("partial_json", "text", "content"):  # `content` is that of a compaction
                    self._count(get(delta, name))
        elif kind == "content_block_start":
            block = get(event, "content_block")
            self._count(get(block, "text"))
            self._count(get(block, "thinking"), True)
            if get(block, "type") in ("tool_use", "server_tool_use", "mcp_tool_use"):
                self._count(get(block, "name"))
                self._add_units(_CALL)
        elif kind == "message_start":
            message = get(event, "message")
            self._id = string(get(message, "id"))
            self._model = string(get(message, "model"))
            self._replace(get(message, "usage"))
        elif kind == "message_delta":
            usage = get(event, "usage")
            stop = string(get(get(event, "delta"), "stop_reason"))
            self._stop = stop or self._stop
            self._replace(usage)
            if usage is not None and self._stop:
                self._final = True
        elif kind == "message_stop":
            self.terminal = True

    def _replace(self, usage: Any) -> None:
        for name in _USAGE_FIELDS:
            value = get(usage, name)
            if value is not None:
                self._usage[name] = value
        self._input = None

    def is_usage_only(self, chunk: Any) -> bool:
        """Never: no chunk of these streams is ours."""
        return False

    def input_tokens(self) -> int | None:
        """Input tokens, inclusive, once `message_start` has said them."""
        if self._input is None and "input_tokens" in self._usage:
            self._input = self._read(self._usage).input
        return self._input

    def answer(self) -> Answer:
        """What is known so far. Usage only once a `message_delta` brought it with a stop reason."""
        usage = self._read(self._usage) if self._final else None
        return Answer(
            usage=usage,
            id=self._id,
            model=self._model,
            finish_reasons=(self._stop,) if self._stop else (),
            text=self._text(usage),
        )
