"""No lock is held over I/O, `await`, a callback or a finaliser: each of these tests would hang if one were."""

from __future__ import annotations

import asyncio
import gc
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import openai
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from shekel import Budget, BudgetExceededError, ShekelInstrumentor, budget, late, locks
from shekel.runtime import the_runtime
from shekel.testing import FakeProvider, Reply

from .watchdog import finishes

ASKED: dict[str, Any] = {
    "model": "gpt-4o-mini",
    "messages": [{"role": "user", "content": "Hello there, how are you today?"}],
    "max_completion_tokens": 64,
}
COST = 64 * 600 + 2_000
"""About what such a call costs, in nano-dollars."""


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider() as running:
        yield running


@pytest.fixture
def client(provider: FakeProvider) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=provider.openai_url, api_key="test", max_retries=0) as made:
        yield made


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until it is true; the watchdog watches."""
    pause = threading.Event()
    while not condition():
        pause.wait(0.005)


class Program:
    """What a program may do in a callback, with the budget that calls it."""

    def __init__(self, client: openai.OpenAI) -> None:
        self.client = client
        self.budget: Budget | None = None
        self.elsewhere = budget(max_usd=1, name="elsewhere")
        self.ran = 0

    def reads(self) -> None:
        b = self.budget
        assert b is not None
        assert b.spent >= 0
        assert b.held >= 0
        assert b.exposure >= 0
        b.summary_data()
        b.limits()

    def calls(self) -> None:
        try:
            self.client.chat.completions.create(**ASKED)
        except BudgetExceededError:
            assert self.budget is not None

    def enters(self) -> None:
        with self.elsewhere:
            self.client.chat.completions.create(**ASKED, stream=True).close()

    def collects(self) -> None:
        stream: Any = self.client.chat.completions.create(**{**ASKED, "max_completion_tokens": 16}, stream=True)
        cycle: list[Any] = [stream]
        cycle.append(cycle)
        next(iter(stream))
        del stream, cycle
        gc.collect()

    def changes(self) -> None:
        assert self.budget is not None
        self.budget.stop()
        self.budget.resume()
        self.budget.set_limit(1)

    def asks_a_thread(self) -> None:
        """The callback waits for a thread that reads the budget and makes a call."""
        assert self.budget is not None
        with ThreadPoolExecutor(1) as pool:
            pool.submit(self.reads).result()
            pool.submit(self.budget.bind(self.calls)).result()

    def raises(self) -> None:
        raise RuntimeError("the program's own")

    def callback(self, what: str) -> Callable[..., None]:
        """Does it the first time."""

        def called(*_: object) -> None:
            self.ran += 1
            if self.ran == 1:
                getattr(self, what)()

        return called


WHAT = ["reads", "calls", "enters", "collects", "changes", "asks_a_thread", "raises"]


class TestCallbacks:
    @pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
    @pytest.mark.parametrize("what", WHAT)
    def test_on_warn_may_do_anything(self, client: openai.OpenAI, what: str, stream: bool) -> None:
        program = Program(client)
        b = program.budget = budget(max_usd=0.001, warn_at=[0.01, 0.02], on_warn=program.callback(what))

        def work() -> None:
            with b:
                answer = client.chat.completions.create(**ASKED, stream=stream)
                assert len(list(answer)) > 1 if stream else answer.usage

        finishes(work)
        assert program.ran == 2
        assert b.held == 0

    @pytest.mark.parametrize("what", WHAT)
    def test_on_fallback_may_do_anything(self, client: openai.OpenAI, what: str) -> None:
        program = Program(client)
        b = program.budget = budget(
            max_usd=0.001, fallback={"at_pct": 0.01, "model": "gpt-4.1-nano"}, on_fallback=program.callback(what)
        )

        def work() -> None:
            with b:
                assert client.chat.completions.create(**ASKED).model.startswith("gpt-4o-mini")
                assert client.chat.completions.create(**ASKED).model.startswith("gpt-4.1-nano")

        finishes(work)
        assert program.ran == 1
        assert b.held == 0

    @pytest.mark.parametrize("what", WHAT)
    def test_on_exceed_may_do_anything(self, client: openai.OpenAI, what: str) -> None:
        program = Program(client)
        b = program.budget = budget(max_usd=0.00001, on_exceed=program.callback(what))

        def work() -> None:
            with b, pytest.raises(BudgetExceededError):
                client.chat.completions.create(**ASKED)

        finishes(work)
        assert program.ran >= 1
        assert b.held == 0

    def test_a_call_that_on_exceed_makes_is_not_asked_about(
        self, provider: FakeProvider, client: openai.OpenAI
    ) -> None:
        asked: list[str] = []

        def ask(question: Any) -> None:
            asked.append(question.unit)
            client.chat.completions.create(**ASKED)

        def work() -> None:
            with budget(max_usd=0.00001, on_exceed=ask), pytest.raises(BudgetExceededError):
                client.chat.completions.create(**ASKED)

        finishes(work)
        assert asked == ["usd"]
        assert len(provider.requests) == 0

    def test_a_callback_that_awaits(self, provider: FakeProvider) -> None:
        granted: list[str] = []

        async def work() -> None:
            async with openai.AsyncOpenAI(base_url=provider.openai_url, api_key="test", max_retries=0) as client:
                other = budget(max_usd=1)

                async def ask(question: Any) -> Any:
                    await asyncio.sleep(0)
                    async with other:  # inside the budget that asks: it does not fit there either
                        with pytest.raises(BudgetExceededError):
                            await client.chat.completions.create(**ASKED)
                    # Another task of this loop reads the budget meanwhile, and a thread does.
                    await asyncio.gather(asyncio.to_thread(lambda: b.spent), asyncio.sleep(0, b.held))
                    granted.append(question.unit)
                    return True

                b = budget(max_usd=0.00001, on_exceed=ask)
                async with b:
                    answer = await client.chat.completions.create(**ASKED)
                    assert answer.usage is not None

        finishes(lambda: asyncio.run(work()))
        assert granted == ["usd"]

    def test_a_warning_that_a_filter_makes_an_error(self, client: openai.OpenAI) -> None:
        outer = budget(max_usd=0.001, name="outer", warn_at=0.01)
        inner = budget(max_usd=0.001, name="inner", warn_at=0.01)

        def work() -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                with outer, inner:
                    assert client.chat.completions.create(**ASKED).usage is not None
                    assert client.chat.completions.create(**ASKED).usage is not None

        finishes(work)
        assert inner.spent == outer.spent > 0
        assert (inner.held, outer.held, outer.calls_used) == (0, 0, 2)

    def test_a_warning_about_a_dropped_stream_may_wait_for_whoever_reads_the_budget(
        self, provider: FakeProvider, client: openai.OpenAI
    ) -> None:
        """It comes in a thread of Shekel's, which must hold nothing that the reader waits for."""
        provider.default = Reply(pace=0.001)
        warned = threading.Event()
        read = threading.Event()
        waited: list[bool] = []

        def on_warn(spent: float, limit: float) -> None:
            warned.set()
            waited.append(read.wait(30))

        b = budget(max_usd=0.0005, warn_at=0.001, on_warn=on_warn)

        def work() -> None:
            with b:
                stream: Any = client.chat.completions.create(**ASKED, stream=True)
                next(iter(stream))
                del stream
                gc.collect()  # an SDK's stream is a cycle
            assert warned.wait(30)
            assert b.spent > 0
            with b:
                client.chat.completions.create(**ASKED)
            read.set()

        finishes(work)
        late.flush()
        assert waited == [True]


