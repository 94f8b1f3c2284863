"""The stand-in, clients of the real SDKs, and calls whose cost is known: one cent each, at a price of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest

from shekel.testing import FakeProvider

MODEL = "gpt-4o-mini"
HELLO: list[Any] = [{"role": "user", "content": "Hello there."}]
CENT: dict[str, Any] = {"price_per_1k_tokens": {"input": 0.0, "output": 1.0}}
"""With answers of ten tokens each call costs $0.01, and holds that much where it is capped at ten."""


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider(output_tokens=10) as provider:
        yield provider


@pytest.fixture
def ask(client: openai.OpenAI) -> Callable[..., Any]:
    """One call of ten tokens; with `stream=True` it is read to its end."""

    def ask(model: str = MODEL, *, stream: bool = False) -> Any:
        answer = client.chat.completions.create(model=model, messages=HELLO, max_tokens=10, stream=stream)  # type: ignore[call-overload]
        return list(answer) if stream else answer

    return ask


@pytest.fixture
def ask_async(provider: FakeProvider) -> Callable[..., Any]:
    async def ask(model: str = MODEL) -> Any:
        async with openai.AsyncOpenAI(base_url=provider.openai_url, api_key="test", max_retries=0) as client:
            return await client.chat.completions.create(model=model, messages=HELLO, max_tokens=10)

    return ask
