"""The ASGI middleware under FastAPI on a real uvicorn: sync and async endpoints, and events streamed by both."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import openai
import pytest
import uvicorn
from fastapi import FastAPI, WebSocket
from fastapi.responses import StreamingResponse

import shekel
from shekel import BudgetExceededError, ScopeMiddleware, context, per
from shekel.budgets.scope import entries
from shekel.scopes.counts import Drop, Unresolved, dropped, unresolved
from shekel.scopes.resolving import Incoming
from shekel.testing import FakeProvider, Reply

REQUEST: dict[str, Any] = {
    "model": "gpt-4o-mini",
    "messages": [{"role": "user", "content": "Hello."}],
    "max_tokens": 16,
    "stream": True,
}
WAYS = ("sync", "async", "sync-events", "async-events")


def payer() -> str:
    return json.dumps(dict(entries(context.current())))


def application(provider: FakeProvider) -> FastAPI:
    app = FastAPI()
    options: dict[str, Any] = {"base_url": provider.openai_url, "api_key": "test", "max_retries": 0}
    client = openai.OpenAI(**options, http_client=httpx2.Client(trust_env=False))
    async_client = openai.AsyncOpenAI(**options, http_client=httpx2.AsyncClient(trust_env=False))

    @app.get("/sync")
    def sync_endpoint() -> str:
        list(client.chat.completions.create(**REQUEST))
        return payer()

    @app.get("/async")
    async def async_endpoint() -> str:
        async for _ in await async_client.chat.completions.create(**REQUEST):
            pass
        return payer()

    @app.get("/sync-events")
    def sync_events() -> StreamingResponse:
        def events() -> Iterator[str]:
            yield payer() + "\n"
            try:
                for _ in client.chat.completions.create(**REQUEST):
                    yield payer() + "\n"
            except BudgetExceededError as error:
                yield f"refused {error.scope}\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    @app.get("/async-events")
    async def async_events() -> StreamingResponse:
        async def events() -> AsyncIterator[str]:
            yield payer() + "\n"
            try:
                async for _ in await async_client.chat.completions.create(**REQUEST):
                    yield payer() + "\n"
            except BudgetExceededError as error:
                yield f"refused {error.scope}\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    @app.get("/payer")
    async def who() -> str:
        return payer()

    @app.websocket("/socket")
    async def socket(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text(payer())
        await socket.close()

    return app


@contextlib.contextmanager
def served(app: Any) -> Iterator[httpx2.Client]:
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, lifespan="off", ws="none"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as client:
        yield client
    server.should_exit = True
    thread.join(30)
    assert not thread.is_alive()


def by_header(request: Incoming) -> dict[str, str | None]:
    return {"user_id": request.headers.get("X-User")}


async def by_header_async(request: Incoming) -> dict[str, str | None]:
    await asyncio.sleep(0)
    return {"user_id": request.headers.get("x-user")}


@pytest.mark.parametrize("resolver", [by_header, by_header_async])
def test_every_kind_of_endpoint_is_in_the_scope_of_its_request(
    resolver: Any, provider: FakeProvider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    provider.default = Reply(output_tokens=5)
    shekel.configure(policies=[per("user.id", "4 calls")])
    with served(ScopeMiddleware(application(provider), resolver)) as client:
        for user in ("ada", "bob"):
            for way in WAYS:
                text = client.get(f"/{way}", headers={"X-User": user}).text
                assert text.count(json.dumps({"user.id": user}).replace('"', '\\"' if "ev" not in way else '"')) >= 1
                assert "refused" not in text
            for way in ("sync-events", "async-events"):
                lines = client.get(f"/{way}", headers={"X-User": user}).text.splitlines()
                assert lines == [json.dumps({"user.id": user}), f"refused user.id={user}"]
        assert client.get("/payer").json() == "{}"
    assert len(provider.requests) == 8
    assert caplog.records == []
    assert not unresolved


def test_requests_at_once_are_each_in_their_own(provider: FakeProvider) -> None:
    provider.default = Reply(output_tokens=20, pace=0.005)
    users = [f"user{number}" for number in range(12)]

    async def everybody(base: httpx2.URL) -> list[str]:
        async with httpx2.AsyncClient(base_url=base, trust_env=False, timeout=60) as client:
            asked = [
                client.get("/sync-events" if number % 2 else "/async-events", headers={"x-user": user})
                for number, user in enumerate(users)
            ]
            return [answer.text for answer in await asyncio.gather(*asked)]

    with served(ScopeMiddleware(application(provider), by_header)) as client:
        answers = asyncio.run(everybody(client.base_url))
    for user, text in zip(users, answers, strict=True):
        lines = set(text.splitlines())
        assert lines == {json.dumps({"user.id": user})}


class TestResolver:
    def asked(self, resolver: Any, path: str = "/payer", **options: Any) -> Any:
        with FakeProvider() as provider:
            app = application(provider)
            app.add_middleware(ScopeMiddleware, resolver=resolver, **options)
            with served(app) as client:
                return json.loads(client.get(path, headers={"x-user": "ada", "x-many": "1"}).json())

    def test_it_sees_headers_method_path_and_the_scope(self) -> None:
        seen: list[Incoming] = []
        assert self.asked(lambda request: seen.append(request)) == {}
        [request] = seen
        assert (request.method, request.path, request.raw["type"]) == ("GET", "/payer", "http")
        assert request.headers["X-USER"] == "ada"
        assert "x-other" not in request.headers
        assert not unresolved

    def test_keys_may_be_arguments_of_scope_or_those_of_the_baggage(self) -> None:
        assert self.asked(lambda _: {"user_id": 7, "team.id": "x", "tenant_id": None}) == {
            "user.id": "7",
            "team.id": "x",
        }

    @pytest.mark.parametrize(
        "answer",
        [{"user_id": ""}, {"user_id": ["ada"]}, "ada", 7, {"user id": "x"}, {"tenant_id": "a", "user_id": 1.5}],
    )
    def test_an_answer_that_is_no_scope_is_none_at_all(self, answer: Any) -> None:
        assert self.asked(lambda _: answer) == {}
        assert unresolved == {Unresolved.INVALID: 1}

    def test_one_that_raises_leaves_the_request_to_go_on(self, caplog: pytest.LogCaptureFixture) -> None:
        def fails(request: Incoming) -> None:
            raise LookupError(f"no session for {request.headers['x-user']}")

        assert self.asked(fails) == {}
        assert self.asked(fails, otherwise={"user_id": "unknown"}) == {"user.id": "unknown"}
        assert unresolved == {Unresolved.ERROR: 2}
        messages = [record.getMessage() for record in caplog.records if "resolver" in record.getMessage()]
        assert len(messages) <= 1
        assert "ada" not in caplog.text

    def test_one_that_is_late_is_given_up(self) -> None:
        stopped = threading.Event()

        async def late(request: Incoming) -> dict[str, str]:
            try:
                await asyncio.sleep(600)
            finally:
                stopped.set()
            return {"user_id": "ada"}

        assert self.asked(late, timeout=0.05, otherwise={"user_id": "unknown"}) == {"user.id": "unknown"}
        assert stopped.is_set()
        assert unresolved == {Unresolved.TIMEOUT: 1}

    def test_a_timeout_of_its_own_is_an_error_like_others(self) -> None:
        async def raises(request: Incoming) -> None:
            raise TimeoutError

        assert self.asked(raises) == {}
        assert unresolved == {Unresolved.ERROR: 1}

    def test_one_that_cannot_be_interrupted_is_counted_and_used(self) -> None:
        def slow(request: Incoming) -> dict[str, str]:
            time.sleep(0.05)
            return {"user_id": "ada"}

        assert self.asked(slow, timeout=0.01) == {"user.id": "ada"}
        assert unresolved == {Unresolved.SLOW: 1}

    @pytest.mark.parametrize(
        "options",
        [{"resolver": 7}, {"timeout": 0}, {"timeout": True}, {"otherwise": {"user_id": ""}}, {"otherwise": 7}],
    )
    def test_a_setting_that_makes_no_sense_is_refused_at_once(self, options: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=r"resolver|timeout|user_id|otherwise"):
            ScopeMiddleware(None, **options)  # type: ignore[arg-type]


class TestConnections:
    async def test_a_websocket_has_its_scope_and_other_kinds_pass(self, provider: FakeProvider) -> None:
        # Spoken to as a server does: the protocol's messages are what matters here, not a socket.
        app = ScopeMiddleware(application(provider), by_header)
        sent: list[Any] = []
        messages = iter([{"type": "websocket.connect"}, {"type": "websocket.disconnect"}])

        async def receive() -> Any:
            return next(messages)

        async def send(message: Any) -> None:
            sent.append(message)

        connection = {"type": "websocket", "path": "/socket", "query_string": b"", "headers": [(b"x-user", b"ada")]}
        await app(connection, receive, send)
        assert [each.get("text") for each in sent] == [None, json.dumps({"user.id": "ada"}), None]

        passed: list[str] = []

        async def bare(scope: Any, receive: Any, send: Any) -> None:
            passed.append(scope["type"])

        await ScopeMiddleware(bare, by_header)({"type": "lifespan"}, receive, send)
        assert passed == ["lifespan"]

    def test_baggage_that_opentelemetry_drops_is_counted(self, provider: FakeProvider) -> None:
        with served(ScopeMiddleware(application(provider))) as client:
            for text in ("user.id=ada,x=" + "y" * 8192, "user.id=adä".encode(), "user.id=ada"):
                assert client.get("/payer", headers={"baggage": text}).json() == "{}"
        assert dropped == {Drop.OVERSIZED: 1, Drop.MALFORMED: 1}
