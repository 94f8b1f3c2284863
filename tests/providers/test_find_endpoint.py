"""Which requests are billable."""

from __future__ import annotations

import pytest

from shekel.providers import find_endpoint


@pytest.mark.parametrize(
    ("sdk", "url", "name"),
    [
        ("openai", "/chat/completions", "chat.completions"),
        ("openai", "chat/completions", "chat.completions"),
        ("openai", "/chat/completions/?api-version=1", "chat.completions"),
        ("openai", "/deployments/x/chat/completions", "chat.completions"),
        ("openai", "https://host/openai/deployments/x/chat/completions?api-version=1", "chat.completions"),
        ("openai", "/responses", "responses"),
        ("openai", "/responses?beta=true", "responses"),
        ("openai", "/v1/responses/", "responses"),
        ("openai", "/responses/compact", "responses.compact"),
        ("anthropic", "/v1/messages", "messages"),
        ("anthropic", "/v1/messages?beta=true", "messages"),
        ("anthropic", "https://api.anthropic.com/v1/messages", "messages"),
    ],
)
def test_finds_the_endpoint(sdk: str, url: str, name: str) -> None:
    found = find_endpoint(sdk, "POST", url)
    assert found is not None
    assert found.name == name
    assert find_endpoint(sdk, "post", url) is found
    assert find_endpoint(sdk, "GET", url) is None


@pytest.mark.parametrize(
    ("sdk", "url"),
    [
        ("openai", "/responses/resp_1/cancel"),
        ("openai", "/responses/input_tokens"),
        ("openai", "/chat/completions/chatcmpl_1"),
        ("openai", "/batches"),
        ("openai", "/v1/messages"),
        ("openai", "/threads/t/messages"),
        ("openai", ""),
        ("openai", "https://host"),
        ("anthropic", "/v1/messages/count_tokens"),
        ("anthropic", "/v1/messages/batches"),
        ("anthropic", "/v1/messages/count_tokens?beta=true"),
        ("anthropic", "/chat/completions"),
        ("mistral", "/chat/completions"),
    ],
)
def test_knows_what_is_not_billable(sdk: str, url: str) -> None:
    assert find_endpoint(sdk, "POST", url) is None
