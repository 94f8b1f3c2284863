"""Thirteen ends of a stream: what the provider does, and what the consumer does. Written once for sync and async."""

from __future__ import annotations

import asyncio
import gc
import signal
import threading
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from replay.clients import Clients
from replay.drive import each, inside, next_of, settled
from replay.transcript import name_of
from shekel.testing import Reply

from .ways import Way

FEW = 3
"""Events that are read before a stream is left."""

TIMEOUT = 0.25
"""Seconds that a client waits for the next byte where the provider stalls."""

# Slow enough that a stream which is left after a few events is far from its end.
SLOWLY = Reply(output_tokens=2000, pace=0.002)
STALLS = Reply(output_tokens=200, stall_after=20)

Seen = list[str]
Consumer = Callable[[Seen, Way, Clients], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class End:
    """One way for a stream to end.

    Attributes:
        reply: what the provider does.
        consume: what the program does; it notes what it sees.
        failed: whether the span's status is an error; None where that is what the SDK makes of it.
        kinds: "sync", "async" or both.
        timeout: of the client, in seconds.
        pooled: whether the SDK keeps the connection for its next call.
    """

    name: str
    reply: Reply
    consume: Consumer
    failed: bool | None = False
    kinds: tuple[str, ...] = ("sync", "async")
    timeout: float = 20.0
    pooled: bool = field(default=False)


async def read_all(seen: Seen, way: Way, clients: Clients) -> None:
    stream, block = await way.open(clients)
    async with AsyncExitStack() as stack:
        if way.managed:
            stack.push_async_exit(_leaving(block))
        async for event in each(stream):
            seen.append(name_of(event))


def _leaving(manager: Any) -> Any:
    """The exit of a manager of either kind that was entered by hand."""

    async def leave(*exc: Any) -> Any:
        return await settled((getattr(manager, "__aexit__", None) or manager.__exit__)(*exc))

    return leave


async def break_and_drop(seen: Seen, way: Way, clients: Clients) -> None:
    # Written out for both kinds: a generator in between would end the loop otherwise than a program's own `break`.
    stream, block = await way.open(clients)
    if hasattr(stream, "__aiter__"):
        async for event in stream:
            seen.append(name_of(event))
            if len(seen) == FEW:
                break
    else:
        for event in stream:
            seen.append(name_of(event))
            if len(seen) == FEW:
                break
    del stream, block


async def close(seen: Seen, way: Way, clients: Clients) -> None:
    stream, _block = await way.open(clients)
    for _ in range(FEW):
        seen.append(name_of(await next_of(stream)))
    await settled(stream.close())
    await settled(stream.close())


async def leave_the_block(seen: Seen, way: Way, clients: Clients) -> None:
    made = await settled(way.call(clients))
    async with inside(made) as stream:
        for _ in range(FEW):
            seen.append(name_of(await next_of(stream)))


async def fail(seen: Seen, way: Way, clients: Clients) -> None:
    stream, _block = await way.open(clients)
    if hasattr(stream, "__aiter__"):
        async for event in stream:
            seen.append(name_of(event))
            raise LookupError("the consumer's own")
    else:
        for event in stream:
            seen.append(name_of(event))
            raise LookupError("the consumer's own")


async def drop_midway(seen: Seen, way: Way, clients: Clients) -> None:
    stream, block = await way.open(clients)
    for _ in range(FEW):
        seen.append(name_of(await next_of(stream)))
    del stream, block


async def never_read(seen: Seen, way: Way, clients: Clients) -> None:
    stream, block = await way.open(clients)
    seen.append(name_of(stream))
    del stream, block


async def cancelled(seen: Seen, way: Way, clients: Clients) -> None:
    task = asyncio.ensure_future(read_all(seen, way, clients))
    await _until_it_waits(seen)
    task.cancel()
    await task


async def _until_it_waits(seen: Seen) -> None:
    """Until a stream that stalls has brought all it brings."""
    before = -1
    while len(seen) != before or not seen:
        before = len(seen)
        await asyncio.sleep(0.1)


async def interrupted(seen: Seen, way: Way, clients: Clients) -> None:
    main = threading.main_thread().ident
    assert main is not None
    assert threading.get_ident() == main, "Ctrl+C reaches the main thread alone"
    # 0.4 s: the twenty tokens before the stall take a few milliseconds.
    threading.Timer(0.4, signal.pthread_kill, (main, signal.SIGINT)).start()
    await read_all(seen, way, clients)


ENDS = (
    End("exhausted", Reply(output_tokens=30), read_all, pooled=True),
    End("break", SLOWLY, break_and_drop),
    End("close", SLOWLY, close),
    End("leaving-with", SLOWLY, leave_the_block),
    End("consumer-exception", SLOWLY, fail),
    End("dropped", SLOWLY, drop_midway),
    End("never-iterated", SLOWLY, never_read),
    End("connection-lost", Reply(output_tokens=200, drop_after=20), read_all, failed=True),
    End("early-eof", Reply(output_tokens=200, eof_after=20), read_all, failed=None, pooled=True),
    End("read-timeout", STALLS, read_all, failed=True, timeout=TIMEOUT),
    End("task-cancelled", STALLS, cancelled, kinds=("async",)),
    End("ctrl-c", STALLS, interrupted),
    End("error-event", Reply(output_tokens=200, error_event_after=20), read_all, failed=True, pooled=True),
)


def collect() -> None:
    """Garbage collection, twice, as what a finaliser lets go is found the next time."""
    gc.collect()
    gc.collect()
