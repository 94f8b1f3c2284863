"""The WSGI middleware under Flask on a real threaded server: views, and events that are read after them."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import openai
import pytest
from flask import Flask, Response, send_file, stream_with_context
from flask import request as flask_request
from werkzeug.serving import make_server

import shekel
from shekel import BudgetExceededError, WsgiScopeMiddleware, context, per
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


def payer() -> str:
    return json.dumps(dict(entries(context.current())))


def application(provider: FakeProvider) -> Flask:
    app = Flask(__name__)
    client = openai.OpenAI(
        base_url=provider.openai_url, api_key="test", max_retries=0, http_client=httpx2.Client(trust_env=False)
    )

    def events() -> Iterator[str]:
        yield payer() + "\n"
        try:
            for _ in client.chat.completions.create(**REQUEST):
                yield payer() + "\n"
        except BudgetExceededError as error:
            yield f"refused {error.scope}\n"

    @app.get("/plain")
    def plain() -> str:
        list(client.chat.completions.create(**REQUEST))
        return payer()

    @app.get("/events")
    def streamed() -> Response:
        return Response(events(), mimetype="text/event-stream")

    @app.get("/events-with-context")
    def with_context() -> Response:
        def inner() -> Iterator[str]:
            yield flask_request.headers["X-User"] + "\n"
            with shekel.budget(max_usd=1) as own:
                yield from events()
            assert own.calls_used <= 1

        return Response(stream_with_context(inner()), mimetype="text/event-stream")

    @app.get("/payer")
    def who() -> str:
        return payer()

    @app.get("/file")
    def file() -> Response:
        return send_file(__file__)

    return app


@contextlib.contextmanager
def served(app: Any) -> Iterator[httpx2.Client]:
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    with httpx2.Client(base_url=f"http://127.0.0.1:{server.server_port}", trust_env=False, timeout=60) as client:
        yield client
    server.shutdown()
    thread.join(30)
    server.server_close()


def by_header(request: Incoming) -> dict[str, str | None]:
    return {"user_id": request.headers.get("X-User")}


def test_views_and_streams_are_in_the_scope_of_their_request(
    provider: FakeProvider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    provider.default = Reply(output_tokens=5)
    shekel.configure(policies=[per("user.id", "3 calls")])
    with served(WsgiScopeMiddleware(application(provider), by_header)) as client:
        for user in ("ada", "bob"):
            mine = json.dumps({"user.id": user})
            headers = {"x-user": user}
            assert client.get("/plain", headers=headers).text == mine
            assert set(client.get("/events", headers=headers).text.splitlines()) == {mine}
            assert set(client.get("/events-with-context", headers=headers).text.splitlines()) == {user, mine}
            assert client.get("/events", headers=headers).text.splitlines() == [mine, f"refused user.id={user}"]
            assert client.get("/file", headers=headers).text.startswith('"""The WSGI middleware')
        assert client.get("/payer").text == "{}"
    assert len(provider.requests) == 6
    assert caplog.records == []


def test_requests_at_once_are_each_in_their_own(provider: FakeProvider) -> None:
    provider.default = Reply(output_tokens=20, pace=0.005)
    users = [f"user{number}" for number in range(12)]
    with (
        served(WsgiScopeMiddleware(application(provider), by_header)) as client,
        ThreadPoolExecutor(len(users)) as pool,
    ):
        answers = list(pool.map(lambda user: client.get("/events", headers={"x-user": user}).text, users))
    for user, text in zip(users, answers, strict=True):
        assert set(text.splitlines()) == {json.dumps({"user.id": user})}


def test_a_client_that_leaves_ends_the_stream_in_its_scope(provider: FakeProvider) -> None:
    provider.default = Reply(output_tokens=2000, pace=0.01)
    with (
        served(WsgiScopeMiddleware(application(provider), by_header)) as client,
        client.stream("GET", "/events", headers={"x-user": "ada"}) as answer,
    ):
        lines = answer.iter_lines()
        assert [next(lines) for _ in range(5)] == [json.dumps({"user.id": "ada"})] * 5
        answer.close()
        _wait(lambda: provider.open_streams == 0)


def _wait(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _fails(request: Incoming) -> None:
    raise LookupError("no session")


async def _coroutine(request: Incoming) -> dict[str, str]:
    return {"user_id": "ada"}


def _slow(request: Incoming) -> dict[str, str]:
    time.sleep(0.05)
    return {"user_id": "ada"}


@pytest.mark.parametrize(
    ("resolver", "reason", "expected"),
    [
        (_fails, Unresolved.ERROR, {"user.id": "unknown"}),
        (_coroutine, Unresolved.INVALID, {"user.id": "unknown"}),
        (lambda _: {"user_id": " "}, Unresolved.INVALID, {"user.id": "unknown"}),
        (_slow, Unresolved.SLOW, {"user.id": "ada"}),
    ],
)
def test_a_resolver_without_an_answer(
    provider: FakeProvider, resolver: Any, reason: Unresolved, expected: dict[str, str]
) -> None:
    app = WsgiScopeMiddleware(application(provider), resolver, timeout=0.01, otherwise={"user_id": "unknown"})
    with served(app) as client:
        assert client.get("/payer").json() == expected
    assert unresolved == {reason: 1}


def test_baggage_that_opentelemetry_drops_is_counted(provider: FakeProvider) -> None:
    with served(WsgiScopeMiddleware(application(provider))) as client:
        assert client.get("/payer", headers={"baggage": "user.id=ada,x=" + "y" * 8192}).text == "{}"
    assert dropped == {Drop.OVERSIZED: 1}
