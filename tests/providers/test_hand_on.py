"""The loops that hand a stream on count what `feed` counts, chunk by chunk, whatever the chunks are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
from anthropic.types import RawMessageStreamEvent
from hypothesis import given
from hypothesis import strategies as st
from openai._models import construct_type
from openai.types.chat import ChatCompletionChunk
from openai.types.responses import ResponseStreamEvent

from shekel.estimation import Rates
from shekel.providers import find_endpoint
from shekel.providers.base import StreamReader

RATES = Rates(251, 302, 353, 604)
Chunk = dict[str, Any]

texts = st.one_of(
    st.sampled_from(["", " word", "é", "漢字", "🙂", "a—b", "x" * 40, "漢" * 40]), st.none(), st.text(max_size=12)
)
reasons = st.sampled_from([None, None, None, "stop", "length"])
usages = st.builds(lambda sent, made: {"prompt_tokens": sent, "completion_tokens": made}, *[st.integers(0, 9)] * 2)


@st.composite
def chat_choices(draw: st.DrawFn, index: int = 0, reason: str | None = None) -> Chunk:
    call = {"index": 0, "function": {"name": draw(texts), "arguments": draw(texts)}}
    deltas = [{"content": draw(texts)}, {"content": draw(texts)}, {"tool_calls": [call]}, {"reasoning": "so"}]
    return {"index": index, "delta": draw(st.sampled_from(deltas)), "finish_reason": reason}


@st.composite
def chat_streams(draw: st.DrawFn, choices: int) -> list[Chunk]:
    """Chunks of each choice, in any order; each may end with a reason, and usage may come with that or after it.

    The id comes with the first chunk, or a later one, or never, and stays.
    """
    indices = st.integers(0, choices - 1)
    bodies: list[Chunk] = [{"choices": [draw(chat_choices(draw(indices)))]} for _ in range(draw(st.integers(0, 9)))]
    for index in range(choices):
        reason = draw(reasons)
        if reason:
            more = {"usage": draw(usages)} if draw(st.booleans()) else {}
            bodies.append({"choices": [draw(chat_choices(index, reason))], **more})
    if draw(st.booleans()):
        bodies.append({"choices": [], "usage": draw(usages)})
    head = {"model": "m", "created": 0, "object": "chat.completion.chunk"}
    known = draw(st.integers(0, len(bodies)))
    return [{"id": "c1" if at >= known else "", **head, **body} for at, body in enumerate(bodies)]


kinds = st.sampled_from(
    [
        "response.output_text.delta",
        "response.output_text.delta",
        "response.refusal.delta",
        "response.reasoning_text.delta",
        "response.audio.delta",
        "response.something_new.delta",
        "response.output_text.done",
    ]
)
response_events = st.builds(lambda kind, text: {"type": kind, "delta": text, "sequence_number": 1}, kinds, texts)


@st.composite
def message_events(draw: st.DrawFn) -> Chunk:
    name, kind = draw(
        st.sampled_from(
            [
                ("text", "text_delta"),
                ("text", "text_delta"),
                ("partial_json", "input_json_delta"),
                ("thinking", "thinking_delta"),
                ("content", "compaction_delta"),
            ]
        )
    )
    usage = {"output_tokens": draw(st.integers(0, 9))}
    return draw(
        st.sampled_from(
            [
                *[{"type": "content_block_delta", "index": 0, "delta": {"type": kind, name: draw(texts)}}] * 6,
                {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": draw(texts)}},
                {"type": "message_delta", "delta": {"stop_reason": draw(reasons)}, "usage": usage},
                {"type": "ping"},
            ]
        )
    )


class Door:
    """Looks at what it must, keeps what is usage only, and raises the reader's limit, as a call does."""

    def __init__(self, reader: StreamReader, step: int) -> None:
        self.reader = reader
        self.step = step
        self.looked: list[int] = []
        self.entered = self.left = 0

    def __enter__(self) -> None:
        self.entered += 1

    def __exit__(self, *error: object) -> None:
        self.left += 1

    def feed(self, chunk: Any) -> bool:
        return self.reader.feed(chunk)

    def look(self, chunk: Any) -> bool:
        if self.reader.units > self.reader.limit:
            self.looked.append(self.reader.units)
            self.reader.limit = self.reader.units + self.step
        return self.reader.is_usage_only(chunk)

    async def look_async(self, chunk: Any) -> bool:
        return self.look(chunk)


def fed(reader: StreamReader, chunks: list[Any], step: int) -> tuple[list[Any], list[int]]:
    door = Door(reader, step)
    handed = [chunk for chunk in chunks if not (reader.feed(chunk) and door.look(chunk))]
    return handed, door.looked


def handed_on(reader: StreamReader, chunks: list[Any], step: int) -> tuple[list[Any], list[int]]:
    door = Door(reader, step)
    first, *handed = reader.hand_on(iter(chunks), door)
    assert first is None
    assert (door.entered, door.left) == (1, 1)
    return handed, door.looked


