"""If Shekel itself breaks, the call goes on: the program gets its answer, one warning is logged, and it is counted."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from opentelemetry.sdk.trace import TracerProvider

from shekel import ShekelInstrumentor, budget, faults
from shekel.call import Call, open_calls
from shekel.runtime import the_runtime
from shekel.testing import FakeProvider

SECRET = "the prompt that nobody may log"
ASKED: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": SECRET}]}


def broken(*args: Any, **kwargs: Any) -> Any:
    raise ZeroDivisionError(SECRET)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[openai.OpenAI]:
    monkeypatch.setattr(faults, "_said", set())
    monkeypatch.setattr(faults, "counted", Counter())
    ShekelInstrumentor().instrument(tracer_provider=TracerProvider())
    with FakeProvider() as provider:
        with openai.OpenAI(base_url=provider.openai_url, api_key="test", max_retries=0) as client:
            yield client
    ShekelInstrumentor().uninstrument()


PLACES = [
    ("shekel.doors.passage.Passage.__init__", "read a request"),
    ("shekel.budgets.gate.Gate._admit", "looked at a span that started"),
    ("shekel.telemetry.teller.Teller.start", "admitted a call"),
    ("shekel.doors.passage.Passage._write", "prepared a request"),
    ("shekel.providers.openai.ChatCompletions.read_request", "read a request"),
    ("shekel.providers.openai.ChatCompletions.read_answer", "read an answer"),
    ("shekel.providers.openai.ChatCompletions.reader", "read an answer"),
    ("shekel.call.assess", "worked out a cost"),
    ("shekel.budgets.gate.Gate.settle", "settled a call"),
    ("shekel.telemetry.teller.write_end", "wrote a span"),
    ("shekel.telemetry.metrics.Instruments.record", "recorded metrics"),
    ("shekel.doors.passage.scope.without_scope", "attached the context"),
]


@pytest.mark.parametrize(("target", "place"), PLACES, ids=[target.rsplit(".", 1)[1] for target, _ in PLACES])
def test_the_call_goes_on(
    client: openai.OpenAI,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    target: str,
    place: str,
) -> None:
    with budget(max_usd=1), monkeypatch.context() as patch:
        patch.setattr(target, broken)
        for _ in range(2):
            plain = client.chat.completions.create(**ASKED)
            chunks = list(client.chat.completions.create(**ASKED, stream=True))
    assert plain.choices[0].message.content
    assert len(chunks) > 10
    records = [record for record in caplog.records if record.name == "shekel"]
    assert place in faults.counted
    assert len(records) == len(faults.counted)
    assert all(record.levelno == logging.WARNING for record in records)
    assert SECRET not in caplog.text
    assert open_calls == {}


def test_a_chunk_that_cannot_be_counted_is_handed_on(
    client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("shekel.providers.openai_stream.ChatReader.feed", broken)
    chunks = list(client.chat.completions.create(**ASKED, stream=True))
    assert len(chunks) > 10
    assert list(faults.counted) == ["counted a chunk"]
    assert SECRET not in caplog.text


def test_a_fault_of_ours_is_never_taken_for_a_refusal(client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(gate: Any, call: Call) -> None:
        raise ValueError("not a refusal")

    monkeypatch.setattr(type(the_runtime().gate), "_admit", wrong)
    with budget(max_usd=1):
        assert client.chat.completions.create(**ASKED).choices
