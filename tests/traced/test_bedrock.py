"""The official Bedrock instrumentation, with boto3 against a stand-in: priced, budgeted, refused before it is sent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from opentelemetry.instrumentation.botocore import BotocoreInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

import shekel
from shekel import BudgetExceededError, budget, configure, per

from .bedrock import (
    CLAUDE_COST,
    NOVA,
    NOVA_COST,
    SAID,
    client,
    converse,
    converse_stream,
    invoke,
    invoke_stream,
)
from .stand_in import StandIn, stand_in


@pytest.fixture
def server() -> Iterator[StandIn]:
    with stand_in() as server:
        yield server


@pytest.fixture
def bedrock(server: StandIn, watched: TracerProvider) -> Iterator[Any]:
    with client(server, BotocoreInstrumentor(), watched) as bedrock:
        yield bedrock


WAYS = [(converse, NOVA_COST), (converse_stream, NOVA_COST), (invoke, CLAUDE_COST), (invoke_stream, CLAUDE_COST)]
ways = pytest.mark.parametrize(("way", "cost"), WAYS, ids=[way.__name__ for way, _ in WAYS])


def only(exporter: InMemorySpanExporter) -> tuple[Any, dict[str, Any]]:
    [span] = exporter.get_finished_spans()
    return span, dict(span.attributes or {})


@ways
def test_priced_and_charged(
    bedrock: Any, server: StandIn, exporter: InMemorySpanExporter, way: Any, cost: float
) -> None:
    with budget("$1 + 5 calls", name="b") as b:
        way(bedrock)
    _, attributes = only(exporter)
    assert b.spent == attributes["gen_ai.usage.cost.amount"] == pytest.approx(cost)
    assert attributes["gen_ai.system"] == "aws.bedrock"
    assert attributes["shekel.budget.spent_usd"] == b.spent
    assert (b.calls_used, b.held) == (1, 0)


@ways
def test_refused_where_its_span_starts(
    bedrock: Any, server: StandIn, exporter: InMemorySpanExporter, way: Any, cost: float
) -> None:
    with budget(max_usd=0.000001, name="b"), pytest.raises(BudgetExceededError) as caught:
        way(bedrock)
    assert server.asked == []
    span, attributes = only(exporter)
    assert span.status.status_code is StatusCode.ERROR
    assert attributes["shekel.decision"] == "refused"
    assert attributes["shekel.decision.reason"] == caught.value.reason == "exceeded"
    assert attributes["error.type"] == "BudgetExceededError"
    assert attributes["gen_ai.request.model"] == caught.value.model


def test_the_cap_of_the_request_is_what_is_held(bedrock: Any) -> None:
    """200 tokens at $0.24 per million."""
    with budget("$0.000047"), pytest.raises(BudgetExceededError):
        converse(bedrock)
    with budget("$0.000048") as b:
        converse(bedrock)
    assert b.calls_used == 1


def test_each_user_has_the_policy(bedrock: Any, server: StandIn, exporter: InMemorySpanExporter) -> None:
    configure(policies=[per("user.id", "2 calls")])
    try:
        for user in ("ada", "bob"):
            with shekel.scope(user_id=user):
                converse(bedrock)
                converse_stream(bedrock)
                with pytest.raises(BudgetExceededError):
                    converse(bedrock)
    finally:
        configure(policies=[])
    assert len(server.asked) == 4
    users = [(span.attributes or {})["user.id"] for span in exporter.get_finished_spans()]
    assert users == ["ada"] * 3 + ["bob"] * 3


def test_what_the_cache_took_is_part_of_the_input(bedrock: Any, server: StandIn) -> None:
    server.usage = {"input": 1000, "output": 100, "cache_read": 2000}
    with budget(max_usd=1) as b:
        converse(bedrock)
    assert b.spent == pytest.approx(NOVA_COST + 2000 * 0.015e-6)
    assert b.summary_data()["calls"][0]["input_tokens"] == 3000


@pytest.mark.parametrize(("status", "kind"), [(429, "ThrottlingException"), (400, "ValidationException")])
def test_what_the_provider_refuses_costs_nothing(bedrock: Any, server: StandIn, status: int, kind: str) -> None:
    server.status = status
    with budget(max_usd=1) as b, pytest.raises(ClientError, match=kind):
        converse(bedrock)
    assert (b.spent, b.held, b.calls_used) == (0, 0, 0)


def test_a_stream_that_is_left_is_charged_what_was_expected(bedrock: Any, exporter: InMemorySpanExporter) -> None:
    with budget(max_usd=1) as b:
        stream = bedrock.converse_stream(modelId=NOVA, messages=SAID, inferenceConfig={"maxTokens": 200})["stream"]
        next(iter(stream))
        stream.close()
    _, attributes = only(exporter)
    assert b.spent == pytest.approx(200 * 0.24e-6)
    assert attributes["shekel.cost.estimated"] is True
    assert b.held == 0


def test_calls_of_other_services_are_none_of_ours(
    server: StandIn, bedrock: Any, exporter: InMemorySpanExporter
) -> None:
    client = boto3.client(
        "sqs", region_name="us-east-1", endpoint_url=server.url, aws_access_key_id="t", aws_secret_access_key="t"
    )
    with budget("$0.01 + 1 calls") as b:
        client.send_message(QueueUrl=f"{server.url}/q", MessageBody="Hello")
    client.close()
    assert b.calls_used == 0
    assert "shekel.outcome" not in only(exporter)[1]
