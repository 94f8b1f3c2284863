"""Events of limits: thresholds and refusals, once per condition in five seconds; and the same as log records."""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from opentelemetry import trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import shekel
from budgets.conftest import HELLO, MODEL, ask, nano, stream
from shekel import (
    AgentLoopError,
    BudgetExceededError,
    LimitEvent,
    ShekelInstrumentor,
    ToolBudgetExceededError,
    budget,
    per,
    scope,
    tool,
)
from shekel.runtime import the_runtime
from shekel.telemetry import decisions
from shekel.testing import Clock, FakeProvider, Reply

CALL = 40_650
"""Nano-dollars of one `ask`."""


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    """The clock of "once in five seconds" moves when told, and nothing was told before."""
    clock = Clock()
    monkeypatch.setattr(decisions, "clock", clock)
    the_runtime().teller._recent.__init__()  # type: ignore[misc]
    yield clock
    shekel.configure(policies=[])


@pytest.fixture
def hard() -> Iterator[list[LimitEvent]]:
    events: list[LimitEvent] = []
    with shekel.on_hard_limit(events.append):
        yield events


@pytest.fixture
def soft() -> Iterator[list[LimitEvent]]:
    events: list[LimitEvent] = []
    with shekel.on_soft_limit(events.append):
        yield events


def refused(client: openai.OpenAI) -> None:
    with pytest.raises(BudgetExceededError):
        ask(client)