def handed_on_async(reader: StreamReader, chunks: list[Any], step: int) -> tuple[list[Any], list[int]]:
    door = Door(reader, step)

    async def source() -> AsyncIterator[Any]:
        for chunk in chunks:
            yield chunk

    async def read() -> list[Any]:
        return [chunk async for chunk in reader.hand_on_async(source(), door)]

    first, *handed = asyncio.run(read())
    assert first is None
    assert (door.entered, door.left) == (1, 1)
    return handed, door.looked


APIS: dict[str, tuple[str, str, Chunk, Any, st.SearchStrategy[Chunk] | None]] = {
    "chat": ("openai", "/chat/completions", {"messages": []}, ChatCompletionChunk, None),
    "responses": ("openai", "/responses", {"input": ""}, ResponseStreamEvent, response_events),
    "messages": ("anthropic", "/v1/messages", {"messages": []}, RawMessageStreamEvent, message_events()),
}


@pytest.mark.parametrize("api", list(APIS))
@given(data=st.data())
def test_the_loops_count_what_feed_counts(api: str, data: st.DataObject) -> None:
    provider, path, body, kind, events = APIS[api]
    endpoint = find_endpoint(provider, "POST", path)
    assert endpoint is not None
    choices = data.draw(st.sampled_from([1, 1, 2])) if api == "chat" else 1
    request = endpoint.read_request({"model": "m", "stream": True, "n": choices, **body})
    drawn = data.draw(chat_streams(choices) if events is None else st.lists(events, max_size=12))
    chunks = [construct_type(type_=kind, value=event) for event in drawn]
    step = data.draw(st.sampled_from([0, 500, 4_000]))

    def outcome(way: Callable[[StreamReader, list[Any], int], tuple[list[Any], list[int]]]) -> tuple[Any, ...]:
        reader = endpoint.reader(request, RATES)
        reader.limit = -1
        handed, looked = way(reader, chunks, step)
        answer = reader.answer()
        if answer.id is None and api == "chat" and chunks:  # at its end a loop looks for the id once more
            answer = replace(answer, id=chunks[-1].id or None)
        return [id(chunk) for chunk in handed], looked, reader.units, reader.terminal, answer

    expected = outcome(fed)
    assert outcome(handed_on) == expected
    assert outcome(handed_on_async) == expected


def chat_reader(n: int = 1) -> StreamReader:
    endpoint = find_endpoint("openai", "POST", "/chat/completions")
    assert endpoint is not None
    reader = endpoint.reader(endpoint.read_request({"model": "m", "messages": [], "n": n}), RATES)
    reader.limit = 1 << 60
    return reader


def chat_chunk(index: int = 0, reason: str | None = None, **more: Any) -> Any:
    choice = {"index": index, "delta": {"content": "text"}, "finish_reason": reason}
    value = {"id": "c1", "created": 0, "model": "m", "object": "chat.completion.chunk", "choices": [choice], **more}
    return construct_type(type_=ChatCompletionChunk, value=value)


def chat_usage(made: int) -> Chunk:
    return {"prompt_tokens": 3, "completion_tokens": made, "total_tokens": 3 + made}


@pytest.mark.parametrize("n", [1, 2])
def test_a_last_chunk_with_text_reason_and_usage(n: int) -> None:
    """As some hosts that speak the API end a stream: everything is in one chunk, which still is an answer's end."""
    reader = chat_reader(n)
    chunks = [chat_chunk(index) for index in range(n) for _ in range(3)]
    chunks += [chat_chunk(index, "stop", usage=chat_usage(4)) for index in range(n)]
    assert len(list(reader.hand_on(iter(chunks), Door(reader, 0)))) == 1 + len(chunks)
    answer = reader.answer()
    assert reader.terminal
    assert answer.finish_reasons == ("stop",) * n
    assert answer.usage is not None
    assert (answer.usage.input, answer.usage.output) == (3, 4)


def test_of_two_loops_over_a_stream_the_one_that_read_further_counts() -> None:
    """Left in the order in which they began: the first to begin read last, and was told more."""
    reader = chat_reader()
    chunks = iter([chat_chunk(usage=chat_usage(made)) for made in range(1, 9)])
    first, second = (reader.hand_on(chunks, Door(reader, 0)) for _ in range(2))
    for each, items in ((first, 3), (second, 3), (first, 3)):
        for _ in range(items):
            next(each)
    first.close()
    second.close()
    answer = reader.answer()
    assert answer.usage is not None
    assert answer.usage.output == 7


def test_a_last_chunk_without_usage_may_still_tell_the_tier() -> None:
    """Usage came before, as some hosts send it; what the last chunk says beside its text is read all the same."""
    reader = chat_reader()
    chunks = [chat_chunk(usage=chat_usage(4)), chat_chunk(), chat_chunk(service_tier="flex")]
    assert len(list(reader.hand_on(iter(chunks), Door(reader, 0)))) == 1 + len(chunks)
    answer = reader.answer()
    assert answer.usage is not None
    assert (answer.usage.output, answer.usage.service_tier) == (4, "flex")
