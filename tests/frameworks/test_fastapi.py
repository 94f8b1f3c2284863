"""A FastAPI endpoint that streams server-sent events from a stream of the SDK, under a budget for each user.

A real uvicorn server on loopback, the real SDK, the stand-in. What is hard about it: the framework runs a sync
generator's steps in a thread pool, each in a copy of the context; and it closes generators from other tasks.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import openai
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import shekel
from shekel import Budget, BudgetExceededError
from shekel.testing import FakeProvider, Reply

MODEL = "gpt-4o-mini"
WAYS = ("sync", "async")


def _event(name: str, data: str) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


@dataclass
class Service:
    """The program under test: one budget per user, an endpoint of each kind."""

    provider: FakeProvider
    budgets: dict[str, Budget] = field(default_factory=dict)
    closed: threading.Event = field(default_factory=threading.Event)

    def budget_of(self, user: str) -> Budget:
        return self.budgets.setdefault(user, shekel.budget(max_usd=0.001, name=user))

    def app(self) -> FastAPI:
        app = FastAPI()
        options: dict[str, Any] = {"base_url": self.provider.openai_url, "api_key": "test", "max_retries": 0}
        client = openai.OpenAI(**options, http_client=httpx2.Client(trust_env=False))
        async_client = openai.AsyncOpenAI(**options, http_client=httpx2.AsyncClient(trust_env=False))
        request: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Hello."}], "stream": True}

        @app.get("/sync/{user}")
        def sync_endpoint(user: str) -> StreamingResponse:
            def events() -> Iterator[str]:
                try:
                    with self.budget_of(user), client.chat.completions.create(**request) as stream:
                        for chunk in stream:
                            yield _event("text", chunk.choices[0].delta.content or "")
                    yield _event("done", "")
                except BudgetExceededError as error:
                    yield _event("error", error.public_message)
                finally:
                    self.closed.set()

            return StreamingResponse(events(), media_type="text/event-stream")

        @app.get("/async/{user}")
        async def async_endpoint(user: str) -> StreamingResponse:
            async def events() -> AsyncIterator[str]:
                try:
                    async with (
                        self.budget_of(user),
                        await async_client.chat.completions.create(**request) as stream,
                    ):
                        async for chunk in stream:
                            yield _event("text", chunk.choices[0].delta.content or "")
                    yield _event("done", "")
                except BudgetExceededError as error:
                    yield _event("error", error.public_message)
                finally:
                    self.closed.set()

            return StreamingResponse(events(), media_type="text/event-stream")

        return app


@dataclass
class Site:
    """A running server and a client for it."""

    service: Service
    url: str
    client: httpx2.Client
    tracer_provider: TracerProvider
    memory: InMemorySpanExporter

    def outcomes(self) -> list[str]:
        """How the calls ended, by their spans."""
        self.tracer_provider.force_flush()  # those of streams that were dropped end in a thread of Shekel's
        return [str((span.attributes or {})["shekel.outcome"]) for span in self.memory.get_finished_spans()]

    def events(self, path: str) -> list[tuple[str, str]]:
        """All events of one answer: name and data."""
        with self.client.stream("GET", f"{self.url}{path}") as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/event-stream")
            return _events(answer.read().decode())


def _events(body: str) -> list[tuple[str, str]]:
    found = []
    for part in filter(None, body.split("\n\n")):
        name, data = part.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


@pytest.fixture
def site() -> Iterator[Site]:
    memory = InMemorySpanExporter()
    tracer_provider = TracerProvider()
    tracer_provider.add_span_processor(SimpleSpanProcessor(memory))
    instrumentor = shekel.ShekelInstrumentor()
    instrumentor.instrument(tracer_provider=tracer_provider)
    with FakeProvider() as provider:
        service = Service(provider)
        server = uvicorn.Server(
            uvicorn.Config(service.app(), host="127.0.0.1", port=0, log_config=None, lifespan="off", ws="none")
        )
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        _wait(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx2.Client(trust_env=False, timeout=20) as client:
            yield Site(service, f"http://127.0.0.1:{port}", client, tracer_provider, memory)
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()
    instrumentor.uninstrument()


@pytest.fixture(autouse=True)
def _nothing_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No warning and no error from anybody; above all no "created in a different Context"."""
    caplog.set_level(logging.WARNING)
    yield
    gc.collect()
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


