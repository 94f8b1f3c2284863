"""The ways in which a program calls the SDKs, sync and async, each as one function from the clients to what comes back.

What comes back is all that a program can tell: the types of the objects it got, and what was in them.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any

import anthropic
import openai
import pydantic
from opentelemetry.sdk.trace import TracerProvider

from shekel.testing import FakeProvider


class Shape(pydantic.BaseModel):
    """What `.parse` is asked for."""

    count: int


GPT: dict[str, Any] = {
    "model": "gpt-4o-mini",
    "max_tokens": 40,
    "messages": [{"role": "user", "content": "Hello there, how are you today?"}],
}
CLAUDE: dict[str, Any] = {**GPT, "model": "claude-haiku-4-5"}
RESPONSE: dict[str, Any] = {"model": "gpt-4o-mini", "input": "Hello there, how are you today?", "max_output_tokens": 40}

Seen = list[Any]
Sync = Callable[[Any], Seen]
Async = Callable[[Any], Awaitable[Seen]]


def clients(sdk: str, provider: FakeProvider, own: TracerProvider | None, retries: int = 0) -> tuple[Any, Any]:
    """A sync and an async client of the stand-in. `own`: where anthropic's own spans go, if it traces by itself."""
    given: dict[str, Any] = {"api_key": "test", "max_retries": retries}
    if sdk == "openai":
        given["base_url"] = provider.openai_url
        return (
            openai.OpenAI(http_client=openai.DefaultHttpxClient(verify=_certificates()), **given),
            openai.AsyncOpenAI(http_client=openai.DefaultAsyncHttpxClient(verify=_certificates()), **given),
        )
    given["base_url"] = provider.anthropic_url
    given["open_telemetry"] = {"tracer_provider": own, "traces": True} if own is not None else False
    return (
        anthropic.Anthropic(http_client=anthropic.DefaultHttpxClient(verify=_certificates()), **given),
        anthropic.AsyncAnthropic(http_client=anthropic.DefaultAsyncHttpxClient(verify=_certificates()), **given),
    )


@cache
def _certificates() -> ssl.SSLContext:
    """Loaded once: it takes longer than a call does here, and nobody here speaks TLS."""
    return ssl.create_default_context()


def _kind(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _plain(answer: Any) -> Seen:
    return [_kind(answer), answer.usage.model_dump()]


def _chunks(stream: Any) -> Seen:
    return [_kind(stream), isinstance(stream, openai.Stream | anthropic.Stream), *map(_kind, stream)]


async def _achunks(stream: Any) -> Seen:
    seen: Seen = [_kind(stream), isinstance(stream, openai.AsyncStream | anthropic.AsyncStream)]
    return seen + [_kind(chunk) async for chunk in stream]


def _helper(manager: Any) -> Seen:
    with manager as stream:
        return [_kind(stream), *map(_kind, stream)]


async def _ahelper(manager: Any) -> Seen:
    async with manager as stream:
        return [_kind(stream)] + [_kind(event) async for event in stream]


def _raw(response: Any) -> Seen:
    return [_kind(response), response.status_code, *_plain(response.parse())]


async def _araw(response: Any) -> Seen:
    parsed = response.parse()
    return [_kind(response), response.status_code, *_plain(await parsed if hasattr(parsed, "__await__") else parsed)]


SYNC: dict[str, dict[str, Sync]] = {
    "openai": {
        "plain": lambda c: _plain(c.chat.completions.create(**GPT)),
        "stream": lambda c: _chunks(c.chat.completions.create(**GPT, stream=True)),
        "helper": lambda c: _helper(c.chat.completions.stream(**GPT)),
        "parse": lambda c: _plain(c.chat.completions.parse(**GPT, response_format=Shape)),
        "raw": lambda c: _raw(c.chat.completions.with_raw_response.create(**GPT)),
        "responses": lambda c: _plain(c.responses.create(**RESPONSE)),
        "responses-stream": lambda c: _chunks(c.responses.create(**RESPONSE, stream=True)),
        "responses-helper": lambda c: _helper(c.responses.stream(**RESPONSE)),
    },
    "anthropic": {
        "plain": lambda c: _plain(c.messages.create(**CLAUDE)),
        "stream": lambda c: _chunks(c.messages.create(**CLAUDE, stream=True)),
        "helper": lambda c: _helper(c.messages.stream(**CLAUDE)),
        "parse": lambda c: _plain(c.messages.parse(**CLAUDE, output_format=Shape)),
        "raw": lambda c: _raw(c.messages.with_raw_response.create(**CLAUDE)),
    },
}


async def _plain_of(answer: Awaitable[Any]) -> Seen:
    return _plain(await answer)


async def _chunks_of(stream: Awaitable[Any]) -> Seen:
    return await _achunks(await stream)


async def _raw_of(response: Awaitable[Any]) -> Seen:
    return await _araw(await response)


ASYNC: dict[str, dict[str, Async]] = {
    "openai": {
        "plain": lambda c: _plain_of(c.chat.completions.create(**GPT)),
        "stream": lambda c: _chunks_of(c.chat.completions.create(**GPT, stream=True)),
        "helper": lambda c: _ahelper(c.chat.completions.stream(**GPT)),
        "parse": lambda c: _plain_of(c.chat.completions.parse(**GPT, response_format=Shape)),
        "raw": lambda c: _raw_of(c.chat.completions.with_raw_response.create(**GPT)),
        "responses": lambda c: _plain_of(c.responses.create(**RESPONSE)),
        "responses-stream": lambda c: _chunks_of(c.responses.create(**RESPONSE, stream=True)),
        "responses-helper": lambda c: _ahelper(c.responses.stream(**RESPONSE)),
    },
    "anthropic": {
        "plain": lambda c: _plain_of(c.messages.create(**CLAUDE)),
        "stream": lambda c: _chunks_of(c.messages.create(**CLAUDE, stream=True)),
        "helper": lambda c: _ahelper(c.messages.stream(**CLAUDE)),
        "parse": lambda c: _plain_of(c.messages.parse(**CLAUDE, output_format=Shape)),
        "raw": lambda c: _raw_of(c.messages.with_raw_response.create(**CLAUDE)),
    },
}
