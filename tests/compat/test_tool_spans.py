"""The span of a tool's run: one for each, around what the tool does, with nothing of what went in or came out."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from shekel import AgentLoopError, ShekelInstrumentor, ToolBudgetExceededError, budget, late, tool

from .conftest import CENT

SECRET = "a secret of the user"


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    ShekelInstrumentor().instrument(tracer_provider=provider)
    yield exporter
    ShekelInstrumentor().uninstrument()


def one(exporter: InMemorySpanExporter) -> ReadableSpan:
    late.flush()
    [span] = exporter.get_finished_spans()
    exporter.clear()
    return span


@tool
def search(query: str) -> str:
    return f"{query} {SECRET}"


def test_it_has_the_name_and_no_content(exporter: InMemorySpanExporter) -> None:
    with budget():
        search(SECRET)
    span = one(exporter)
    assert (span.name, span.kind) == ("execute_tool search", SpanKind.INTERNAL)
    assert span.attributes == {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search"}
    assert span.status.status_code is StatusCode.UNSET
    assert SECRET not in span.to_json()


def test_there_is_one_outside_budgets_too(exporter: InMemorySpanExporter) -> None:
    search("x")
    assert one(exporter).name == "execute_tool search"


def test_what_the_tool_does_is_inside(exporter: InMemorySpanExporter, ask: Any) -> None:
    @tool
    def agent() -> None:
        ask()

    with trace.use_span(trace.NonRecordingSpan(trace.SpanContext(1, 2, False, trace.TraceFlags(1)))), budget(**CENT):
        agent()
    call, run = exporter.get_finished_spans()
    assert run.name == "execute_tool agent"
    assert run.parent is not None
    assert run.parent.span_id == 2
    assert call.parent is not None
    assert call.parent.span_id == run.context.span_id


def test_a_failure_is_named_and_not_quoted(exporter: InMemorySpanExporter) -> None:
    @tool
    def broken() -> None:
        raise OSError(SECRET)

    with pytest.raises(OSError, match=SECRET):
        broken()
    span = one(exporter)
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, None)
    assert span.attributes is not None
    assert span.attributes["error.type"] == "OSError"
    assert SECRET not in span.to_json()


def test_a_refusal_has_a_span_that_says_so(exporter: InMemorySpanExporter) -> None:
    with budget(max_tool_calls=1, loop_guard=True, loop_guard_max_calls=1):
        search("x")
        exporter.clear()
        with pytest.raises(AgentLoopError):
            search("x")
    assert (one(exporter).attributes or {})["error.type"] == "shekel.budgets.part_errors.AgentLoopError"
    with budget(max_tool_calls=1):
        search("x")
        exporter.clear()
        with pytest.raises(ToolBudgetExceededError):
            search("x")
    span = one(exporter)
    assert span.status.status_code is StatusCode.ERROR


async def test_coroutines(exporter: InMemorySpanExporter) -> None:
    @tool
    async def fetch() -> str:
        await asyncio.sleep(0)
        return trace.get_current_span().get_span_context().span_id.to_bytes(8).hex()

    inside = await fetch()
    span = one(exporter)
    assert span.context.span_id.to_bytes(8).hex() == inside
    assert not trace.get_current_span().is_recording()


class TestGenerators:
    def test_the_span_ends_with_the_last_item(self, exporter: InMemorySpanExporter) -> None:
        @tool
        def pages() -> Iterator[int]:
            yield 1
            yield 2

        for page in pages():
            assert page
            assert exporter.get_finished_spans() == ()
            assert not trace.get_current_span().is_recording(), "nothing is attached across a yield"
        assert one(exporter).status.status_code is StatusCode.UNSET

    @pytest.mark.parametrize("how", ["close", "drop"])
    def test_one_that_is_left_early_ends_without_an_error(self, exporter: InMemorySpanExporter, how: str) -> None:
        @tool
        def pages() -> Iterator[int]:
            yield 1
            yield 2

        steps: Any = pages()
        assert next(steps) == 1
        if how == "close":
            steps.close()
        del steps
        gc.collect()
        assert one(exporter).status.status_code is StatusCode.UNSET

    def test_one_that_is_never_started_has_none(self, exporter: InMemorySpanExporter) -> None:
        @tool
        def pages() -> Iterator[int]:
            yield 1

        pages()
        gc.collect()
        late.flush()
        assert exporter.get_finished_spans() == ()

    def test_a_failure_in_the_middle(self, exporter: InMemorySpanExporter) -> None:
        @tool
        def pages() -> Iterator[int]:
            yield 1
            raise OSError

        with pytest.raises(OSError):  # noqa: PT011
            list(pages())
        assert (one(exporter).attributes or {})["error.type"] == "OSError"

    async def test_async_ones(self, exporter: InMemorySpanExporter) -> None:
        @tool
        async def rows() -> AsyncIterator[int]:
            yield 1
            yield 2

        assert [row async for row in rows()] == [1, 2]
        assert one(exporter).name == "execute_tool rows"
        steps: Any = rows()
        assert await anext(steps) == 1
        await steps.aclose()
        assert one(exporter).status.status_code is StatusCode.UNSET

    def test_a_refusal_has_one(self, exporter: InMemorySpanExporter) -> None:
        @tool
        def pages() -> Iterator[int]:
            yield 1

        with budget(max_tool_calls=1):
            list(pages())
            exporter.clear()
            with pytest.raises(ToolBudgetExceededError):
                pages()
        assert one(exporter).status.status_code is StatusCode.ERROR


def test_suppressed_is_silent_and_still_counted(exporter: InMemorySpanExporter) -> None:
    with budget(max_tool_calls=1) as b, suppress_instrumentation():
        search("x")
        with pytest.raises(ToolBudgetExceededError):
            search("x")
    assert b.tool_calls_used == 1
    assert exporter.get_finished_spans() == ()


def test_uninstrumented_there_is_none_and_it_is_counted() -> None:
    with budget() as b:
        search("x")
    assert b.tool_calls_used == 1
