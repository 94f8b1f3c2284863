"""The agents of the example: each cap holds to the cent, ends only what it is for, and nothing is patched."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from types import ModuleType
from typing import Any

import openai
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from shekel import Budget, BudgetExceededError, ShekelInstrumentor, budget
from shekel.testing import FakeProvider

FILE = Path(__file__).parents[2] / "examples" / "agents.py"
CENTS: dict[str, Any] = {"price_per_1k_tokens": {"input": 0.0, "output": 0.05}}
"""With answers of 200 tokens each call costs $0.01."""


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeProvider]:
    with FakeProvider(output_tokens=200) as provider:
        monkeypatch.setenv("OPENAI_BASE_URL", provider.openai_url)
        monkeypatch.setenv("OPENAI_API_KEY", "test")
        yield provider


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def agents(exporter: InMemorySpanExporter) -> Iterator[ModuleType]:
    """The program, with its spans where this test sees them."""
    spec = util.spec_from_file_location("example_agents", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tracer_provider = TracerProvider()
    tracer_provider.add_span_processor(SimpleSpanProcessor(exporter))
    module.tracer = tracer_provider.get_tracer("examples.agents")  # type: ignore[attr-defined]
    ShekelInstrumentor().instrument(tracer_provider=tracer_provider)
    yield module
    ShekelInstrumentor().uninstrument()


def spent(b: Budget) -> dict[str, float]:
    return {part.name: round(b.part_spent(part), 6) for part in b.parts.all()}


def test_within_its_caps(agents: ModuleType, provider: FakeProvider) -> None:
    b = agents.report_budget()
    report = agents.main("Which river?", b)
    assert [line.partition(" was not run")[0] for line in report.skipped] == [
        "Tool 'search' of budget 'report' has 3 of 3 tool calls used: the tool 'search'"
    ] * 2
    assert len(provider.requests) == 5 + 3 + 1
    assert b.spent == pytest.approx(provider.bill.total / 1e9 + 3 * 0.005)
    assert b.summary_data()["by_tool"].keys() == {"search", "fetch", "summarize", "save"}


@pytest.mark.parametrize(
    ("kind", "name", "arguments", "calls", "skips"),
    [
        ("agent", "researcher", {"max_usd": 0.025}, 5 + 1 + 1, "Agent 'researcher'"),
        ("agent", "writer", {"max_usd": 0.005}, 5 + 5, "Agent 'writer'"),
        ("tool", "search", {"max_calls": 2}, 5 + 2 + 1, "Tool 'search'"),
        ("tool", "search", {"max_usd": 0.012}, 5 + 2 + 1, "Tool 'search'"),
        ("tool", "summarize", {"max_usd": 0.03}, 5 + 3 + 1, "Tool 'summarize'"),
    ],
)
def test_each_cap_holds_and_ends_only_what_it_is_for(
    agents: ModuleType,
    provider: FakeProvider,
    exporter: InMemorySpanExporter,
    kind: str,
    name: str,
    arguments: dict[str, Any],
    calls: int,
    skips: str,
) -> None:
    b = budget(max_usd=1, name="report", **CENTS)
    getattr(b, kind)(name, **arguments)
    report = agents.main("Which river?", b)
    assert len(provider.requests) == calls
    assert report.skipped
    assert all(line.startswith(f"{skips} of budget 'report'") for line in report.skipped if "tool" not in line)
    assert all(part.nano is None or b.part_spent(part) <= part.nano / 1e9 for part in b.parts.all())
    refused = [
        dict(span.attributes or {}) for span in exporter.get_finished_spans() if "refused" in str(span.attributes)
    ]
    assert all(each["shekel.budget.part"] == f"{kind} {name}" for each in refused)


def test_the_whole_is_a_cap_too(agents: ModuleType, provider: FakeProvider) -> None:
    with pytest.raises(BudgetExceededError, match="Budget 'report'"):
        agents.main("Which river?", budget(max_usd=0.035, name="report", **CENTS))
    assert len(provider.requests) == 3


def test_it_runs_as_it_stands(provider: FakeProvider) -> None:
    done = subprocess.run(
        [sys.executable, str(FILE), "Which river?"],
        env={**os.environ, "OPENAI_BASE_URL": provider.openai_url, "OPENAI_API_KEY": "test"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "[agent] researcher:" in done.stdout
    assert "[tool] search: $0.0150, 3 of 3 runs" in done.stdout


def test_nothing_of_openai_but_the_doors_is_wrapped(agents: ModuleType) -> None:
    """No resource method is another than the SDK's: whatever frameworks call is what they imported."""
    wrapped = [name for name in vars(openai.resources.chat.completions.Completions) if "shekel" in repr(name)]
    assert wrapped == []
