"""Which spans a call is inside: parents that ended, names that come late, contexts with ids alone, bounded memory."""

from __future__ import annotations

import asyncio
import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import NonRecordingSpan

from shekel import enclosing
from shekel.roles import Role

from .conftest import Spans


@pytest.fixture(autouse=True)
def wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enclosing, "wanted", True)


def inside() -> list[tuple[str, str]]:
    return [tuple(role) for role in enclosing.roles(otel.get_current())]  # type: ignore[misc]


def test_outside_there_is_nothing() -> None:
    assert inside() == []


def test_the_innermost_comes_first(agent: Spans, run: Spans, tracer: trace.Tracer) -> None:
    with agent("a"), tracer.start_as_current_span("POST /"), run("t"), agent("b"):
        assert inside() == [("agent", "b"), ("tool", "t"), ("agent", "a")]
        assert enclosing.entries(otel.get_current()) == {"gen_ai.agent.name": "b", "gen_ai.tool.name": "t"}
    assert inside() == []


def test_a_name_that_comes_late_is_seen(tracer: trace.Tracer) -> None:
    with tracer.start_as_current_span("x") as span, tracer.start_as_current_span("y"):
        assert inside() == []
        span.set_attribute("gen_ai.operation.name", "invoke_agent")
        assert inside() == []
        span.set_attribute("gen_ai.agent.name", "late")
        assert inside() == [("agent", "late")]


def test_one_that_has_ended_is_still_around_what_it_started(agent: Spans, tracer: trace.Tracer) -> None:
    with agent("a") as span:
        here = otel.get_current()
    assert not span.is_recording()
    del span
    gc.collect()
    token = otel.attach(here)
    with tracer.start_as_current_span("later"):
        assert inside() == [("agent", "a")]
    otel.detach(token)


def test_a_context_with_ids_alone_finds_it_while_it_lives(agent: Spans, tracer: trace.Tracer) -> None:
    with agent("a") as span:
        ids = span.get_span_context()

        def elsewhere() -> list[tuple[str, str]]:
            with trace.use_span(NonRecordingSpan(ids)), tracer.start_as_current_span("y"):
                return inside()

        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(elsewhere).result() == [("agent", "a")]


def test_a_span_whose_start_was_not_seen_is_read_when_asked(tracer: trace.Tracer) -> None:
    unseen = TracerProvider().get_tracer("x")
    with unseen.start_as_current_span("x", attributes={"gen_ai.agent.name": "a"}):
        assert inside() == [("agent", "a")]


async def test_tasks_have_their_own(agent: Spans) -> None:
    ready = asyncio.Barrier(3)

    async def one(name: str) -> list[tuple[str, str]]:
        with agent(name):
            await ready.wait()
            return inside()

    with agent("root"):
        found = await asyncio.gather(*(one(name) for name in "abc"))
    assert found == [[("agent", name), ("agent", "root")] for name in "abc"]


class TestMemory:
    def test_nothing_is_kept_of_what_is_over(self, agent: Spans) -> None:
        gc.collect()
        before = len(enclosing._known)
        for number in range(1_000):
            with agent(f"a{number}"):
                pass
        gc.collect()
        assert len(enclosing._known) <= before

    @pytest.mark.parametrize("name", [None, "same", "{}"], ids=["nameless", "one name", "new names"])
    def test_spans_that_start_the_next_for_ever(self, tracer: trace.Tracer, name: str | None) -> None:
        """Each is started inside the one before, which then ends: a task that schedules itself again."""
        here = otel.get_current()
        for number in range(2_000):
            attributes = {} if name is None else {"gen_ai.agent.name": name.format(number)}
            span = tracer.start_span("x", context=here, attributes=attributes)
            inner = trace.set_span_in_context(span, otel.get_current())
            following = tracer.start_span("y", context=inner)
            span.end()
            here = trace.set_span_in_context(following, otel.get_current())
        depth, each = 0, enclosing.of(trace.get_current_span(here))
        while each is not None:
            depth, each = depth + 1, each.above
        assert depth <= enclosing.DEEPEST
        found = enclosing.roles(here)
        assert len(found) <= enclosing.KEPT + enclosing.DEEPEST
        if name is not None:
            assert found[0] == Role("agent", name.format(1_999))

    def test_a_deep_chain_of_open_spans_keeps_its_names(self, agent: Spans) -> None:
        spans = [agent(f"a{number}") for number in range(enclosing.DEEPEST + 10)]
        for span in spans:
            span.__enter__()
        assert [name for _, name in inside()][:60] == [f"a{number}" for number in range(enclosing.DEEPEST + 9, 13, -1)]
        for span in reversed(spans):
            span.__exit__(None, None, None)

    def test_threads_do_not_mix(self, agent: Spans) -> None:
        problems: list[object] = []

        def work(number: int) -> None:
            for _ in range(200):
                with agent(f"a{number}"), agent("inner"):
                    if inside() != [("agent", "inner"), ("agent", f"a{number}")]:
                        problems.append(inside())

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert problems == []
