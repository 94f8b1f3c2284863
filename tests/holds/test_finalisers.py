"""Finalisers run in the middle of anything, inside every lock of ours too: they may read budgets and end streams.

A collection of garbage is forced at nearly every allocation, so that they strike in the middle of admissions and
settlements. A lock that is not made for it would hang these tests.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from shekel import Budget, BudgetExceededError, ShekelInstrumentor, budget, late, locks
from shekel.runtime import the_runtime
from shekel.testing import FakeProvider

from .clients import sync_client
from .requests import MODEL, SHORT
from .table import NANO
from .watchdog import finishes

ASKED: dict[str, Any] = {"model": MODEL, **SHORT}


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider() as running:
        yield running


@pytest.fixture
def client(provider: FakeProvider) -> Iterator[openai.OpenAI]:
    with sync_client(provider.openai_url) as made:
        yield made


class Striker:
    """Garbage whose finaliser runs a deed, and leaves new garbage for the next collection: at threshold 1, one strikes
    at nearly every allocation, and so inside every lock in which something is allocated."""

    armed = True

    def __init__(self, deed: Callable[[], None]) -> None:
        self.deed = deed
        self.cycle = self

    def __del__(self) -> None:
        if Striker.armed:
            self.deed()
            Striker(self.deed)


class TestFinalisers:
    @pytest.fixture(autouse=True)
    def told(self) -> Iterator[None]:
        """With telemetry, whose locks a finaliser may meet too."""
        traces = TracerProvider()
        traces.add_span_processor(SimpleSpanProcessor(InMemorySpanExporter()))
        instrumentor = ShekelInstrumentor()
        instrumentor.instrument(tracer_provider=traces, meter_provider=MeterProvider([InMemoryMetricReader()]))
        yield
        instrumentor.uninstrument()

    def strike(self, deed: Callable[[], None], work: Callable[[], object]) -> tuple[int, int]:
        """Run `work` with strikes; returns how many came inside a step of the ledger, and inside the books."""
        inside: list[tuple[bool, bool]] = []
        ledger = the_runtime().ledger
        raised: list[BaseException] = []

        def noted() -> None:
            inside.append((ledger.inside(), locks.books._is_owned()))  # type: ignore[attr-defined]
            try:
                deed()
            except BaseException as error:
                raised.append(error)

        thresholds = gc.get_threshold()
        gc.collect()

        def struck() -> None:
            Striker.armed = True
            Striker(noted)
            gc.set_threshold(1, 1_000_000, 1_000_000)  # only the youngest: a full collection each time takes minutes
            try:
                work()
            finally:
                Striker.armed = False
                gc.set_threshold(*thresholds)
                gc.collect()

        try:
            finishes(struck, 120)
        finally:
            Striker.armed = False
            gc.set_threshold(*thresholds)
        assert not raised, raised[0]
        return sum(ledger for ledger, _ in inside), sum(books for _, books in inside)

    def some_calls(self, client: openai.OpenAI, *budgets: Budget) -> None:
        for stream in (False, True, False):
            with budgets[0], budgets[1]:
                answer = client.chat.completions.create(**ASKED, stream=stream)
                if stream:
                    list(answer)

    def test_one_that_reads_budgets(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        outer = budget("$5/hr + 100 calls", name="outer", warn_at=0.0001, on_warn=lambda *_: None)
        inner = budget(max_usd=1, name="inner")

        def reads() -> None:
            assert inner.spent <= 1
            assert outer.held <= 5
            inner.summary_data()
            outer.limits()
            assert inner.exposure >= 0

        in_ledger, in_books = self.strike(reads, lambda: self.some_calls(client, outer, inner))
        assert in_ledger > 0
        assert in_books > 0
        provider.wait_idle()
        assert round(inner.spent * NANO) == provider.bill.total
        assert (inner.held, outer.held, outer.calls_used) == (0, 0, 3)

    @pytest.mark.parametrize("how", ["closed", "left by its generator", "dropped"])
    def test_one_that_ends_a_stream(self, provider: FakeProvider, client: openai.OpenAI, how: str) -> None:
        outer, inner = budget(max_usd=5, name="outer"), budget(max_usd=1, name="inner")
        ended: list[tuple[bool, bool]] = []
        streams: list[Any] = []
        ledger = the_runtime().ledger

        def reading(stream: Any) -> Iterator[Any]:
            with stream:
                yield from stream

        with outer, inner:
            for _ in range(12):
                opened: Any = client.chat.completions.create(**ASKED, stream=True)
                reader = reading(opened) if how == "left by its generator" else opened
                next(iter(reader))
                streams.append(reader)
            del opened, reader

        def ends() -> None:
            """Only where it would hurt: in the middle of a step."""
            if streams and locks.inside():
                ended.append((ledger.inside(), locks.books._is_owned()))  # type: ignore[attr-defined]
                if how == "closed":
                    streams.pop().close()
                else:
                    streams.pop()  # the last reference

        self.strike(ends, lambda: self.some_calls(client, outer, inner))
        assert len(ended) == 12, "it never struck inside a lock"
        late.flush()
        provider.wait_idle()
        assert (inner.held, outer.held) == (0, 0)
        assert inner.calls_used == outer.calls_used == 15
        assert inner.spent == outer.spent > 0

    def test_one_that_makes_a_call_is_answered_or_refused(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        outer, inner = budget(max_usd=5, name="outer"), budget(max_usd=1, name="inner")
        refusals: list[str] = []
        made: list[int] = []

        def calls() -> None:
            # Elsewhere it could meet a lock of the HTTP client's, which has nothing to do with a budget.
            if not the_runtime().ledger.inside() or len(made) >= 20:
                return
            made.append(1)
            with sync_client(provider.openai_url) as own, outer, inner:
                try:
                    own.chat.completions.create(**ASKED)
                except BudgetExceededError as error:
                    refusals.append(error.reason)

        self.strike(calls, lambda: self.some_calls(client, outer, inner))
        provider.wait_idle()
        assert made
        assert refusals == ["busy"] * len(made)
        assert len(provider.bill) == 3
        assert round(inner.spent * NANO) == provider.bill.total
        assert (inner.held, outer.held) == (0, 0)

    def test_a_budget_that_goes_in_the_middle_of_a_step(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        outer, inner = budget(max_usd=5, name="outer"), budget(max_usd=1, name="inner")
        gone: list[Budget] = []
        for _ in range(30):
            with budget(max_usd=1) as one, outer:
                client.chat.completions.create(**ASKED)
            gone.append(one)
        watched = [weakref.ref(each) for each in gone]
        del one
        live = len(the_runtime().ledger)

        def drops() -> None:
            if gone and locks.inside():
                gone.pop()

        self.strike(drops, lambda: self.some_calls(client, outer, inner))
        assert not gone, "it never struck inside a lock"
        late.flush()
        assert all(each() is None for each in watched)
        assert len(the_runtime().ledger) <= live - 30 + 2
        assert (inner.held, outer.held) == (0, 0)
