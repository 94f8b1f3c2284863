"""Which request is billable, and what its API looks like: one table per SDK.

`find_endpoint` is asked on every request of an SDK, so the common paths are one dictionary lookup.
"""

from __future__ import annotations

from .anthropic import Messages
from .base import Answer, Endpoint, Request, StreamReader
from .openai import ChatCompletions, Compact, Responses

__all__ = ["Answer", "Endpoint", "Request", "StreamReader", "find_endpoint"]

_ENDPOINTS: dict[str, dict[str, Endpoint]] = {
    "openai": {
        "/chat/completions": ChatCompletions(),
        "/responses": Responses(),
        "/responses/compact": Compact(),
    },
    "anthropic": {
        "/v1/messages": Messages(),
        "/v1/messages?beta=true": Messages(),
    },
}


def __getattr__(name: str) -> object:
    if name in ("ADAPTER_REGISTRY", "ProviderAdapter"):  # the vocabulary keeps them here
        from .. import vocabulary

        return getattr(vocabulary, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def endpoint_named(name: str) -> Endpoint | None:
    """The endpoint of that name ("chat.completions", "responses", "messages")."""
    return next((each for table in _ENDPOINTS.values() for each in table.values() if each.name == name), None)


def find_endpoint(sdk: str, method: str, url: str) -> Endpoint | None:
    """The endpoint of a request, or None if it is not billable or not known.

    Args:
        sdk: "openai" or "anthropic".
        method: the HTTP method; all but POST only read.
        url: what the SDK is asked for: a path such as "/chat/completions", with or without a query, a trailing slash
            or a base before it ("/openai/deployments/x/chat/completions"), or a whole URL.
    """
    table = _ENDPOINTS.get(sdk)
    if table is None or (method != "POST" and method.upper() != "POST"):
        return None
    found = table.get(url)
    if found is not None:
        return found
    path = url.split("#", 1)[0].split("?", 1)[0].rstrip("/")
    if "://" in path:
        path = path[path.find("/", path.find("://") + 3) :]
    path = "/" + path.lstrip("/")
    for known, endpoint in table.items():
        if path.endswith(known):
            return endpoint
    # Without its version: what is left when a base URL already ends in /v1.
    return table["/v1/messages"] if sdk == "anthropic" and path == "/messages" else None