def _wait(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not ready():
        assert time.monotonic() < deadline, "it did not come to pass in ten seconds"
        time.sleep(0.005)


@pytest.mark.parametrize("way", WAYS)
class TestEndpoint:
    def test_a_whole_answer_costs_what_the_provider_bills(self, site: Site, way: str) -> None:
        events = site.events(f"/{way}/alice")
        assert events[-1] == ("done", "")
        assert "".join(data for name, data in events if name == "text")
        alice = site.service.budget_of("alice")
        assert round(alice.spent * 1e9) == site.service.provider.bill.total > 0
        assert alice.held == 0
        assert site.outcomes() == ["complete"]

    def test_refused_before_the_first_chunk_the_client_gets_an_error_event(self, site: Site, way: str) -> None:
        site.service.budgets["bob"] = shekel.budget(max_usd=0.000001, name="bob")
        ((name, data),) = site.events(f"/{way}/bob")
        assert name == "error"
        assert data == "The usage limit for this service is reached. Please try again later."
        assert "$" not in data
        assert site.service.provider.requests == [], "it was not sent"
        assert site.outcomes() == ["refused"]

    def test_cut_in_the_middle_the_error_event_follows_the_text(self, site: Site, way: str) -> None:
        # 4,000 tokens of gpt-4o-mini cost $0.0024, the limit is $0.001.
        site.service.provider.default = Reply(output_tokens=4000, pace=0.0003)
        events = site.events(f"/{way}/carol")
        assert [name for name, _ in events[:-1]] == ["text"] * (len(events) - 1)
        assert len(events) > 500
        assert events[-1] == ("error", "This answer was stopped because the usage limit is reached.")
        site.service.provider.wait_idle()
        assert site.service.provider.open_streams == 0
        assert site.outcomes() == ["cut"]
        carol = site.service.budget_of("carol")
        assert carol.held == 0
        assert site.service.provider.bill.total / 1e9 <= 0.001 + carol.peak_exposure
        assert 0.00095 <= carol.spent <= 0.001 + carol.peak_exposure, "the limit, and what was under way"

    def test_the_next_call_of_a_user_who_was_cut_is_refused_and_others_go_on(self, site: Site, way: str) -> None:
        site.service.provider.reply(Reply(output_tokens=4000, pace=0.0003))
        assert site.events(f"/{way}/dave")[-1][0] == "error"
        assert [name for name, _ in site.events(f"/{way}/dave")] == ["error"]
        assert site.events(f"/{way}/erin")[-1][0] == "done"
        assert site.service.budget_of("erin").calls_used == 1

    def test_a_client_that_leaves_gives_the_hold_back_and_is_charged(self, site: Site, way: str) -> None:
        site.service.provider.default = Reply(output_tokens=10_000, pace=0.005)
        with site.client.stream("GET", f"{site.url}/{way}/frank") as answer:
            for read, _ in enumerate(line for line in answer.iter_lines() if line.startswith("data:")):
                if read >= 10:
                    break
        # Starlette closes an async generator, but only drops a sync one: that ends when it is collected.
        _wait(lambda: site.service.closed.is_set() or (gc.collect() < 0))
        frank = site.service.budget_of("frank")
        _wait(lambda: frank.held == 0)
        site.service.provider.wait_idle()
        (attempt,) = site.service.provider.bill
        assert attempt.outcome == "disconnected"
        if way == "async":
            assert site.outcomes() == ["cancelled"]
        else:  # one collection finds the generator and its stream, and finalises them in an order of its own
            assert site.outcomes() in (["closed"], ["dropped"])
        assert 0 < frank.spent <= 0.001
        assert attempt.cost / 1e9 <= frank.spent + frank.exposure
        assert frank.spent >= read * 0.6e-6, "each event that reached the client is a token of gpt-4o-mini"

    def test_many_users_at_once_pay_each_for_themselves(self, site: Site, way: str) -> None:
        site.service.provider.default = Reply(output_tokens=60, pace=0.002)
        users = [f"user{number}" for number in range(8)]

        async def everybody() -> list[str]:
            async with httpx2.AsyncClient(trust_env=False, timeout=20) as client:
                answers = await asyncio.gather(*(client.get(f"{site.url}/{way}/{user}") for user in users))
                return [answer.text for answer in answers]

        assert all(_events(text)[-1] == ("done", "") for text in asyncio.run(everybody()))
        spent = [site.service.budget_of(user).spent for user in users]
        assert len(set(spent)) == 1, "the same request costs everybody the same"
        assert round(sum(spent) * 1e9) == site.service.provider.bill.total