class TestHard:
    def test_a_refusal_says_who_and_what(self, hard: list[LimitEvent], client: openai.OpenAI) -> None:
        shekel.configure(policies=[per("user.id", "$0.0001/day")])
        with scope(user_id="ada", session_id="s1"):
            ask(client)
            ask(client)
            refused(client)
        [event] = hard
        assert (event.status, event.decision, event.reason) == ("hard", "refused", "exceeded")
        assert (event.budget, event.limited, event.unit) == ("per user.id", "user.id=ada", "usd")
        assert (event.user_id, event.session_id, event.model) == ("ada", "s1", MODEL)
        assert (event.limit, nano(event.used), event.held) == (0.0001, 2 * CALL, 0.0)
        assert event.share == pytest.approx(0.813)
        assert event.retry_after is not None
        assert "ada" in event.message
        assert event.public_message is not None
        assert "$" not in event.public_message

    def test_the_same_condition_is_told_once_in_five_seconds(
        self, hard: list[LimitEvent], client: openai.OpenAI, clock: Clock
    ) -> None:
        shekel.configure(policies=[per("user.id", "$0.00001/day"), per("tenant.id", "1 calls/day")])
        for moment, told in ((0.0, 1), (4.9, 1), (0.2, 2), (4.9, 2)):
            clock.advance(moment)
            with scope(user_id="ada"):
                for _ in range(3):
                    refused(client)
            assert len(hard) == told
        with scope(user_id="bob"):  # another user is another condition
            refused(client)
        assert len(hard) == 3
        with scope(tenant_id="acme"):
            ask(client)
            refused(client)
        assert hard[3].unit == "calls"
        assert (hard[3].used, hard[3].limit) == (1, 1)

    def test_threads_that_are_refused_at_once_tell_once(self, hard: list[LimitEvent], client: openai.OpenAI) -> None:
        b = budget(max_usd=0.00001, name="tiny")
        threads = [threading.Thread(target=b.bind(lambda: refused(client))) for _ in range(16)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert len(hard) == 1

    def test_a_cut_and_a_stream_let_to_its_end(
        self, hard: list[LimitEvent], client: openai.OpenAI, provider: FakeProvider
    ) -> None:
        provider.default = Reply(output_tokens=3000, pace=0.0001)
        for at_limit in ("raise", "finish"):
            with budget(max_usd=0.0003, name=at_limit, at_limit=at_limit), pytest.raises(BudgetExceededError):
                list(stream(client))
        assert [(event.budget, event.decision, event.reason) for event in hard] == [
            ("raise", "cut", "cut"),
            ("finish", "finished", "finished"),
        ]

    def test_a_tool_and_a_loop(self, hard: list[LimitEvent]) -> None:
        @tool(price=0.01)
        def search() -> None: ...

        with scope(user_id="ada"):
            with budget(max_tool_calls=1, name="tools"), pytest.raises(ToolBudgetExceededError):
                search()
                search()
            with budget(max_usd=0.015, name="money"), pytest.raises(ToolBudgetExceededError):
                search()
                search()
            with budget(loop_guard=True, loop_guard_max_calls=1, name="loop"), pytest.raises(AgentLoopError):
                search()
                search()
        assert [(event.budget, event.tool, event.unit, event.user_id) for event in hard] == [
            ("tools", "search", "tool_calls", "ada"),
            ("money", "search", "usd", "ada"),
            ("loop", "search", hard[2].unit, "ada"),
        ]
        assert hard[2].reason == "loop"
        assert all(event.model is None for event in hard)

    def test_without_a_price_the_model_is_the_condition(self, hard: list[LimitEvent], client: openai.OpenAI) -> None:
        with budget(max_usd=1):
            for model in ("nobody-knows-1", "nobody-knows-2", "nobody-knows-1"):
                with pytest.raises(BudgetExceededError):
                    ask(client, model=model)
        assert [(event.reason, event.model) for event in hard] == [
            ("unpriced", "nobody-knows-1"),
            ("unpriced", "nobody-knows-2"),
        ]

    def test_what_only_warns_or_shadows_refuses_nothing(self, hard: list[LimitEvent], client: openai.OpenAI) -> None:
        with warnings.catch_warnings(action="ignore"), budget(0.00001, at_limit="warn"), budget(1, at_limit="shadow"):
            ask(client)
        assert hard == []

    async def test_an_async_listener_may_call(self, provider: FakeProvider) -> None:
        done: list[Any] = []

        async def listen(event: LimitEvent) -> None:
            async with openai.AsyncOpenAI(base_url=provider.openai_url, api_key="t") as other:
                with budget() as free:
                    await other.chat.completions.create(model=MODEL, messages=HELLO)
                done.append(free.spent)

        with shekel.on_hard_limit(listen):
            async with openai.AsyncOpenAI(base_url=provider.openai_url, api_key="t") as client:
                with budget(max_usd=0.00001), pytest.raises(BudgetExceededError):
                    await client.chat.completions.create(model=MODEL, messages=HELLO)
            while not done:
                await asyncio.sleep(0.001)


class TestSoft:
    def test_a_policy_at_four_fifths_once(self, soft: list[LimitEvent], client: openai.OpenAI, clock: Clock) -> None:
        shekel.configure(policies=[per("user.id", "5 calls/day"), per("tenant.id", "$1/day")])
        with scope(user_id="ada", tenant_id="acme"):
            for number in range(5):
                ask(client)
                clock.advance(10)
                assert len(soft) == (number >= 3)
        [event] = soft
        assert (event.status, event.decision, event.reason) == ("soft", "warning", "threshold")
        assert (event.used, event.limit, event.share, event.unit) == (4, 5, 0.8, "calls")
        assert (event.user_id, event.limited, event.model) == ("ada", "user.id=ada", MODEL)
        assert event.public_message is None

    def test_a_limit_below_a_cent_is_not_told_as_nothing(self, soft: list[LimitEvent], client: openai.OpenAI) -> None:
        shekel.configure(policies=[per("user.id", "$0.00005/day", name="small")])
        with scope(user_id="ada"):
            ask(client)
        [event] = soft
        assert event.message == "Budget 'small' for user.id=ada has used $0.000041 of $0.00005."

    def test_at_what_share_is_the_listeners_choice(self, client: openai.OpenAI) -> None:
        shekel.configure(policies=[per("user.id", "4 calls/day")])
        half: list[LimitEvent] = []
        full: list[LimitEvent] = []
        with shekel.on_soft_limit(half.append, at=0.5), shekel.on_soft_limit(full.append, at=1):
            with scope(user_id="ada"):
                for _ in range(4):
                    ask(client)
        assert [event.used for event in half] == [2]
        assert [event.used for event in full] == [4]

    def test_a_budget_with_thresholds_of_its_own_has_those(self, soft: list[LimitEvent], client: openai.OpenAI) -> None:
        warned: list[Any] = []
        with budget("10 calls", name="own", warn_at=[0.1, 0.3], on_warn=lambda *numbers: warned.append(numbers)):
            for _ in range(10):
                ask(client)
        assert [(event.budget, event.used) for event in soft] == [("own", 1), ("own", 3)]
        assert warned == [(1, 10), (3, 10)]

    def test_so_has_a_policy(self, soft: list[LimitEvent], client: openai.OpenAI) -> None:
        shekel.configure(policies=[per("user.id", "10 calls/day", warn_at=[0.1, 0.3])])
        with scope(user_id="ada"):
            for _ in range(10):
                ask(client)
        assert [(event.limited, event.used, event.model) for event in soft] == [
            ("user.id=ada", 1, MODEL),
            ("user.id=ada", 3, MODEL),
        ]

    def test_threads_that_cross_at_once_tell_once(self, soft: list[LimitEvent], client: openai.OpenAI) -> None:
        b = budget("16 calls", name="many")
        threads = [threading.Thread(target=b.bind(lambda: ask(client))) for _ in range(16)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert len(soft) == 1
        assert soft[0].used >= 13

    @pytest.mark.parametrize("at", [0, -1, 1.1, True, "0.8", float("nan")], ids=repr)
    def test_what_is_no_share_is_refused(self, at: Any) -> None:
        with pytest.raises(ValueError, match="share"):
            shekel.on_soft_limit(print, at=at)

    def test_nobody_is_asked_when_nobody_listens(self, client: openai.OpenAI) -> None:
        with shekel.on_soft_limit(print):
            assert the_runtime().gate.watched is not None
        assert the_runtime().gate.watched is None


class Logs:
    """What a real SDK's logger provider was given, beside the spans."""

    def __init__(self) -> None:
        self.logs = InMemoryLogRecordExporter()
        self.spans = InMemorySpanExporter()
        self.provider = LoggerProvider()
        self.provider.add_log_record_processor(SimpleLogRecordProcessor(self.logs))
        self.tracer_provider = TracerProvider()
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.spans))

    def records(self) -> list[Any]:
        return [each.log_record for each in self.logs.get_finished_logs()]