class TestIO:
    def test_a_connection_that_is_slow_to_close_keeps_nobody_waiting(self, client: openai.OpenAI) -> None:
        used = threading.Event()
        closed: list[bool] = []

        class Slow(httpx2.SyncByteStream):
            def __iter__(self) -> Iterator[bytes]:
                while True:
                    yield (
                        b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"gpt-4o-mini",'
                        b'"choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}]}\n\n'
                    )

            def close(self) -> None:
                closed.append(used.wait(30))

        transport = httpx2.MockTransport(
            lambda request: httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=Slow())
        )
        slow = openai.OpenAI(api_key="test", max_retries=0, http_client=httpx2.Client(transport=transport))
        b = budget(max_usd=0.01)

        def work() -> None:
            with b:
                stream: Any = slow.chat.completions.create(**ASKED, stream=True)
                del stream  # unread: one that was begun is closed by the SDK's own finaliser, wherever that runs
                gc.collect()
                # The first look at the budget, and the next call, come while that connection is closing.
                wait_for(lambda: b.calls_used == 1)
                client.chat.completions.create(**ASKED)
                assert b.spent > 0
            used.set()

        finishes(work)
        assert b.held == 0
        finishes(lambda: wait_for(lambda: closed == [True]))

    def test_calls_that_wait_for_the_provider_hold_nobody_up(
        self, provider: FakeProvider, client: openai.OpenAI
    ) -> None:
        provider.reply(*[Reply(stall_after=-1) for _ in range(8)])
        b = budget(max_usd=1)

        def work() -> None:
            def stuck() -> None:
                with b, pytest.raises(openai.APIError):
                    client.chat.completions.create(**ASKED, timeout=3)

            threads = [threading.Thread(target=stuck) for _ in range(8)]
            for thread in threads:
                thread.start()
            wait_for(lambda: len(provider.requests) == 8)
            with b:
                client.chat.completions.create(**ASKED)
            assert b.calls_used == 1
            assert b.held > 0
            for thread in threads:
                thread.join()

        finishes(work)
        assert b.held == 0


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
        assert round(inner.spent * 1e9) == provider.bill.total
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
            with openai.OpenAI(base_url=provider.openai_url, api_key="test", max_retries=0) as own, outer, inner:
                try:
                    own.chat.completions.create(**ASKED)
                except BudgetExceededError as error:
                    refusals.append(error.reason)

        self.strike(calls, lambda: self.some_calls(client, outer, inner))
        provider.wait_idle()
        assert made
        assert refusals == ["busy"] * len(made)
        assert len(provider.bill) == 3
        assert round(inner.spent * 1e9) == provider.bill.total
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
