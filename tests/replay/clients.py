"""The SDKs' own clients, with their default hosts, whose packets arrive at a server on loopback.

Shekel looks at the host of a request (a local stand-in is not asked for usage, the provider is), so the clients must
believe that they talk to the provider. Only the transport knows better: it is the real one, sent to another port.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import anthropic
import httpx2
import openai


def _redirected(request: httpx2.Request, port: int) -> httpx2.Request:
    return httpx2.Request(
        request.method,
        request.url.copy_with(scheme="http", host="127.0.0.1", port=port),
        headers=request.headers,
        stream=request.stream,
        extensions=request.extensions,
    )


class ToLoopback(httpx2.HTTPTransport):
    """The real transport, towards 127.0.0.1:`port` whatever the request's host."""

    def __init__(self, port: int) -> None:
        super().__init__(verify=False)  # there is no TLS on loopback, and loading certificates takes 50 ms
        self.port = port

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        return super().handle_request(_redirected(request, self.port))


class AsyncToLoopback(httpx2.AsyncHTTPTransport):
    """The real asynchronous transport, towards 127.0.0.1:`port` whatever the request's host."""

    def __init__(self, port: int) -> None:
        super().__init__(verify=False)  # there is no TLS on loopback, and loading certificates takes 50 ms
        self.port = port

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        return await super().handle_async_request(_redirected(request, self.port))


@dataclass(frozen=True, slots=True)
class Clients:
    """One client of each SDK, both synchronous or both asynchronous."""

    openai: Any
    anthropic: Any

    async def close(self) -> None:
        for client in (self.openai, self.anthropic):
            closing = client.close()
            if closing is not None:
                await closing


def clients(port: int, *, is_async: bool, timeout: float = 30.0) -> Clients:
    """Clients that never retry, for a server at `port`; `timeout` in seconds."""
    if is_async:
        return Clients(
            openai.AsyncOpenAI(
                api_key="k",
                max_retries=0,
                timeout=timeout,
                http_client=httpx2.AsyncClient(transport=AsyncToLoopback(port)),
            ),
            anthropic.AsyncAnthropic(
                api_key="k",
                max_retries=0,
                timeout=timeout,
                http_client=httpx2.AsyncClient(transport=AsyncToLoopback(port)),
            ),
        )
    return Clients(
        openai.OpenAI(
            api_key="k", max_retries=0, timeout=timeout, http_client=httpx2.Client(transport=ToLoopback(port))
        ),
        anthropic.Anthropic(
            api_key="k", max_retries=0, timeout=timeout, http_client=httpx2.Client(transport=ToLoopback(port))
        ),
    )
