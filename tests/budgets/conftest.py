"""What the tests of budgets share: a stand-in for the providers, clients of both SDKs, and time to wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anthropic
import openai
import pytest

import shekel
from shekel.testing import FakeProvider

MODEL = "gpt-4o-mini"
CLAUDE = "claude-haiku-4-5"
HELLO: list[Any] = [{"role": "user", "content": "Hello there, how are you today?"}]
DEADLINE = 30.0
"""Seconds that a test waits for something that takes milliseconds."""


def async_client(provider: FakeProvider) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=provider.openai_url, api_key="test", max_retries=0)


def async_claude(provider: FakeProvider) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=provider.anthropic_url, api_key="test", max_retries=0)


def ask(client: openai.OpenAI, *, model: str = MODEL, max_tokens: int = 64) -> Any:
    """One plain call that is answered with 64 tokens."""
    return client.chat.completions.create(model=model, messages=HELLO, max_tokens=max_tokens)


async def ask_async(client: openai.AsyncOpenAI, *, model: str = MODEL, max_tokens: int = 64) -> Any:
    return await client.chat.completions.create(model=model, messages=HELLO, max_tokens=max_tokens)


def stream(client: openai.OpenAI, *, model: str = MODEL, **more: Any) -> Any:
    return client.chat.completions.create(model=model, messages=HELLO, stream=True, **more)


def billed(provider: FakeProvider) -> int:
    """Nano-dollars on the provider's bill, once it has nothing more to do."""
    provider.wait_idle()
    return provider.bill.total


def nano(usd: float | None) -> int:
    assert usd is not None
    return round(usd * 1e9)


@pytest.fixture
def before_midnight(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let it be ten minutes before a midnight of UTC. Returns what sets the clocks forward by so many seconds."""
    seconds, nanoseconds = time.time, time.time_ns
    ahead = -(seconds() + 600) % 86_400

    def forward(by: float) -> None:
        nonlocal ahead
        ahead += by

    monkeypatch.setattr(time, "time", lambda: seconds() + ahead)
    monkeypatch.setattr(time, "time_ns", lambda: nanoseconds() + int(ahead * 1e9))
    return forward


def until(happened: Callable[[], object]) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + DEADLINE
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.002)


@contextmanager
def everywhere(budget: Any) -> Iterator[Any]:
    """A budget of the whole process, for a while."""
    shekel.configure(budget=budget)
    try:
        yield budget
    finally:
        shekel.configure(budget=None)
