"""Streams of OpenAI, read chunk by chunk as they pass: Chat Completions and Responses.

What nearly all chunks are (ASCII text of one choice) is counted in the loops that hand chunks on, where every attribute
that is asked of a model of the SDK shows; `feed` counts all the rest. Keeps counts and the usage, never a chunk, and
imports no SDK.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from contextlib import suppress
from typing import Any

from shekel.estimation import Rates
from shekel.usage import Usage

from .base import Answer, Watch
from .body import get, integer, items, string
from .counting import Counting

_CALL = 12_000  # thousandths of a token that a tool call brings beside its name and arguments


# Ten-thousandths of a unit per character of base64: streamed audio is 16 bit PCM at 24 kHz, and a token of spoken
# output is 50 ms (developers.openai.com/api/docs/guides/realtime-costs): 48,000 bytes are 64,000 characters, 20 tokens.
_AUDIO_UNITS = 3_125


class _Reader(Counting):
    """What both readers share."""

    __slots__ = ()

    def _called(self, name: Any) -> None:
        """Count the start of a tool call: its name, and what the model writes around it."""
        if type(name) is str and name:
            self._count(name)
            self._add_units(_CALL)

    def input_tokens(self) -> int | None:
        """None: these streams say it at their end."""
        return None


class ChatReader(_Reader):
    """Reads the chunks of one Chat Completions stream."""

    __slots__ = ("_choices", "_finished", "_known", "_quick", "_read", "_tier", "_usage")

    def __init__(self, rates: Rates, choices: int, read: Callable[[Any, Any], Usage]) -> None:
        super().__init__(rates)
        self._choices = choices
        self._finished: dict[Any, str] = {}
        self._read = read
        self._known = False  # whether a chunk was read for its id and model: the first ones take the long way
        self._quick = False  # whether text may be counted without a look at why its choice ends
        self._tier: Any = None
        self._usage: Any = None

    def hand_on(self, chunks: Iterator[Any], watch: Watch) -> Generator[Any, None, None]:
        """See `StreamReader`."""
        feed, rate, quick, choice, chunk = self.feed, self._rate, False, None, None
        with watch:
            try:
                yield None
                for chunk in chunks:
                    try:
                        (choice,) = chunk.choices
                        text = choice.delta.content
                        if text and quick:
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
            finally:
                self._left(chunk, choice)

    async def hand_on_async(self, chunks: AsyncIterator[Any], watch: Watch) -> AsyncGenerator[Any, None]:
        """See `StreamReader`."""
        feed, rate, quick, choice, chunk = self.feed, self._rate, False, None, None
        with watch:
            try:
                yield None
                async for chunk in chunks:
                    try:
                        (choice,) = chunk.choices
                        text = choice.delta.content
                        if text and quick:
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
            finally:
                self._left(chunk, choice)

    def feed(self, chunk: Any) -> bool:
        """Count one chunk. Text and the arguments of a tool, of the only choice, take a shorter way than the rest."""
        try:
            (choice,) = chunk.choices
            # Two entries of the dictionary for the price of one attribute: a model of the SDK is slow to ask.
            fields = choice.__dict__
            delta = fields["delta"]
            text = delta.content
            if fields["finish_reason"] is None and self._known:
                if text:
                    self._count(text)
                    return self.units > self.limit
                (call,) = delta.tool_calls
                if not call.function.name:
                    self._count(call.function.arguments)
                    return self.units > self.limit
        except Exception:
            pass
        with suppress(Exception):  # whatever this was, it is not ours to complain about
            return self._chunk(chunk) or self.units > self.limit
        return self.units > self.limit

    def _chunk(self, chunk: Any) -> bool:
        if self._id is None:
            self._id = string(get(chunk, "id"))
            if self._id or self.units:  # Azure's first chunk has none; some hosts never send one
                self._known = True
                self._quick = self._choices == 1
        self._model = string(get(chunk, "model")) or self._model
        usage = self._said(chunk)
        choices = items(get(chunk, "choices"))
        for choice in choices:
            delta = get(choice, "delta")
            if delta is not None:
                self._delta(delta)
            self._ended_by(choice)
        if usage is None or choices:
            return False
        self.terminal = True
        return True

    def _said(self, chunk: Any) -> Any:
        """Keep the usage and the tier of a chunk that has them."""
        self._tier = string(get(chunk, "service_tier")) or self._tier
        usage = get(chunk, "usage")
        if usage is not None:
            self._usage = usage
        return usage

    def _left(self, chunk: Any, choice: Any) -> None:
        """A loop is left. Its last chunk, and its last choice, may have been counted for their text alone.

        Another loop over the same stream may have read further: what it was told stays, as usage only grows.
        """
        with suppress(Exception):
            self._ended_by(choice)
            self._id = self._id or string(get(chunk, "id"))
            usage = get(chunk, "usage")
            if usage is None or _output(usage) >= _output(self._usage):
                self._said(chunk)

    def _ended_by(self, choice: Any) -> None:
        reason = string(get(choice, "finish_reason"))
        if reason:
            self._finished[get(choice, "index")] = reason
            if len(self._finished) >= self._choices:
                self.terminal = True

    def _delta(self, delta: Any) -> None:
        self._count(get(delta, "content"))
        for call in items(get(delta, "tool_calls")):
            self._call(get(call, "function"))
            self._call(get(call, "custom"))
        self._call(get(delta, "function_call"))
        self._count(get(delta, "refusal"))
        # What hosts that speak this API call their shown reasoning.
        self._count(get(delta, "reasoning_content") or get(delta, "reasoning"), True)
        audio = get(delta, "audio")
        if audio is not None:
            self._count(get(audio, "transcript"))
            data = get(audio, "data")
            if isinstance(data, str):
                self._add_units(len(data) * _AUDIO_UNITS // 10_000)
            if get(audio, "expires_at") is not None:  # the last of its choice: audio ends without a finish reason
                self.terminal = True

    def _call(self, call: Any) -> None:
        if call is not None:
            self._called(get(call, "name"))
            self._count(get(call, "arguments"))
            self._count(get(call, "input"))

    def is_usage_only(self, chunk: Any) -> bool:
        """Whether the chunk is the extra one that `include_usage` brings (`choices` empty, `usage` set)."""
        return get(chunk, "usage") is not None and get(chunk, "choices") == []

    def answer(self) -> Answer:
        """What is known so far."""
        usage = None if self._usage is None else self._read(self._usage, self._tier)
        return Answer(
            usage=usage,
            id=self._id,
            model=self._model,
            finish_reasons=tuple(self._finished.values()),
            text=self._text(usage),
        )


def _output(usage: Any) -> int:
    return integer(get(usage, "completion_tokens"))


class ResponseReader(_Reader):
    """Reads the events of one Responses stream."""

    __slots__ = ("_answer", "_error", "_quick", "_read", "_status")

    def __init__(self, rates: Rates, read: Callable[[Any], Answer]) -> None:
        super().__init__(rates)
        self._answer: Answer | None = None
        self._quick: Any = None  # the SDK's class of a delta of output text, once one has come
        self._read = read
        self._status: str | None = None
        self._error: str | None = None

    def hand_on(self, chunks: Iterator[Any], watch: Watch) -> Generator[Any, None, None]:
        """See `StreamReader`."""
        feed, rate, quick = self.feed, self._rate, self._quick
        with watch:
            yield None
            for chunk in chunks:
                try:
                    if type(chunk) is quick:
                        text = chunk.delta
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
                    if type(chunk) is quick:
                        text = chunk.delta
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
        """Count one event. A delta takes a shorter way than the rest."""
        try:
            kind = chunk.type
            if kind.endswith(".delta") and kind != "response.audio.delta":  # that one is base64
                if kind == "response.output_text.delta":
                    self._quick = type(chunk)
                self._count(chunk.delta, kind.startswith("response.reasoning"))
                return self.units > self.limit
        except Exception:
            pass
        with suppress(Exception):  # whatever this was, it is not ours to complain about
            self._event(chunk)
        return self.units > self.limit

    def _event(self, event: Any) -> None:
        kind = get(event, "type")
        if not isinstance(kind, str):
            return
        if kind.endswith(".delta"):
            if kind != "response.audio.delta":  # base64
                self._count(get(event, "delta"), kind.startswith("response.reasoning"))
        elif kind == "response.output_item.added":
            self._called(get(get(event, "item"), "name"))
        elif kind in ("response.completed", "response.incomplete", "response.failed"):
            self._answer = self._read(get(event, "response"))
            self.terminal = True
        elif kind == "error":
            nested = get(event, "error")
            self._error = string(get(event, "code")) or string(get(nested, "code")) or "error"
        elif kind in ("response.created", "response.queued", "response.in_progress"):
            response = get(event, "response")
            self._id = string(get(response, "id")) or self._id
            self._model = string(get(response, "model")) or self._model
            self._status = string(get(response, "status")) if get(response, "background") is True else None

    def is_usage_only(self, chunk: Any) -> bool:
        """Never: no event of these streams is ours."""
        return False

    def answer(self) -> Answer:
        """What is known so far: all of it once the event that ends the stream came."""
        ended = self._answer
        if ended is None:
            pending = self._status in ("queued", "in_progress")
            return Answer(id=self._id, model=self._model, text=self._text(None), pending=pending, error=self._error)
        return Answer(
            usage=ended.usage,
            id=ended.id or self._id,
            model=ended.model or self._model,
            finish_reasons=ended.finish_reasons,
            text=self._text(ended.usage),
            pending=ended.pending,
            error=ended.error or self._error,
        )
