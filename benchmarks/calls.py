"""What a metered call costs beside the plain SDK, in CPU time: per call, per short stream, per chunk.

    python -m benchmarks.calls [--rounds N] [--only WORD ...]

Three variants run in turn, in one process and thread: the plain SDK, the floor (the same span and metric records made
by hand, see `floor.py`) and Shekel. What is added is the median, over the rounds, of the difference to the plain SDK in
the same round, so that a slow moment of the machine meets all three.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

import shekel
from shekel import ShekelInstrumentor, budget

from .apis import APIS, Api, replay, use
from .floor import Floor, Listener
from .speed import Speed

LONG, SHORT = 4_000, 20
PARSED = 200
"""Pieces of text of a long stream that are parsed; a part of them is then repeated. A chunk that was parsed just now is
in the processor's caches, and so must these be."""

LIMIT_USD = 1_000.0
"""Far away: slices are extended all along a stream, and none is refused."""

CALLS = 4
"""Calls of a variant in each round, after one that is not counted."""

WARM_UP = 10
"""Rounds that are not counted: caches fill, the interpreter specialises."""


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the table.

    Attributes:
        api, is_async: what is called, and how.
        chunks: pieces of text of the stream; 0 for a plain call.
        limits: "none", "budget", or "budget+policy".
    """

    api: Api
    is_async: bool
    chunks: int
    limits: str

    @property
    def name(self) -> str:
        what = f"{self.chunks}-chunk stream" if self.chunks else "call"
        return f"{self.api.name:<9} {'async' if self.is_async else 'sync':<5} {what:<17} {self.limits}"


def cases() -> list[Case]:
    """All rows, in the table's order."""
    return [
        Case(api, is_async, chunks, each)
        for chunks, limits in (
            (SHORT, ("none", "budget")),
            (LONG, ("none", "budget")),
            (0, ("none", "budget", "budget+policy")),
        )
        for api in APIS
        for is_async in (False, True)
        for each in limits
    ]


@contextmanager
def limited(limits: str) -> Iterator[None]:
    """The budgets that the calls of a case are made under."""
    with ExitStack() as stack:
        if "policy" in limits:
            shekel.configure(policies=[shekel.per("user.id", f"${LIMIT_USD:.0f}/day")])
            stack.callback(shekel.configure, policies=[])
            stack.enter_context(shekel.scope(user_id="alice"))
        if "budget" in limits:
            stack.enter_context(budget(max_usd=LIMIT_USD, name="benchmark"))
        yield


@contextmanager
def instrumented(tracer_provider: Any, meter_provider: Any) -> Iterator[None]:
    """The copy of the SDKs that is in `sys.modules` is metered."""
    ShekelInstrumentor().instrument(tracer_provider=tracer_provider, meter_provider=meter_provider)
    try:
        yield
    finally:
        ShekelInstrumentor().uninstrument()


def dropping_tracer_provider() -> TracerProvider:
    """A tracer provider whose spans are recorded, and dropped when they end."""
    provider = TracerProvider()
    provider.add_span_processor(SpanProcessor())
    return provider


Call = Callable[[], Awaitable[None]]

Times = tuple[list[float], list[float], list[float]]
"""Seconds of CPU of the plain SDK, the floor and Shekel, round by round."""

Slopes = list[tuple[float, float]]
"""Seconds of CPU that each chunk of a long stream adds, as measured and at full speed, round by round; else empty."""


