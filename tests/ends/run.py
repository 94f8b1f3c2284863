"""Runs one way to stream to one end, plain or metered, and keeps what the program, the provider and the logs saw."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
import warnings
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from replay.clients import clients
from replay.collecting import collected_by_hand
from replay.drive import run_now
from replay.transcript import name_of
from shekel.testing import FakeProvider

from .endings import End, Seen, collect
from .ways import Way

PATIENCE = 1.0
"""Seconds within which a stream that is gone must have been closed and settled."""


@dataclass(slots=True)
class Ended:
    """What was seen of one end.

    Attributes:
        seen: the types of the events, in order.
        error: the types of the exception that reached the program, of its cause and of what it was raised over.
        noise: log records from WARNING on, Python warnings and unraisable exceptions.
        closed: whether the provider saw the stream closed in time, while the program still ran.
        bill: what the provider charged, in USD.
    """

    seen: Seen = field(default_factory=list)
    error: list[str] = field(default_factory=list)
    noise: list[str] = field(default_factory=list)
    closed: bool = False
    bill: float = 0.0


def chain(error: BaseException | None) -> list[str]:
    """The types of an exception and of its causes, down to the SDK's transport."""
    names: list[str] = []
    while error is not None and len(names) < 3:
        names.append(name_of(error))
        error = error.__cause__
    return names


@contextmanager
def listening(noise: list[str]) -> Iterator[None]:
    """Collect everything that Python or a library complains of."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            noise.append(f"log {record.name}: {record.getMessage()}")

    handler, former = Handler(logging.WARNING), sys.unraisablehook
    logging.getLogger().addHandler(handler)
    sys.unraisablehook = lambda bad: noise.append(f"unraisable in {bad.object!r}: {bad.exc_value!r}")
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            warnings.filterwarnings("ignore", "The model .* is deprecated", DeprecationWarning)
            yield
        noise.extend(f"warning {warning.category.__name__}: {warning.message}" for warning in warned)
    finally:
        sys.unraisablehook = former
        logging.getLogger().removeHandler(handler)


def run(way: Way, end: End, *, is_async: bool, settled: Callable[[], bool], patience: float = PATIENCE) -> Ended:
    """Stream once, to its end.

    Args:
        settled: asked until it says yes or patience ends, after the stream is gone and while the client lives on.
        patience: seconds.
    """
    ended = Ended()
    with FakeProvider(end.reply) as provider:

        def gone() -> bool:
            open_ones = provider.open_streams if end.pooled else provider.open_connections
            return open_ones == 0 and settled()

        async def once(wait: Callable[[float], Awaitable[None]]) -> None:
            its = clients(_port(provider), is_async=is_async, timeout=end.timeout)
            try:
                await end.consume(ended.seen, way, its)
            except (Exception, asyncio.CancelledError) as error:
                ended.error = chain(error)
                task = asyncio.current_task() if is_async else None
                if task is not None and task.cancelling():
                    raise  # Ctrl+C, on its way through asyncio
            # The exception is gone, and with it the frames that held the stream. A program goes on, and collects later.
            await wait(0.01)
            collect()
            until = time.monotonic() + patience
            while not gone() and time.monotonic() < until:
                await wait(0.01)
            ended.closed = gone()
            await its.close()

        async def block(seconds: float) -> None:
            time.sleep(seconds)

        with listening(ended.noise), collected_by_hand():
            try:
                if is_async:
                    asyncio.run(once(asyncio.sleep))
                else:
                    run_now(once(block))
            except KeyboardInterrupt as error:
                ended.error = chain(error)
                error.__traceback__ = error.__context__ = None
                collect()
                until = time.monotonic() + patience
                while not gone() and time.monotonic() < until:
                    time.sleep(0.01)
                ended.closed = gone()
            collect()
        ended.bill = float(provider.bill.usd)
    return ended


def _port(provider: FakeProvider) -> int:
    return int(provider.openai_url.split(":")[2].split("/")[0])
