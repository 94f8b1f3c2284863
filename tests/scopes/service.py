"""Two services of one house, each a process: `python service.py front URL` and `python service.py back URL`.

The front knows who asks and calls no model; the back calls the model, and knows only what came in baggage. Both are
FastAPI on uvicorn with OpenTelemetry's own ASGI middleware and HTTP client instrumentation, and tell their spans on
request. The port is the first line that is printed.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import anthropic
import httpx2
import openai
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from opentelemetry import trace
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.instrumentation.httpx import HTTPX2ClientInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import shekel
from shekel import BudgetExceededError, ScopeMiddleware, ShekelInstrumentor, configure, per
from shekel.scopes.counts import dropped

USERS = {"token-of-cleo": "cleo", "token-of-bob": "bob"}


def front(app: FastAPI, back: str) -> None:
    app.add_middleware(
        ScopeMiddleware, resolver=lambda request: {"user_id": USERS.get(request.headers.get("authorization", ""))}
    )
    client = httpx2.AsyncClient(trust_env=False, timeout=60)

    @app.get("/ask")
    async def ask() -> JSONResponse:
        answer = await client.get(f"{back}/ask")
        return JSONResponse(answer.json(), answer.status_code)


def back(app: FastAPI, provider: str) -> None:
    ShekelInstrumentor().instrument()
    configure(policies=[per("user.id", "5 calls")])
    app.add_middleware(ScopeMiddleware)
    asked: list[Any] = [{"role": "user", "content": "Hello."}]
    chat = openai.AsyncOpenAI(base_url=f"{provider}/v1", api_key="test", max_retries=0)
    claude = anthropic.Anthropic(base_url=provider, api_key="test", max_retries=0)

    @app.get("/ask")
    async def ask() -> Any:
        return (await chat.chat.completions.create(model="gpt-4o-mini", messages=asked, max_tokens=8)).model

    @app.get("/claude")
    def ask_claude() -> Any:
        return claude.messages.create(model="claude-haiku-4-5", messages=asked, max_tokens=8).model

    @app.exception_handler(BudgetExceededError)
    async def refused(request: Request, error: BudgetExceededError) -> JSONResponse:
        return JSONResponse({"error": error.public_message}, 429)

    @app.get("/dropped")
    def counted() -> dict[str, int]:
        return {str(reason): count for reason, count in dropped.items()}


def main(role: str, url: str) -> None:
    logging.getLogger("opentelemetry").setLevel(logging.ERROR)  # it quotes every header that is malformed
    memory = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    trace.set_tracer_provider(provider)
    HTTPX2ClientInstrumentor().instrument()
    app = FastAPI()

    @app.get("/spans")
    def spans() -> list[dict[str, Any]]:
        return [
            {
                "name": span.name,
                "scope": None if span.instrumentation_scope is None else span.instrumentation_scope.name,
                "trace": f"{span.context.trace_id:032x}",
                "id": f"{span.context.span_id:016x}",
                "parent": None if span.parent is None else f"{span.parent.span_id:016x}",
                "attributes": {key: value for key, value in (span.attributes or {}).items() if isinstance(value, str)},
            }
            for span in memory.get_finished_spans()
        ]

    {"front": front, "back": back}[role](app, url)
    config = uvicorn.Config(
        OpenTelemetryMiddleware(app, excluded_urls="spans,dropped"),
        host="127.0.0.1",
        port=0,
        log_level="error",
        ws="none",
    )
    server = uvicorn.Server(config)
    config.load()
    socket = config.bind_socket()
    print(socket.getsockname()[1], flush=True)
    server.run(sockets=[socket])


if __name__ == "__main__":
    assert shekel.__file__ is not None
    main(*sys.argv[1:])
