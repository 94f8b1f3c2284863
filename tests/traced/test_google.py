"""The official Google instrumentation, with google-genai against a stand-in: priced, budgeted, refused."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from google import genai
from opentelemetry.instrumentation.google_genai import GoogleGenAiSdkInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from shekel import BudgetExceededError, budget

from .stand_in import StandIn, stand_in

MODEL = "gemini-2.5-flash"
COST = 1000 * 0.3e-6 + 100 * 2.5e-6
"""Of 1,000 tokens in and 100 out, by the price list, in USD."""


@pytest.fixture
def server() -> Iterator[StandIn]:
    with stand_in() as server:
        yield server


@pytest.fixture
def google(server: StandIn, watched: TracerProvider) -> Iterator[genai.Client]:
    GoogleGenAiSdkInstrumentor().instrument(tracer_provider=watched)
    client = genai.Client(api_key="test", http_options={"base_url": server.url})
    yield client
    client.close()
    GoogleGenAiSdkInstrumentor().uninstrument()


def plain(client: genai.Client) -> None:
    client.models.generate_content(model=MODEL, contents="Hello", config={"max_output_tokens": 200})


def stream(client: genai.Client) -> None:
    list(client.models.generate_content_stream(model=MODEL, contents="Hello", config={"max_output_tokens": 200}))


def in_a_task(client: genai.Client) -> None:
    async def run() -> None:
        await client.aio.models.generate_content(model=MODEL, contents="Hello")
        await client.aio.aclose()

    asyncio.run(run())


ways = pytest.mark.parametrize("way", [plain, stream, in_a_task])


@ways
def test_priced_and_charged(google: genai.Client, exporter: InMemorySpanExporter, way: Any) -> None:
    with budget("$1 + 5 calls") as b:
        way(google)
    [span] = exporter.get_finished_spans()
    assert span.attributes is not None
    assert b.spent == span.attributes["gen_ai.usage.cost.amount"] == pytest.approx(COST)
    assert (b.calls_used, b.held) == (1, 0)


@ways
def test_refused_where_its_span_starts(
    google: genai.Client, server: StandIn, exporter: InMemorySpanExporter, way: Any
) -> None:
    with budget(max_usd=0.000001), pytest.raises(BudgetExceededError) as caught:
        way(google)
    assert server.asked == []
    [span] = exporter.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes is not None
    assert span.attributes["shekel.decision"] == "refused"
    assert span.attributes["shekel.decision.reason"] == caught.value.reason == "exceeded"


def test_thoughts_are_output_and_cache_reads_are_input(google: genai.Client, server: StandIn) -> None:
    server.usage = {"input": 1000, "output": 300, "reasoning": 200, "cache_read": 600}
    with budget(max_usd=1) as b:
        plain(google)
    assert b.spent == pytest.approx(400 * 0.3e-6 + 600 * 0.03e-6 + 300 * 2.5e-6)


def test_what_the_provider_refuses_costs_nothing(google: genai.Client, server: StandIn) -> None:
    server.status = 400
    with budget(max_usd=1) as b, pytest.raises(genai.errors.ClientError):
        plain(google)
    assert (b.spent, b.held) == (0, 0)
