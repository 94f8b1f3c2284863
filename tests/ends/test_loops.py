"""A loop over a stream is to the program what the SDK's own is: left, closed, thrown into and begun again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import anthropic
import openai
import pytest

from replay.clients import Clients
from replay.drive import next_of, settled
from replay.transcript import name_of
from shekel import ShekelInstrumentor
from shekel.doors import loops, tee
from shekel.testing import Reply

from .endings import FEW, SLOWLY, End, Seen
from .test_ends import compared
from .ways import WAYS, Way

WHOLE = Reply(output_tokens=30)


def loop(stream: Any) -> Any:
    """What a `for` loop makes of a stream."""
    return aiter(stream) if hasattr(stream, "__aiter__") else iter(stream)


async def close(iterator: Any) -> None:
    await settled(iterator.aclose() if hasattr(iterator, "aclose") else iterator.close())


async def some(seen: Seen, iterator: Any, at_most: int = 10_000) -> None:
    """Read on."""
    for _ in range(at_most):
        item = await next_of(iterator)
        seen.append(name_of(item))
        if item in (StopIteration, StopAsyncIteration):
            return


async def begun_again(seen: Seen, way: Way, clients: Clients) -> None:
    stream, _block = await way.open(clients)
    for at_most in (FEW, 1, FEW):
        await some(seen, loop(stream), at_most)
    await some(seen, loop(stream))
    await some(seen, loop(stream))
    await some(seen, stream)


async def left(seen: Seen, way: Way, clients: Clients) -> None:
    stream, _block = await way.open(clients)
    for _ in range(2):
        if hasattr(stream, "__aiter__"):
            async for event in stream:
                seen.append(name_of(event))
                break
        else:
            for event in stream:
                seen.append(name_of(event))
                break
    await some(seen, stream)


async def closed(seen: Seen, way: Way, clients: Clients) -> None:
    stream, _block = await way.open(clients)
    first = loop(stream)
    await some(seen, first, FEW)
    await close(first)
    await some(seen, first)
    unread = loop(stream)
    await close(unread)
    await some(seen, unread)
    await some(seen, loop(stream))


async def delegated(seen: Seen, way: Way, clients: Clients) -> None:
    stream, _block = await way.open(clients)

    def every() -> Iterator[Any]:
        yield from stream

    async def each() -> AsyncIterator[Any]:
        async for event in stream:
            yield event

    through = each() if hasattr(stream, "__aiter__") else every()
    await some(seen, through, FEW)
    await close(through)
    await some(seen, loop(stream))


async def thrown_into(seen: Seen, way: Way, clients: Clients) -> None:
    stream, _block = await way.open(clients)
    first = loop(stream)
    await some(seen, first, FEW)
    try:
        await settled(
            first.athrow(LookupError("ours")) if hasattr(first, "athrow") else first.throw(LookupError("ours"))
        )
    except LookupError as error:
        seen.append(name_of(error))
    await some(seen, first)
    await some(seen, loop(stream))


async def between(seen: Seen, way: Way, clients: Clients) -> None:
    stream, _block = await way.open(clients)
    await some(seen, stream, 1)
    first = loop(stream)
    for _ in range(FEW):
        await some(seen, first, 1)
        await some(seen, stream, 1)
    await some(seen, first)
    await some(seen, stream)


async def two_in_turn(seen: Seen, way: Way, clients: Clients) -> None:
    stream, _block = await way.open(clients)
    first, second = loop(stream), loop(stream)
    for _ in range(FEW):
        await some(seen, first, 1)
        await some(seen, second, 2)
    await some(seen, second)
    await some(seen, first)


async def outlives(seen: Seen, way: Way, clients: Clients) -> None:
    stream, block = await way.open(clients)
    first = loop(stream)
    if not way.managed:
        del stream, block
    await some(seen, first)


async def closed_meanwhile(seen: Seen, way: Way, clients: Clients) -> None:
    stream, _block = await way.open(clients)
    first = loop(stream)
    await some(seen, first, FEW)
    await settled(stream.close())
    rest: Seen = []  # as many as had come by then
    try:
        await some(rest, first)
    except Exception as error:
        rest.append(name_of(error))
    seen.append(rest[-1])


async def never_begun(seen: Seen, way: Way, clients: Clients) -> None:
    stream, _block = await way.open(clients)
    seen.append(name_of(loop(stream)))


async def dropped(seen: Seen, way: Way, clients: Clients) -> None:
    stream, _block = await way.open(clients)
    await some(seen, loop(stream), FEW)
    await some(seen, loop(stream), FEW)


READ = (begun_again, left, closed, delegated, thrown_into, between, two_in_turn, outlives)
LEFT = (closed_meanwhile, never_begun, dropped)
ENDS = [*(End(each.__name__, WHOLE, each, pooled=True) for each in READ)]
ENDS += [End(each.__name__, SLOWLY, each) for each in LEFT]
EVERY = [
    pytest.param(way, end, is_async, id=f"{end.name}-{way.name}-{'async' if is_async else 'sync'}")
    for end in ENDS
    for way in WAYS
    for is_async in (False, True)
]


@pytest.mark.parametrize(("way", "end", "is_async"), EVERY)
def test_a_loop_is_what_the_sdks_is(way: Way, end: End, is_async: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    metered = compared(way, end, is_async, monkeypatch)
    assert len(metered.spans) == 1
    assert (metered.held, len(metered.calls)) == (0.0, 1)
    assert metered.spent > 0
    if end.reply is WHOLE:
        assert metered.spent == pytest.approx(metered.ended.bill), "the charge is not the provider's bill"
    assert metered.ended.closed, "the provider still has the connection open"


@pytest.mark.usefixtures("nothing_in_force")
@pytest.mark.parametrize("kind", [openai.Stream, openai.AsyncStream, anthropic.Stream, anthropic.AsyncStream])
def test_the_loops_of_these_sdks_are_known(kind: Any) -> None:
    assert loops.is_known(kind.__dict__.get("__iter__") or kind.__dict__["__aiter__"])


def test_another_loop_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def backwards(self: Any) -> Iterator[Any]:
        yield from reversed(list(self._iterator))

    monkeypatch.setattr(openai.Stream, "__iter__", backwards)
    ShekelInstrumentor().instrument()
    try:
        assert openai.Stream.__iter__ is backwards
    finally:
        ShekelInstrumentor().uninstrument()
    for other in (len, object(), None, lambda self: iter(self._iterator)):
        assert not loops.is_known(other)


@pytest.mark.parametrize("iterator", [None, 1, [], iter(()), (each for each in ())])
def test_an_iterator_of_somebody_elses_has_no_watch(iterator: Any) -> None:
    assert tee.watch_of(iterator) is None
