"""The semantic conventions for generative AI, of today and of the versions before: `gen_ai.*`.

Source: opentelemetry.io/docs/specs/semconv/gen-ai, and its changelog for the names that were replaced.
"""

from __future__ import annotations

from typing import Any

from ..providers.base import Answer, Request
from ..telemetry import names
from ..usage import Usage
from .base import Asked, Seen, count, text

INFERENCE = frozenset({"chat", "text_completion", "generate_content", "embeddings"})
"""Operations that are billed. All others (agents, workflows, tools, retrieval) are sums of these, or cost no tokens."""

_EMBEDDINGS = "embeddings"
_STARTS = tuple(f"{operation} " for operation in sorted(INFERENCE))

EXCLUSIVE = ("opentelemetry.instrumentation.botocore", "opentelemetry.instrumentation.bedrock")
"""Instrumentations whose input leaves out what was read from and written to a cache, against the conventions: they
pass on what the provider counts so. Source: Bedrock's API reference, TokenUsage: `totalTokens` is the sum of
`inputTokens`, `outputTokens` and both cache counts."""


class Conventions:
    """`gen_ai.operation.name`, `gen_ai.provider.name`, `gen_ai.usage.*`."""

    name = "conventions"

    def asked(self, seen: Seen) -> Asked | None:
        get = seen.attributes.get
        operation = get(names.OPERATION_NAME)
        if operation not in INFERENCE:
            return None
        return Asked(
            operation=operation,
            provider=text(get(names.PROVIDER_NAME)) or text(get(names.SYSTEM)) or "",
            request=request_of(seen, embeddings=operation == _EMBEDDINGS),
            host=text(get(names.SERVER_ADDRESS)),
            port=count(get(names.SERVER_PORT)),
        )

    def may_become(self, seen: Seen) -> bool:
        """By the span's name, which the conventions fix: `chat gpt-4o`."""
        return seen.name.startswith(_STARTS) or seen.name in INFERENCE

    def answered(self, seen: Seen) -> Answer:
        get = seen.attributes.get
        reasons = get(names.RESPONSE_FINISH_REASONS)
        return Answer(
            usage=usage_of(seen, embeddings=get(names.OPERATION_NAME) == _EMBEDDINGS),
            id=text(get(names.RESPONSE_ID)),
            model=text(get(names.RESPONSE_MODEL)),
            finish_reasons=tuple(map(str, reasons)) if isinstance(reasons, (list, tuple)) else (),
        )


def request_of(seen: Seen, *, embeddings: bool = False) -> Request:
    """The facts of a request by the names of the conventions. Embeddings have no output to pay for."""
    get = seen.attributes.get
    return Request(
        model=text(get(names.REQUEST_MODEL)) or "",
        stream=get(names.REQUEST_STREAM) is True,
        cap=0 if embeddings else count(get(names.REQUEST_MAX_TOKENS)),
        cap_field=names.REQUEST_MAX_TOKENS,
        choices=max(1, count(get(names.REQUEST_CHOICE_COUNT)) or 1),
        extra_input=_first(seen, names.USAGE_INPUT_TOKENS, names.USAGE_PROMPT_TOKENS) or 0,
        unbounded="span",
        service_tier=text(get(names.OPENAI_REQUEST_SERVICE_TIER)),
    )


def usage_of(seen: Seen, *, embeddings: bool = False) -> Usage | None:
    """What was consumed, inclusive; None unless the span says both sides of it (of embeddings: the input)."""
    sent = _first(seen, names.USAGE_INPUT_TOKENS, names.USAGE_PROMPT_TOKENS)
    made = _first(seen, names.USAGE_OUTPUT_TOKENS, names.USAGE_COMPLETION_TOKENS)
    if made is None:
        # Some set an estimate of the input when the span starts: alone it says nothing of the answer.
        if not embeddings or sent is None:
            return None
        made = 0
    read = _first(seen, names.USAGE_CACHE_READ) or 0
    written = _first(seen, names.USAGE_CACHE_WRITE, names.USAGE_CACHE_CREATION) or 0
    sent = sent or 0
    if seen.scope.startswith(EXCLUSIVE) or read + written > sent:
        sent += read + written

    def number(name: str) -> int:
        return count(seen.attributes.get(name)) or 0

    return Usage(
        input=sent,
        output=made,
        cache_read=read,
        cache_write=written,
        reasoning=min(made, number(names.USAGE_REASONING)),
        input_audio=number(names.USAGE_INPUT_AUDIO),
        output_audio=number(names.USAGE_OUTPUT_AUDIO),
        cache_read_audio=number(names.USAGE_CACHE_READ_AUDIO),
        input_image=number(names.USAGE_INPUT_IMAGE),
        output_image=number(names.USAGE_OUTPUT_IMAGE),
        service_tier=text(seen.attributes.get(names.OPENAI_RESPONSE_SERVICE_TIER)),
    )


def _first(seen: Seen, *keys: str) -> int | None:
    """The first of several names that is set: the newer before the older."""
    for key in keys:
        value: Any = count(seen.attributes.get(key))
        if value is not None:
            return int(value)
    return None
