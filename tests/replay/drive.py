"""Makes the request of a record through the real SDK, and writes down everything the program can see.

Each way of calling ("surface") is written once, as a coroutine; with synchronous clients nothing in it ever waits,
so it runs to its end in one step. A surface must not know whether anything is instrumented.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from .clients import Clients
from .records import Record
from .server import ReplayServer
from .transcript import Transcript

# How much a client has read when it closes early is certain only of what the kernel hands over in one piece.
ONE_READ = 30_000
# Streams of this many bytes are not at their end after three chunks.
WORTH_A_LOOK = 2_000

Surface = Callable[[Transcript, Any, Record], Awaitable[None]]


def run_now(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    coroutine.close()
    raise RuntimeError("a surface waited although its clients are synchronous")


async def settled(value: Any) -> Any:
    """A value, or what it brings when it is awaited."""
    return await value if inspect.isawaitable(value) else value


async def each(stream: Any) -> AsyncIterator[Any]:
    """The items of a stream of either kind, in a `for` loop as a program would write it."""
    if hasattr(stream, "__aiter__"):
        async for item in stream:
            yield item
    else:
        for item in stream:
            yield item


@asynccontextmanager
async def inside(manager: Any) -> AsyncIterator[Any]:
    """`with` or `async with`."""
    if hasattr(manager, "__aenter__"):
        async with manager as entered:
            yield entered
    else:
        with manager as entered:
            yield entered


async def next_of(stream: Any) -> Any:
    """`next(stream)` of either kind; its end is told apart from every exception."""
    try:
        return await anext(stream) if hasattr(stream, "__anext__") else next(stream)
    except (StopIteration, StopAsyncIteration) as end:
        return type(end)


def resource_of(clients: Clients, record: Record) -> Any:
    if record.api == "messages":
        return clients.anthropic.beta.messages if record.beta else clients.anthropic.messages
    return clients.openai.chat.completions if record.api == "chat.completions" else clients.openai.responses


@functools.cache
def _parameters(function: Any) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters)


def arguments(method: Any, record: Record, *, stream_argument: bool = True) -> dict[str, Any]:
    """The record's request as keyword arguments; what the SDK has no parameter for goes into `extra_body`."""
    known = _parameters(getattr(method, "__func__", method))
    body = copy.deepcopy(record.request)
    if not stream_argument:
        body.pop("stream", None)
    given = {key: value for key, value in body.items() if key in known}
    others = {key: value for key, value in body.items() if key not in known}
    if others:
        given["extra_body"] = others
    return given | {"extra_headers": {"x-replay": record.id}}


async def consume(seen: Transcript, stream: Any) -> None:
    """Read a stream to its end and past it."""
    try:
        async for item in each(stream):
            seen.value("chunk", item)
    except Exception as error:
        seen.error("stream failed", error)
    else:
        seen.lines.append(("stream ended", None))
    try:
        seen.value("next after the end", await next_of(stream))
    except Exception as error:
        seen.error("next after the end failed", error)
    if hasattr(stream, "response"):
        seen.response("response", stream.response)


async def consume_closed(seen: Transcript, stream: Any, record: Record) -> None:
    """Read what a closed stream still gives, where that is the same every time."""
    if len(record.said.body) < ONE_READ:
        await consume(seen, stream)


async def result(seen: Transcript, answer: Any) -> None:
    """Write down what a call returned, a stream or an answer."""
    if hasattr(answer, "response") and hasattr(answer, "close"):
        seen.object("stream", answer)
        seen.response("response", answer.response)
        await consume(seen, answer)
    else:
        seen.value("answer", answer)


async def create(seen: Transcript, resource: Any, record: Record) -> None:
    await result(seen, await settled(resource.create(**arguments(resource.create, record))))


async def create_next(seen: Transcript, resource: Any, record: Record) -> None:
    """As `create`, but with `next()` in place of a loop, and `iter()` of the half-read stream."""
    stream = await settled(resource.create(**arguments(resource.create, record)))
    if not record.stream:
        return
    for _ in range(3):
        seen.value("next", await next_of(stream))
    if len(record.said.body) > WORTH_A_LOOK:
        seen.response("begun", stream.response)
    async for item in each(stream):
        seen.value("then", item)
        break
    await consume(seen, stream)


async def raw(seen: Transcript, resource: Any, record: Record) -> None:
    method = resource.with_raw_response.create
    answer = await settled(method(**arguments(method, record)))
    seen.lines.append(("raw", type(answer).__qualname__))
    seen.value("raw facts", [answer.status_code, answer.request_id, answer.retries_taken, str(answer.url)])
    parsed = await settled(answer.parse())
    again = await settled(answer.parse())
    seen.value("parsed again is the same", parsed is again)
    await result(seen, parsed)
    seen.response("raw response", answer.http_response)


async def raw_unparsed(seen: Transcript, resource: Any, record: Record) -> None:
    """A raw answer of which only the bytes are read."""
    method = resource.with_raw_response.create
    answer = await settled(method(**arguments(method, record)))
    http = answer.http_response
    body = await http.aread() if type(resource).__name__.startswith("Async") else http.read()
    seen.value("bytes", body)
    seen.response("raw response", answer.http_response)


async def streaming_response(seen: Transcript, resource: Any, record: Record) -> None:
    method = resource.with_streaming_response.create
    async with inside(method(**arguments(method, record))) as answer:
        seen.lines.append(("streaming response", type(answer).__qualname__))
        seen.value("status", answer.status_code)
        await result(seen, await settled(answer.parse()))
    seen.response("after the block", answer.http_response)


