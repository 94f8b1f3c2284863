"""Who pays goes on metrics only where the operator has allowed that key: each value is a series of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider

import shekel
from shekel import ShekelInstrumentor, scope
from shekel.testing import FakeProvider

MESSAGES: list[Any] = [{"role": "user", "content": "Name three rivers."}]
COUNTERS = ("shekel.cost", "shekel.tokens", "shekel.calls")


@pytest.fixture
def reader() -> Iterator[InMemoryMetricReader]:
    """What Shekel tells, in memory."""
    reader = InMemoryMetricReader()
    instrumentor = ShekelInstrumentor()
    instrumentor.instrument(tracer_provider=TracerProvider(), meter_provider=MeterProvider([reader]))
    yield reader
    instrumentor.uninstrument()
    shekel.configure(metric_scopes=[])


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    """A stand-in provider."""
    with FakeProvider() as provider:
        yield provider


def call(provider: FakeProvider) -> None:
    """One plain call."""
    with openai.OpenAI(base_url=provider.openai_url, api_key="test", max_retries=0) as client:
        client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)


def points(reader: InMemoryMetricReader) -> dict[str, list[dict[str, Any]]]:
    """The attributes of every point of every metric."""
    found = reader.get_metrics_data()
    assert found is not None
    metrics = [each for r in found.resource_metrics for s in r.scope_metrics for each in s.metrics]
    return {metric.name: [dict(point.attributes or {}) for point in metric.data.data_points] for metric in metrics}


class TestAllowed:
    def test_no_scope_is_on_a_metric_by_default(self, reader: InMemoryMetricReader, provider: FakeProvider) -> None:
        with scope(user_id="ada", tenant_id="acme"):
            call(provider)
        seen = points(reader)
        assert seen["shekel.cost"]
        assert not [each for rows in seen.values() for row in rows for each in row if each in ("user.id", "tenant.id")]

    def test_an_allowed_key_is_on_money_tokens_and_calls_and_nowhere_else(
        self, reader: InMemoryMetricReader, provider: FakeProvider
    ) -> None:
        shekel.configure(metric_scopes=["tenant.id", "team"])
        for tenant in ("acme", "brand"):
            with scope(user_id="ada", tenant_id=tenant, team="red"):
                call(provider)
        seen = points(reader)
        for name in COUNTERS:
            assert {row["tenant.id"] for row in seen[name]} == {"acme", "brand"}
            assert {row["team"] for row in seen[name]} == {"red"}
            assert not [row for row in seen[name] if "user.id" in row]
        others = [row for name, rows in seen.items() if name not in COUNTERS for row in rows]
        assert others
        assert not [row for row in others if "tenant.id" in row or "team" in row]

    def test_a_call_without_the_key_has_no_label(self, reader: InMemoryMetricReader, provider: FakeProvider) -> None:
        shekel.configure(metric_scopes=["tenant.id"])
        call(provider)
        assert [row for row in points(reader)["shekel.cost"] if "tenant.id" not in row]

    def test_a_call_that_the_sdk_traces_itself_has_it_too(
        self, reader: InMemoryMetricReader, provider: FakeProvider
    ) -> None:
        shekel.configure(metric_scopes=["tenant.id"])
        with (
            anthropic.Anthropic(base_url=provider.anthropic_url, api_key="test", max_retries=0) as client,
            scope(tenant_id="acme"),
        ):
            client.messages.create(model="claude-haiku-4-5", max_tokens=50, messages=MESSAGES)
        assert [row["tenant.id"] for row in points(reader)["shekel.cost"]] == ["acme"]

    def test_a_stream_belongs_to_the_scope_it_was_opened_in(
        self, reader: InMemoryMetricReader, provider: FakeProvider
    ) -> None:
        shekel.configure(metric_scopes=["tenant.id"])
        with openai.OpenAI(base_url=provider.openai_url, api_key="test", max_retries=0) as client:
            with scope(tenant_id="acme"):
                stream = client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES, stream=True)
            with scope(tenant_id="brand"):
                list(stream)
        assert [row["tenant.id"] for row in points(reader)["shekel.cost"]] == ["acme"]

    def test_a_key_cannot_take_the_place_of_what_a_call_is(
        self, reader: InMemoryMetricReader, provider: FakeProvider
    ) -> None:
        shekel.configure(metric_scopes=["gen_ai.request.model"])
        with scope(**{"gen_ai.request.model": "forged"}):
            call(provider)
        [row] = points(reader)["shekel.cost"]
        assert row["gen_ai.request.model"] == "gpt-4o-mini"
        with pytest.raises(ValueError, match="Shekel's own"):
            scope(**{"shekel.cost.estimated": "forged"})


class TestSaying:
    @pytest.mark.parametrize("given", ["tenant.id", [None], [7]], ids=repr)
    def test_what_makes_no_sense_is_said(self, given: Any) -> None:
        with pytest.raises(ValueError, match=r"tenant\.id"):
            shekel.configure(metric_scopes=given)

    @pytest.mark.parametrize(
        ("value", "keys"),
        [("tenant.id, team", ("tenant.id", "team")), ("", ()), (",tenant.id,,tenant.id ,", ("tenant.id",))],
    )
    def test_the_environment_is_read_at_the_start(self, value: str, keys: tuple[str, ...]) -> None:
        code = "from shekel.runtime import the_runtime; print(the_runtime().teller.metric_scopes)"
        told = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "SHEKEL_METRIC_SCOPES": value},
            text=True,
            capture_output=True,
            check=True,
        )
        assert told.stdout.strip() == str(keys)
