"""A running stand-in, and clients of both SDKs that talk to it, closed at the end.

The clients read no certificates (`verify=False`), which would take most of the time of a test: loopback needs none.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import anthropic
import openai
import pytest

from shekel.testing import FakeProvider


@pytest.fixture
def client(provider: FakeProvider) -> Iterator[openai.OpenAI]:
    http = openai.DefaultHttpxClient(verify=False)
    with openai.OpenAI(base_url=provider.openai_url, api_key="test", max_retries=0, http_client=http) as client:
        yield client


@pytest.fixture
def claude(provider: FakeProvider) -> Iterator[anthropic.Anthropic]:
    http, url = anthropic.DefaultHttpxClient(verify=False), provider.anthropic_url
    with anthropic.Anthropic(base_url=url, api_key="test", max_retries=0, http_client=http) as client:
        yield client


@pytest.fixture
async def async_client(provider: FakeProvider) -> AsyncIterator[openai.AsyncOpenAI]:
    http, url = openai.DefaultAsyncHttpxClient(verify=False), provider.openai_url
    async with openai.AsyncOpenAI(base_url=url, api_key="test", max_retries=0, http_client=http) as client:
        yield client


@pytest.fixture
async def async_claude(provider: FakeProvider) -> AsyncIterator[anthropic.AsyncAnthropic]:
    http, url = anthropic.DefaultAsyncHttpxClient(verify=False), provider.anthropic_url
    async with anthropic.AsyncAnthropic(base_url=url, api_key="test", max_retries=0, http_client=http) as client:
        yield client