async def streaming_response_lines(seen: Transcript, resource: Any, record: Record) -> None:
    """A streamed answer of which the lines are read, so that the SDK never parses it."""
    method = resource.with_streaming_response.create
    async with inside(method(**arguments(method, record))) as answer:
        async for line in each(answer.iter_lines()):
            seen.value("line", line)
    seen.response("after the block", answer.http_response)


async def parse(seen: Transcript, resource: Any, record: Record) -> None:
    if record.stream:
        return
    given = arguments(resource.parse, record)
    await result(seen, await settled(resource.parse(**given)))


async def helper(seen: Transcript, resource: Any, record: Record) -> None:
    """`.stream()`: all its events, then its final answer, then past its end."""
    if not record.stream:
        return
    manager = resource.stream(**arguments(resource.stream, record, stream_argument=False))
    seen.object("manager", manager)
    async with inside(manager) as stream:
        seen.object("helper stream", stream)
        await consume(seen, stream)
        await _final(seen, stream)
    await _final(seen, stream)


async def helper_final(seen: Transcript, resource: Any, record: Record) -> None:
    """`.stream()` of which only the final answer is asked."""
    if not record.stream:
        return
    async with inside(resource.stream(**arguments(resource.stream, record, stream_argument=False))) as stream:
        await _final(seen, stream)
        await settled(stream.until_done())


async def helper_left(seen: Transcript, resource: Any, record: Record) -> None:
    """`.stream()` left after one event."""
    if not record.stream:
        return
    async with inside(resource.stream(**arguments(resource.stream, record, stream_argument=False))) as stream:
        seen.value("next", await next_of(stream))
    await consume_closed(seen, stream, record)


async def _final(seen: Transcript, stream: Any) -> None:
    for name in ("get_final_message", "get_final_completion", "get_final_response"):
        if hasattr(stream, name):
            try:
                seen.value(name, await settled(getattr(stream, name)()))
            except Exception as error:
                seen.error(name, error)


async def twice(seen: Transcript, resource: Any, record: Record) -> None:
    """A stream that is iterated twice, closed twice, and asked once more."""
    stream = await settled(resource.create(**arguments(resource.create, record)))
    if not record.stream:
        return
    await consume(seen, stream)
    await consume(seen, stream)
    for _ in range(2):
        await settled(stream.close())
    await consume(seen, stream)


async def closed_midway(seen: Transcript, resource: Any, record: Record) -> None:
    """A stream that is closed after two chunks, twice, and then read on."""
    stream = await settled(resource.create(**arguments(resource.create, record)))
    if not record.stream:
        return
    for _ in range(2):
        seen.value("next", await next_of(stream))
    for _ in range(2):
        seen.value("close", await settled(stream.close()))
        seen.response("closed", stream.response)
    await consume_closed(seen, stream, record)


async def copied(seen: Transcript, resource: Any, record: Record) -> None:
    """A copy of a half-read stream: they share what is left."""
    stream = await settled(resource.create(**arguments(resource.create, record)))
    if not record.stream:
        return
    seen.value("next", await next_of(stream))
    twin = copy.copy(stream)
    seen.object("twin", twin)
    seen.value("next of the twin", await next_of(twin))
    seen.value("next", await next_of(stream))
    await consume(seen, twin)
    await consume(seen, stream)


async def copied_unread(seen: Transcript, resource: Any, record: Record) -> None:
    """A copy of a stream that nobody has read from."""
    stream = await settled(resource.create(**arguments(resource.create, record)))
    if not record.stream:
        return
    twin = copy.copy(stream)
    seen.value("next of the twin", await next_of(twin))
    await consume(seen, twin)
    await consume(seen, stream)


async def in_a_block(seen: Transcript, resource: Any, record: Record) -> None:
    """`with stream:` left by `break`, and read on afterwards."""
    stream = await settled(resource.create(**arguments(resource.create, record)))
    if not record.stream:
        return
    async with inside(stream) as entered:
        seen.value("is itself", entered is stream)
        async for item in each(entered):
            seen.value("chunk", item)
            break
    seen.response("after the block", stream.response)
    await consume_closed(seen, stream, record)


async def failing_consumer(seen: Transcript, resource: Any, record: Record) -> None:
    """An exception of the consumer's own inside `with stream:`."""
    stream = await settled(resource.create(**arguments(resource.create, record)))
    if not record.stream:
        return
    async with inside(stream) as entered:
        async for item in each(entered):
            seen.value("chunk", item)
            raise LookupError("the consumer's own")


SURFACES: dict[str, Surface] = {
    surface.__name__: surface
    for surface in (
        create_next,
        raw,
        raw_unparsed,
        streaming_response,
        streaming_response_lines,
        parse,
        helper,
        helper_final,
        helper_left,
        twice,
        closed_midway,
        copied,
        copied_unread,
        in_a_block,
        failing_consumer,
    )
}
"""Every way of calling but the plain one."""

OF_BYTES = (raw_unparsed,)
"""Those that read the answer without the SDK's parsing, and did not say so beforehand."""


async def exchange(server: ReplayServer, clients: Clients, record: Record, surface: Surface) -> Transcript:
    """One record through one surface. Whatever it raises, warns of or sends is part of what was seen."""
    seen = Transcript()
    server.says[record.id] = record.said
    server.received.clear()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            await surface(seen, resource_of(clients, record), record)
        except (Exception, asyncio.CancelledError) as error:
            seen.error("raised", error)
    for warning in warned:
        seen.lines.append(("warned", (warning.category.__name__, str(warning.message), warning.filename)))
    seen.sent = [(request.path, request.headers, request.body) for request in server.received]
    return seen
