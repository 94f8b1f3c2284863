"""No lock is held over I/O, `await` or a callback: each of these tests would hang if one were."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import openai
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import shekel
from shekel import Budget, BudgetExceededError, budget, late
from shekel.testing import FakeProvider, Reply

from .clients import async_client, sync_client
from .requests import MODEL, SHORT
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
    @pytest.mark.parametrize(("what", "stream"), [(what, number % 2 == 1) for number, what in enumerate(WHAT)])
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
            async with async_client(provider.openai_url) as client:
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
        returned = threading.Event()
        waited: list[bool] = []

        def on_warn(spent: float, limit: float) -> None:
            warned.set()
            waited.append(read.wait(30))
            returned.set()

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
        assert returned.wait(30)  # nobody waits for a callback, so neither does `flush`
        assert waited == [True]

    def test_who_asks_under_a_lock_of_the_program_that_a_callback_takes_too(
        self, provider: FakeProvider, client: openai.OpenAI
    ) -> None:
        """What was dropped ends in the thread that asks next: the callback must not run there, it would wait for it."""
        lock = threading.Lock()
        heard: list[str] = []

        def hear(what: str) -> None:
            with lock:
                heard.append(what)

        def work() -> None:
            b = budget("$0.0002", warn_at=0.000001, on_warn=lambda spent, limit: hear("warned"))
            for _ in range(20):  # the thread of ours may be the first to see it
                with b:
                    opened = client.chat.completions.create(**ASKED, stream=True)
                    next(iter(opened))
                    del opened
                    gc.collect()  # an SDK's stream is a cycle
                    with lock:
                        assert b.spent > 0
                b.reset()

        provider.default = Reply(output_tokens=200, pace=0.001)
        with shekel.on_usage(lambda event: hear("used")):
            finishes(work)
            wait_for(lambda: min(heard.count("used"), heard.count("warned")) == 20)

    def test_who_asks_under_a_lock_of_the_program_that_its_exporter_takes_too(
        self, provider: FakeProvider, client: openai.OpenAI
    ) -> None:
        """Nor is the program's OpenTelemetry told in the thread that asks, or while that thread waits."""
        lock = threading.Lock()
        exported: list[str] = []

        class Exporter(SpanExporter):
            def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
                with lock:
                    exported.extend(span.name for span in spans)
                return SpanExportResult.SUCCESS

        tracing = TracerProvider()
        tracing.add_span_processor(SimpleSpanProcessor(Exporter()))

        def work() -> None:
            b = budget(max_usd=1)
            for number in range(1, 21):
                with b:
                    opened = client.chat.completions.create(**ASKED, stream=True)
                    next(iter(opened))
                    with lock:
                        del opened
                        gc.collect()  # an SDK's stream is a cycle
                        assert b.spent > 0
                        assert (b.held, b.calls_used) == (0, number)

        provider.default = Reply(output_tokens=200, pace=0.001)
        shekel.ShekelInstrumentor().instrument(tracer_provider=tracing)
        try:
            finishes(work)
            wait_for(lambda: len(exported) == 20)
        finally:
            shekel.ShekelInstrumentor().uninstrument()

    @pytest.mark.parametrize("listening_ends", ["uninstrument", "force_flush", "shutdown"])
    def test_the_end_of_the_telling_waits_for_what_was_dropped_before(
        self, provider: FakeProvider, client: openai.OpenAI, listening_ends: str
    ) -> None:
        """Or the last spans would come to providers that are shut down."""
        exported: list[str] = []
        go_on = threading.Event()

        class Slow(SpanExporter):
            def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
                go_on.wait(30)
                exported.extend(span.name for span in spans)
                return SpanExportResult.SUCCESS

        provider.default = Reply(output_tokens=200, pace=0.001)
        tracing = TracerProvider()
        instrumentor = shekel.ShekelInstrumentor()
        instrumentor.instrument(tracer_provider=tracing)
        try:
            with budget(max_usd=1) as b:
                opened = client.chat.completions.create(**ASKED, stream=True)
                tracing.add_span_processor(SimpleSpanProcessor(Slow()))
                next(iter(opened))
                del opened
                gc.collect()  # an SDK's stream is a cycle
                assert b.spent > 0
            assert not exported, "who asks does not wait"
            threading.Timer(0.1, go_on.set).start()
            if listening_ends != "uninstrument":
                getattr(tracing, listening_ends)()
                assert len(exported) == 1
        finally:
            instrumentor.uninstrument()
        assert len(exported) == 1

    @pytest.mark.parametrize("ends", ["force_flush", "shutdown"])
    @pytest.mark.parametrize("make", [SimpleSpanProcessor, BatchSpanProcessor])
    def test_an_exporter_that_was_there_before_is_told_first(
        self, provider: FakeProvider, client: openai.OpenAI, make: Any, ends: str
    ) -> None:
        """Providers end their processors in the order in which they came."""
        tracing, exporter = TracerProvider(), InMemorySpanExporter()
        tracing.add_span_processor(make(exporter))
        shekel.ShekelInstrumentor().instrument(tracer_provider=tracing)
        try:
            for _ in range(3):
                opened = client.chat.completions.create(**ASKED, stream=True)
                next(iter(opened))
                del opened
                gc.collect()  # an SDK's stream is a cycle
            getattr(tracing, ends)()
            assert len(exporter.get_finished_spans()) == 3
        finally:
            shekel.ShekelInstrumentor().uninstrument()

    def test_a_flush_waits_no_longer_than_it_is_given(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        """Whoever flushes may hold the lock that its exporter takes."""
        lock = threading.Lock()
        exported: list[str] = []

        class Exporter(SpanExporter):
            def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
                with lock:
                    exported.extend(span.name for span in spans)
                return SpanExportResult.SUCCESS

        provider.default = Reply(output_tokens=200, pace=0.001)
        tracing = TracerProvider()
        tracing.add_span_processor(SimpleSpanProcessor(Exporter()))
        shekel.ShekelInstrumentor().instrument(tracer_provider=tracing)
        try:
            with lock:
                opened = client.chat.completions.create(**ASKED, stream=True)
                next(iter(opened))
                del opened
                gc.collect()  # an SDK's stream is a cycle
                before = time.monotonic()
                assert not tracing.force_flush(200)
                assert time.monotonic() - before < 5
            assert tracing.force_flush()
            assert len(exported) == 1
        finally:
            shekel.ShekelInstrumentor().uninstrument()

    def test_what_is_told_may_itself_flush(self) -> None:
        told, seconds = threading.Event(), list[float]()

        def callback() -> None:
            before = time.monotonic()
            late.told()
            seconds.append(time.monotonic() - before)
            told.set()

        late.start()
        late.put(lambda: late.tell(callback))
        assert told.wait(30)
        assert seconds[0] < late.PATIENCE / 2

    def test_the_end_of_the_program_waits_for_what_is_being_told(self) -> None:
        """Or the span of a stream that was dropped last would go with the thread that tells of it."""
        begun, told = threading.Event(), list[bool]()

        def export() -> None:
            begun.set()
            threading.Event().wait(0.2)
            told.append(True)

        late.start()
        late.put(lambda: late.tell(export))
        assert begun.wait(30)
        late.flush()
        assert not told, "who asks does not wait"
        late.finish()
        assert told == [True]


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
                    client.chat.completions.create(**ASKED, timeout=1.5)

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