@pytest.fixture
def logs() -> Iterator[Logs]:
    logs = Logs()
    ShekelInstrumentor().instrument(tracer_provider=logs.tracer_provider, logger_provider=logs.provider)
    yield logs
    ShekelInstrumentor().uninstrument()


class TestLog:
    def test_a_refusal_is_a_record_in_the_trace_of_its_call(self, logs: Logs, client: openai.OpenAI) -> None:
        with scope(user_id="ada", team="red"), budget(max_usd=0.00001, name="tiny"):
            refused(client)
            refused(client)
        [record] = logs.records()
        first = logs.spans.get_finished_spans()[0]
        assert record.event_name == "shekel.budget.decision"
        assert record.severity_text == "WARN"
        assert (record.trace_id, record.span_id) == (first.context.trace_id, first.context.span_id)
        told = dict(record.attributes)
        assert told.pop("shekel.budget.spent_usd") == 0
        assert told == {
            "user.id": "ada",
            "team": "red",
            "shekel.decision": "refused",
            "shekel.decision.reason": "exceeded",
            "shekel.budget.name": "tiny",
            "shekel.budget.limit_usd": 0.00001,
            "gen_ai.request.model": MODEL,
            "error.type": "BudgetExceededError",
        }
        assert HELLO[0]["content"] not in str(record)
        [scope_of_log] = {each.instrumentation_scope.name for each in logs.logs.get_finished_logs()}
        assert scope_of_log == "shekel"

    def test_cut_warning_fallback_and_tool(self, logs: Logs, client: openai.OpenAI, provider: FakeProvider) -> None:
        @tool
        def search() -> None: ...

        provider.default = Reply(output_tokens=3000, pace=0.0001)
        with budget(max_usd=0.0003, name="cut"), pytest.raises(BudgetExceededError):
            list(stream(client))
        provider.default = Reply()
        with warnings.catch_warnings(action="ignore"):
            with budget("2 calls", name="warned", warn_at=0.5):
                ask(client)
            with budget("0.0001", name="fell", fallback={"at_pct": 0.1, "model": "gpt-4.1-nano"}):
                ask(client)
                ask(client)
                ask(client)
        with budget(max_tool_calls=1, name="tools"), pytest.raises(ToolBudgetExceededError):
            search()
            search()
        seen = [(r.attributes["shekel.decision"], r.attributes["shekel.budget.name"]) for r in logs.records()]
        assert seen == [("cut", "cut"), ("warning", "warned"), ("fallback", "fell"), ("refused", "tools")]
        warned = logs.records()[1]
        assert (warned.attributes["shekel.budget.unit"], warned.attributes["shekel.budget.used"]) == ("calls", 1)
        fell = logs.records()[2]
        assert fell.attributes["shekel.fallback.from"] == MODEL
        assert fell.attributes["gen_ai.request.model"] == "gpt-4.1-nano"
        assert logs.records()[3].attributes["gen_ai.tool.name"] == "search"
        assert all(r.trace_id for r in logs.records()[:3])

    def test_one_per_condition_and_five_seconds(self, logs: Logs, client: openai.OpenAI, clock: Clock) -> None:
        with budget(max_usd=0.00001, name="tiny"):
            for _ in range(4):
                refused(client)
                clock.advance(2)
        assert len(logs.records()) == 2

    def test_a_suppressed_context_and_uninstrument_are_silent(self, logs: Logs, client: openai.OpenAI) -> None:
        from opentelemetry.instrumentation.utils import suppress_instrumentation

        with budget(max_usd=0.00001, name="tiny"), suppress_instrumentation():
            refused(client)
        assert logs.records() == []

    def test_a_call_without_a_span_takes_the_span_around(self, logs: Logs, client: openai.OpenAI) -> None:
        with (
            logs.tracer_provider.get_tracer("app").start_as_current_span("job") as job,
            budget(max_usd=0.00001),
        ):
            refused(client)
        assert logs.records()[0].trace_id == job.get_span_context().trace_id
        assert trace.get_current_span() is trace.INVALID_SPAN

    def test_the_conditions_that_are_remembered_are_bounded(self) -> None:
        recent = decisions.Recent()
        for number in range(3 * decisions.REMEMBERED):
            assert recent.is_new(number)
        assert len(recent._told) <= decisions.REMEMBERED
