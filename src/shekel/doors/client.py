"""What a client of the SDKs tells about where its calls go: provider, host, and whether it traces by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_KINDS = (("Azure", "azure.ai.openai"), ("Bedrock", "aws.bedrock"), ("Vertex", "gcp.vertex_ai"))
_providers: dict[type, str | None] = {}

RAW_HEADER = "x-stainless-raw-response"
"""The header by which both SDKs remember that a raw response was asked for."""

HELPER_HEADER = "x-stainless-helper-method"
"""The header by which the SDKs say that a helper of theirs sends the request: "stream" for `messages.stream()`."""

USAGE_HOSTS = frozenset({"api.openai.com"})
"""Hosts known to accept `stream_options.include_usage`.
Source: OpenAI API reference, Chat Completions, `stream_options`."""

USAGE_SUFFIXES = (".api.openai.com", ".openai.azure.com")
"""OpenAI's regional hosts, and Azure OpenAI, which documents the same option."""


def destination(client: Any, provider: str) -> tuple[str, str | None, int | None]:
    """The provider's name in the conventions, the host and the port that a client calls."""
    kind = type(client)
    known = _providers.get(kind, "")
    if known == "":
        known = next(
            (name for base in kind.__mro__ for word, name in _KINDS if word in base.__name__),
            None,
        )
        _providers[kind] = known
    url = client.base_url
    host = url.host or None
    return known or provider, host, url.port


def wants_usage_chunk(host: str | None, port: int | None, allowed: frozenset[str]) -> bool:
    """Whether a chat stream of this host may be asked for its usage."""
    if host is None:
        return False
    return (
        host in USAGE_HOSTS
        or host in allowed
        or f"{host}:{port}" in allowed
        or any(host.endswith(suffix) for suffix in USAGE_SUFFIXES)
    )


def reads_bytes(options: Any) -> bool:
    """Whether the program asked for the bytes of an answer (`with_streaming_response`): nothing can be hidden there.

    `with_raw_response` ("true", "raw") is taken for a wish to parse: its streams are exact then, see the README.
    """
    return _has(options, RAW_HEADER, "stream")


def by_stream_helper(options: Any) -> bool:
    """Whether a helper of the SDK sends the request when its `with` block is entered, after the method has returned."""
    return _has(options, HELPER_HEADER, "stream")


def _has(options: Any, header: str, wanted: str) -> bool:
    headers = options.headers
    if not isinstance(headers, Mapping):
        return False
    return any(name.lower() == header and value == wanted for name, value in headers.items())


def native_provider(client: Any) -> Any:
    """The tracer provider that a client was given for its own spans; None if it uses the global one."""
    options = getattr(client, "_open_telemetry", None)
    return options.get("tracer_provider") if isinstance(options, dict) else None


def native_tracing(client: Any, options: Any) -> bool:
    """Whether the SDK will try to start a span of its own for this request (anthropic, where tracing is on)."""
    return getattr(client, "_tracer", None) is not None and bool(getattr(options, "span_name", None))
