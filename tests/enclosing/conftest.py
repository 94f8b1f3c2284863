"""A tracer of somebody else's on the global provider, and calls that cost a cent each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import openai
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from shekel.doors.processor import ShekelSpanProcessor
from shekel.testing import FakeProvider

MODEL = "gpt-4o-mini"
HELLO: list[Any] = [{"role": "user", "content": "Hello there."}]
CENT: dict[str, Any] = {"price_per_1k_tokens": {"input": 0.0, "output": 1.0}}
"""With answers of ten tokens each call costs $0.01, and holds that much where it is capped at ten."""

Spans = Callable[..., AbstractContextManager[trace.Span]]


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider(output_tokens=10) as provider:
        yield provider


@pytest.fixture
def ask(client: openai.OpenAI) -> Callable[[], Any]:
    return lambda: client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=10)


@pytest.fixture
def aask(provider: FakeProvider) -> Callable[[], Any]:
    async def ask() -> Any:
        async with openai.AsyncOpenAI(base_url=provider.openai_url, api_key="test", max_retries=0) as client:
            return await client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=10)

    return ask


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer_provider(exporter: InMemorySpanExporter) -> TracerProvider:
    tracer_provider = TracerProvider()
    tracer_provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer_provider.add_span_processor(ShekelSpanProcessor())
    return tracer_provider


@pytest.fixture
def tracer(tracer_provider: TracerProvider) -> trace.Tracer:
    return tracer_provider.get_tracer("somebody.else")


@pytest.fixture
def agent(tracer: trace.Tracer) -> Spans:
    return lambda name: tracer.start_as_current_span(
        f"invoke_agent {name}", attributes={"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": name}
    )


@pytest.fixture
def run(tracer: trace.Tracer) -> Spans:
    """The span of a tool's run."""
    return lambda name: tracer.start_as_current_span(
        f"execute_tool {name}", attributes={"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": name}
    )
