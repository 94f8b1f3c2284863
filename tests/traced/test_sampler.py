"""The sampler: what the program does not export is charged and refused all the same, and still not exported."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Decision, ParentBased, TraceIdRatioBased
from opentelemetry.trace import Tracer

from shekel import BudgetExceededError, ShekelInstrumentor, ShekelSampler, budget
from shekel.doors.sampler import from_environment

from .test_spans import CAPPED, MISTRAL, call


@pytest.fixture
def off(exporter: InMemorySpanExporter) -> Iterator[Tracer]:
    """A program that samples nothing."""
    provider = TracerProvider(sampler=ShekelSampler(ParentBased(ALWAYS_OFF)))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    ShekelInstrumentor().instrument(tracer_provider=provider)
    yield provider.get_tracer("somebody.else")
    ShekelInstrumentor().uninstrument()


def test_calls_that_are_not_sampled_are_charged_refused_and_not_exported(
    off: Tracer, exporter: InMemorySpanExporter
) -> None:
    with budget("1 calls") as b:
        with off.start_as_current_span("GET /"):
            call(off, MISTRAL)
        with pytest.raises(BudgetExceededError):
            call(off, MISTRAL)
    assert b.calls_used == 1
    assert exporter.get_finished_spans() == ()


def test_without_it_nobody_sees_them(exporter: InMemorySpanExporter) -> None:
    provider = TracerProvider(sampler=ALWAYS_OFF)
    ShekelInstrumentor().instrument(tracer_provider=provider)
    try:
        with budget("1 calls") as b:
            call(provider.get_tracer("somebody.else"), MISTRAL)
    finally:
        ShekelInstrumentor().uninstrument()
    assert b.calls_used == 0


def test_spans_that_stand_for_no_call_stay_dropped(off: Tracer) -> None:
    assert not off.start_span("GET /").is_recording()
    assert not off.start_span("agent", attributes={"gen_ai.operation.name": "invoke_agent"}).is_recording()
    assert off.start_span("chat", attributes=CAPPED).is_recording()


def test_calls_of_our_doors_need_no_span(off: Tracer, client: openai.OpenAI, exporter: InMemorySpanExporter) -> None:
    with budget("1 calls") as b:
        client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "Hello"}])
    assert b.calls_used == 1
    assert exporter.get_finished_spans() == ()


def test_what_the_other_sampler_keeps_is_kept_as_it_is() -> None:
    result = ShekelSampler(ALWAYS_ON).should_sample(None, 1, "chat", attributes=MISTRAL)
    assert result.decision is Decision.RECORD_AND_SAMPLE
    assert "AlwaysOn" in ShekelSampler(ALWAYS_ON).get_description()


def test_the_environment_names_the_share() -> None:
    assert str(TraceIdRatioBased(0.25).get_description()) in from_environment("0.25").get_description()
    assert "AlwaysOn" in from_environment(None).get_description()
    with pytest.raises(ValueError, match="could not convert"):
        from_environment("some")


def test_it_is_found_by_its_name_in_the_environment(tmp_path: Path) -> None:
    """By the entry point that the package declares, in the metadata that an installer would write."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    info = tmp_path / "declared-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: declared\nVersion: 1\n")
    group = "opentelemetry_traces_sampler"
    lines = [f"{name} = {target}" for name, target in project["entry-points"][group].items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines, ""]))
    program = (
        "from opentelemetry.sdk._configuration import _import_sampler\n"
        "print(_import_sampler('shekel').get_description())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={
            **os.environ,
            "OTEL_TRACES_SAMPLER_ARG": "0",
            "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.startswith("ShekelSampler{ParentBased")
