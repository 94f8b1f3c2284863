"""Streams of OpenAI, read chunk by chunk as they pass: Chat Completions and Responses.

Each `feed` has a short way for what nearly all chunks are (ASCII text of one choice), and a method for all the rest.
Keeps counts and the usage, never a chunk, and imports no SDK.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from shekel.estimation import Rates
from shekel.usage import Usage

from .base import Answer
from .body import get, items, string
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

    __slots__ = ("_choices", "_finished", "_known", "_read", "_tier", "_usage")

    def __init__(self, rates: Rates, choices: int, read: Callable[[Any, Any], Usage]) -> None:
        super().__init__(rates)
        self._choices = choices
        self._finished: dict[Any, str] = {}
        self._read = read
        self._known = False  # whether a chunk was read for its id and model: the first ones take the long way
        self._tier: Any = None
        self._usage: Any = None

    def feed(self, chunk: Any) -> bool:
        """Count one chunk. The hot path: the only choice brings content in ASCII, and goes on."""
        try:
            (choice,) = chunk.choices
            # Two entries of the dictionary for the price of one attribute: a model of the SDK is slow to ask.
            fields = choice.__dict__
            delta = fields["delta"]
            text = delta.content
            if fields["finish_reason"] is None and self._known:
                if text:
                    if text.isascii():
                        units = self.units = self.units + len(text) * self._rate
                        return units > self.limit
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
        self._model = string(get(chunk, "model")) or self._model
        self._tier = string(get(chunk, "service_tier")) or self._tier
        usage = get(chunk, "usage")
        if usage is not None:
            self._usage = usage
        choices = items(get(chunk, "choices"))
        for choice in choices:
            delta = get(choice, "delta")
            if delta is not None:
                self._delta(delta)
            reason = string(get(choice, "finish_reason"))
            if reason:
                self._finished[get(choice, "index")] = reason
                self.terminal = len(self._finished) >= self._choices
        if usage is None or choices:
            return False
        self.terminal = True
        return True

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


class ResponseReader(_Reader):
    """Reads the events of one Responses stream."""

    __slots__ = ("_answer", "_error", "_read", "_status")

    def __init__(self, rates: Rates, read: Callable[[Any], Answer]) -> None:
        super().__init__(rates)
        self._answer: Answer | None = None
        self._read = read
        self._status: str | None = None
        self._error: str | None = None

    def feed(self, chunk: Any) -> bool:
        """Count one event. The hot path: a delta of output text in ASCII."""
        try:
            kind = chunk.type
            if kind == "response.output_text.delta":
                text = chunk.delta
                if text.isascii():
                    units = self.units = self.units + len(text) * self._rate
                    return units > self.limit
            if kind.endswith(".delta") and kind != "response.audio.delta":  # that one is base64
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
