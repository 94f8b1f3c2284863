"""Nothing is kept: not a chunk of a long stream, nothing of a stream that was dropped."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import openai
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider

from shekel import ShekelInstrumentor, budget, late
from shekel.call import open_calls
from shekel.ledgers.memory import REMEMBERED

MODEL = "gpt-4o-mini"
HELLO: list[Any] = [{"role": "user", "content": "Hello"}]


def event(**delta: str) -> bytes:
    chunk = {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": MODEL,
        "choices": [{"index": 0, "delta": delta, "finish_reason": None}],
    }
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


class Endless(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """A body of so many events, made as it is read."""

    def __init__(self, events: int) -> None:
        self.events = events

    def __iter__(self) -> Iterator[bytes]:
        each = event(content=" word")
        for _ in range(self.events):
            yield each

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for each in self:
            yield each


def transport(events: int) -> httpx2.MockTransport:
    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=Endless(events))

    return httpx2.MockTransport(answer)


@pytest.fixture(autouse=True)
def instrumented() -> Iterator[None]:
    reader = InMemoryMetricReader()
    ShekelInstrumentor().instrument(tracer_provider=TracerProvider(), meter_provider=MeterProvider([reader]))
    yield
    ShekelInstrumentor().uninstrument()


def resident() -> int:
    """Bytes of memory that the process holds now."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096


@pytest.fixture(autouse=True)
def only_what_is_new() -> Iterator[None]:
    """Leave what other tests have made out of the collections and the counts: in a long session that is most."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def settled() -> tuple[int, int]:
    """Objects and bytes after everything that can go has gone.

    Plain containers are left out: the ledger remembers the amounts of its last 10,000 calls, for corrections.
    """

    def count() -> int:
        for _ in range(3):
            gc.collect()
            late.flush()
        return sum(type(each) not in (dict, tuple, list) for each in gc.get_objects())

    before, objects = count() + 1, count()
    while objects < before:  # a thread closes what was dropped
        time.sleep(0.02)
        before, objects = objects, count()
    return objects, resident()


@pytest.mark.parametrize("chunks", [10_000, pytest.param(50_000, marks=pytest.mark.slow)])
def test_chunks_leave_nothing(chunks: int) -> None:
    with openai.OpenAI(api_key="t", http_client=httpx2.Client(transport=transport(chunks))) as client:
        with budget(max_usd=5):
            stream = client.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
            for _ in range(1_000):
                next(stream)
            objects, size = settled()
            for _ in range(chunks - 2_000):
                next(stream)
            more_objects, more_size = settled()
    assert more_objects - objects < 100
    assert more_size - size < 4 << 20


@pytest.mark.parametrize(
    ("before", "streams"),
    # The long run compares from where the ledger's memory of ended calls is full, and where the allocator has seen
    # its peak: responses wait for the cyclic collector.
    [(1_000, 1_000), pytest.param(10_000, 10_000, marks=pytest.mark.slow)],
)
def test_abandoned_streams_leave_nothing(before: int, streams: int) -> None:
    with openai.OpenAI(api_key="t", http_client=httpx2.Client(transport=transport(20))) as client:
        with budget(max_usd=100, name="abandoned") as b:

            def abandon(count: int) -> None:
                for index in range(count):
                    stream = client.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
                    if index % 2:
                        next(stream)
                    del stream

            abandon(before)
            objects, size = settled()
            blocks = sys.getallocatedblocks()
            abandon(streams)
            more_objects, more_size = settled()
            more_blocks = sys.getallocatedblocks() - blocks
            assert b.calls_used == before + streams
            assert b.held == 0
    assert open_calls == {}
    assert more_objects - objects < 500
    assert more_size - size < 8 << 20
    if before >= REMEMBERED:  # until then the ledger's memory of ended calls fills
        assert more_blocks < 2_000


def test_abandoned_async_streams_leave_nothing() -> None:
    async def quiet() -> tuple[int, int]:
        for _ in range(3):  # what is collected is closed by tasks of the loop
            settled()
            await asyncio.sleep(0.05)
        return settled()

    async def main() -> None:
        async with openai.AsyncOpenAI(api_key="t", http_client=httpx2.AsyncClient(transport=transport(20))) as client:
            async with budget(max_usd=100, name="abandoned") as b:

                async def abandon(count: int) -> None:
                    for index in range(count):
                        stream = await client.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
                        if index % 2:
                            await anext(aiter(stream))
                        del stream

                await abandon(300)
                objects, size = await quiet()
                await abandon(400)
                more_objects, more_size = await quiet()
                assert b.calls_used == 700
                assert b.held == 0
            assert more_objects - objects < 500
            assert more_size - size < 8 << 20

    asyncio.run(main())
    assert open_calls == {}