async def measure(case: Case, rounds: int, speed: Speed) -> tuple[Times, Slopes]:
    """Measure one row."""
    streamed = case.chunks > 0
    body = case.api.stream(min(case.chunks, PARSED)) if streamed else case.api.answer
    arguments = {**case.api.arguments, **(case.api.streaming if streamed else {})}
    calls = []
    replayed: list[list[Any]] = []
    with ExitStack() as stack:
        for plain in (True, False):
            use(case.api.sdk, plain=plain)
            method = case.api.method(case.api.client(body, stream=streamed, is_async=case.is_async))
            calls.append(partial(consume, method, arguments, case))
            if case.chunks == LONG:
                answer = method(**arguments)
                answer = await answer if case.is_async else answer
                chunks = [chunk async for chunk in answer] if case.is_async else list(answer)
                chunks[PARSED // 4 : PARSED // 2] *= LONG * 4 // PARSED - 3
                stack.callback(replay(type(answer), chunks, is_async=case.is_async))
                replayed.append(chunks)
        return await _measure(calls[0], calls[1], case, rounds, replayed, speed)


async def _measure(
    plain: Call, wrapped: Call, case: Case, rounds: int, replayed: list[list[Any]], speed: Speed
) -> tuple[Times, Slopes]:
    listener = Listener()
    with instrumented(listener.tracer_provider, listener.meter_provider), limited(case.limits):
        with listener.listening():
            await wrapped()
    meter_provider = MeterProvider([InMemoryMetricReader()])
    floor = Floor(listener.told(), dropping_tracer_provider(), meter_provider)

    async def by_hand() -> None:
        span = floor.start()
        await plain()
        floor.end(span)

    variants = (plain, by_hand, wrapped)
    times: Times = ([], [], [])
    slopes: Slopes = []

    async def seconds(call: Call) -> float:
        use(case.api.sdk, plain=call is not wrapped)
        await call()  # the processor's caches were just filled by something else
        start = time.thread_time()
        for _ in range(CALLS):
            await call()
        return (time.thread_time() - start) / CALLS

    with instrumented(dropping_tracer_provider(), meter_provider), limited(case.limits):
        for turn in range(rounds + WARM_UP):
            took = [0.0, 0.0, 0.0]
            share = speed.share()
            for which in (0, 1, 2) if turn % 2 else (2, 1, 0):
                took[which] = await seconds(variants[which])
            if replayed:
                with shortened(replayed):
                    least = await seconds(wrapped) - await seconds(plain)
            if turn >= WARM_UP:
                for kept, each in zip(times, took, strict=True):
                    kept.append(each)
                if replayed:
                    slope = (took[2] - took[0] - least) / (LONG - SHORT)
                    slopes.append((slope, slope * (share + speed.share()) / 2))
    return times, slopes


@contextmanager
def shortened(replayed: list[list[Any]]) -> Iterator[None]:
    """Streams that are replayed have the first and the last of their chunks only."""
    whole = [chunks.copy() for chunks in replayed]
    for chunks in replayed:
        del chunks[SHORT // 2 : SHORT // 2 - SHORT]
    yield
    for chunks, former in zip(replayed, whole, strict=True):
        chunks[:] = former


async def consume(method: Callable[..., Any], arguments: dict[str, Any], case: Case) -> None:
    """One call, its stream read to the end."""
    if case.is_async:
        answer = await method(**arguments)
        if case.chunks:
            async for _ in answer:
                pass
    else:
        answer = method(**arguments)
        if case.chunks:
            for _ in answer:
                pass


def added(variant: list[float], plain: list[float], per: int) -> str:
    """Median and half the interquartile range of what a variant adds, in microseconds."""
    low, middle, high = _quartiles(variant, plain)
    digits = 3 if per > 1 else 0
    return f"{middle / per:>11.{digits}f} ±{(high - low) / 2 / per:<6.{digits}f}"


def _quartiles(variant: list[float], plain: list[float]) -> list[float]:
    return statistics.quantiles([(a - b) * 1e6 for a, b in zip(variant, plain, strict=True)], n=4)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100, help="rounds per row")
    parser.add_argument("--only", nargs="*", default=[], help="words that a row's name must hold")
    options = parser.parse_args()
    print("µs of CPU; medians, ± half the interquartile range. A long stream is divided by its chunks, which were")
    print("parsed before: what is added holds the whole call's share. The last column is without it: by how much a")
    print("long stream adds more than one of 20 such chunks in the same round, for each chunk that it is longer; and")
    print("that at the machine's full speed (speed.py).")
    print(f"{'':<50}{'plain SDK':>10}{'floor adds':>16}{'Shekel adds':>20}{'× floor':>12}", end="")
    print(f"{'a chunk adds':>14}{'at full speed':>20}")
    speed = Speed()
    with asyncio.Runner() as loop:
        for case in cases():
            if not set(options.only) <= set(case.name.split()):
                continue
            gc.collect()
            (plain, floor, ours), slopes = loop.run(measure(case, options.rounds, speed))
            per = LONG if case.chunks == LONG else 1
            base = statistics.median(plain) * 1e6 / per
            row = f"{case.name:<42}{'/chunk' if per > 1 else '':<8}{base:>10.{2 if per > 1 else 0}f}"
            row += f"{added(floor, plain, per):<20}{added(ours, plain, per):<20}"
            if slopes:
                row += " " * 8
                for each in zip(*slopes, strict=True):
                    low, middle, high = statistics.quantiles([slope * 1e6 for slope in each], n=4)
                    row += f"{middle:>14.3f} ±{(high - low) / 2:.3f}"
            else:
                row += f"{_quartiles(ours, plain)[1] / _quartiles(floor, plain)[1]:>8.2f}"
            print(row, flush=True)


if __name__ == "__main__":
    main()
