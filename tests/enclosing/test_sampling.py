"""Where the program's sampler drops spans, ours keeps those that limits need, and those below them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from shekel import AgentBudgetExceededError, ToolBudgetExceededError, budget
from shekel.doors.processor import ShekelSpanProcessor
from shekel.doors.sampler import ShekelSampler

from .conftest import CENT, Spans


@pytest.fixture
def tracer_provider(exporter: InMemorySpanExporter) -> TracerProvider:
    tracer_provider = TracerProvider(sampler=ShekelSampler(ALWAYS_OFF))
    tracer_provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer_provider.add_span_processor(ShekelSpanProcessor())
    return tracer_provider


def test_caps_hold_and_nothing_is_exported(
    ask: Callable[[], Any], tracer: Any, agent: Spans, run: Spans, exporter: InMemorySpanExporter
) -> None:
    with budget(max_usd=1, **CENT).agent("a", 0.01).tool("search", max_calls=1):
        with tracer.start_as_current_span("GET /") as request:
            assert not request.is_recording()
            with agent("a"), tracer.start_as_current_span("step") as step:
                assert step.is_recording()
                ask()
                with pytest.raises(AgentBudgetExceededError):
                    ask()
                with run("search"):
                    pass
                with pytest.raises(ToolBudgetExceededError):
                    run("search").__enter__()
    assert exporter.get_finished_spans() == ()
