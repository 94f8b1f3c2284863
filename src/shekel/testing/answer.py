"""The answer to one request, decided in full before its first byte: what is generated, token by token.

Every choice is a row of parts, every part a row of tokens; an empty token is one that is generated (and billed) but not
seen. The wire formats turn an answer into bytes, the server gives it time, the bill counts how much of it was made. It
knows none of the three.
"""

from __future__ import annotations

import enum
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .reply import Reply, ToolCall
from .schema import smallest
from .text import write
from .tokens import cut, pieces

# The stand-in's own figure: what a tool call costs beside its name and arguments, as the providers' framing does.
_TOOL_FRAME = 6


class Kind(enum.Enum):
    REASONING = "reasoning"
    TEXT = "text"
    TOOL = "tool"


class Finish(enum.Enum):
    STOP = "stop"
    LENGTH = "length"
    TOOL = "tool"


@dataclass(frozen=True, slots=True)
class Part:
    """A run of tokens of one kind. `name` and `id` are those of a tool call."""

    kind: Kind
    tokens: tuple[str, ...]
    name: str = ""
    id: str = ""

    @property
    def text(self) -> str:
        return "".join(self.tokens)

    def deltas(self, start: int, size: int) -> Iterator[tuple[int, str]]:
        """The part in pieces of `size` tokens, each with the number of the token (from `start`) that completes it."""
        for at in range(0, len(self.tokens), size):
            piece = self.tokens[at : at + size]
            if text := "".join(piece):
                yield start + at + len(piece), text


@dataclass(frozen=True, slots=True)
class Choice:
    """One choice: its parts in the order of generation, and why it ends."""

    index: int
    parts: tuple[Part, ...]
    finish: Finish

    @property
    def tokens(self) -> int:
        return sum(len(part.tokens) for part in self.parts)

    @property
    def reasoning(self) -> int:
        return sum(len(part.tokens) for part in self.parts if part.kind is Kind.REASONING)

    def of(self, kind: Kind) -> list[Part]:
        return [part for part in self.parts if part.kind is kind]


@dataclass(frozen=True, slots=True)
class Input:
    """The prompt, in tokens; the rest are parts of `total`."""

    total: int
    cached: int
    cache_write: int
    cache_write_1h: int

    @property
    def fresh(self) -> int:
        return self.total - self.cached - self.cache_write


@dataclass(frozen=True, slots=True)
class Asked:
    """What the request says of its answer, whichever API it came by. `tools` maps names to parameter schemas."""

    model: str
    stream: bool
    choices: int
    cap: int | None
    tools: Mapping[str, Mapping[str, Any]]
    tool: ToolCall | None
    """A call that the request itself forces."""
    schema: Mapping[str, Any] | None
    tier: str | None


@dataclass(frozen=True, slots=True)
class Answer:
    """Everything that an answer will be."""

    serial: str
    created: int
    body: Mapping[str, Any]
    asked: Asked
    reply: Reply
    input: Input
    choices: tuple[Choice, ...]

    @property
    def model(self) -> str:
        return self.reply.model or self.asked.model

    @property
    def tier(self) -> str | None:
        return self.reply.service_tier or self.asked.tier

    @property
    def steps(self) -> int:
        """Steps of generation: in each, every choice that is not finished gets a token."""
        return max(choice.tokens for choice in self.choices)

    @property
    def hidden(self) -> int:
        """Steps before the first visible token."""
        return max(choice.reasoning for choice in self.choices)

    def output(self, steps: int) -> tuple[int, int]:
        """Output tokens of all choices after so many steps, and how many of them are reasoning."""
        return (
            sum(min(steps, choice.tokens) for choice in self.choices),
            sum(min(steps, choice.reasoning) for choice in self.choices),
        )


def plan(serial: str, created: int, body: Mapping[str, Any], asked: Asked, reply: Reply, prompt: int) -> Answer:
    """Decide the whole answer.

    Args:
        serial: makes ids unique.
        created: Unix time in seconds.
        body: the request.
        asked: what it says.
        reply: what the test says.
        prompt: input tokens by the stand-in's count.
    """
    total = prompt if reply.input_tokens is None else reply.input_tokens
    cached = min(reply.cached_tokens, total)
    written = min(reply.cache_write_tokens, total - cached)
    tokens = Input(total, cached, written, min(reply.cache_write_1h_tokens, written))
    choices = tuple(_choice(serial, index, body, asked, reply) for index in range(asked.choices))
    return Answer(serial, created, body, asked, reply, tokens, choices)


def _choice(serial: str, index: int, body: Mapping[str, Any], asked: Asked, reply: Reply) -> Choice:
    # The text depends on the request and the choice alone, so that the same test says the same twice.
    seed = zlib.crc32(json.dumps(body, sort_keys=True).encode()) + index
    parts: list[Part] = []
    if reply.reasoning_tokens:
        shown = write("english", reply.reasoning_tokens, ~seed & 0xFFFF) if reply.show_reasoning else ()
        parts.append(Part(Kind.REASONING, shown or ("",) * reply.reasoning_tokens))
    calls = _calls(reply.tool_call) or ([asked.tool] if asked.tool else [])
    if reply.text is not None:
        parts.append(Part(Kind.TEXT, tuple(pieces(reply.text))))
    elif asked.schema is not None and not calls:
        parts.append(Part(Kind.TEXT, tuple(pieces(_json(smallest(asked.schema))))))
    elif not calls:
        parts.append(Part(Kind.TEXT, write(reply.script, reply.output_tokens, seed)))
    for at, call in enumerate(calls):
        name = call.name or next(iter(asked.tools), "tool")
        arguments = call.arguments
        if arguments is None:
            arguments = smallest(asked.tools.get(name) or {"type": "object"})
        frame = ("",) * (_TOOL_FRAME + len(pieces(name)))
        parts.append(Part(Kind.TOOL, frame + tuple(pieces(_json(arguments))), name, f"{serial}{index}{at}"))
    return _capped(Choice(index, tuple(parts), Finish.TOOL if calls else Finish.STOP), asked.cap)


def _capped(choice: Choice, cap: int | None) -> Choice:
    if cap is None or choice.tokens <= cap:
        return choice
    parts: list[Part] = []
    left = cap
    for part in choice.parts:
        if left <= 0:
            break
        kept = part.tokens[:left] if part.kind is not Kind.TEXT else tuple(cut(list(part.tokens), left))
        parts.append(Part(part.kind, kept, part.name, part.id))
        left -= len(kept)
    return Choice(choice.index, tuple(parts), Finish.LENGTH)


def _calls(calls: ToolCall | Sequence[ToolCall] | None) -> list[ToolCall]:
    if calls is None:
        return []
    return [calls] if isinstance(calls, ToolCall) else list(calls)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
