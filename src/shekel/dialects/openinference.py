"""OpenInference: `openinference.span.kind`, `llm.*`, `embedding.*`.

A span says what it stands for by its kind. Only LLM and EMBEDDING are calls: AGENT and CHAIN spans sum up what is below
them. Some of its instrumentations set kind and model only when the span ends, so a span that has just started is known
by its other `llm.*` attributes, or by nothing but its name.

Its counts are inclusive: `llm.token_count.prompt` holds what was read from a cache and written to one.
Source: OpenInference, semantic conventions 0.1.42; seen with its openai 0.1.66, anthropic 3.1.0, bedrock 0.1.61 and
mistralai 2.2.2.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..providers.base import Answer, Request
from ..usage import Usage
from .base import Asked, Seen, count, text

SCOPE = "openinference."
KIND = "openinference.span.kind"
MODEL = "llm.model_name"
PARAMETERS = "llm.invocation_parameters"
EMBEDDING_PARAMETERS = "embedding.invocation_parameters"
EMBEDDING_MODEL = "embedding.model_name"

_CALLS = {"LLM": "chat", "EMBEDDING": "embeddings"}
_NAMED = frozenset({"bedrock.converse", "bedrock.invoke_model"})
"""Names of spans that start with nothing else."""

_LEGACY = "Completion"
"""The name of the span of a call to OpenAI's older API for completions: that of the class which is returned."""

_MODELS = ("llm.request.model_name", MODEL, EMBEDDING_MODEL)
_CAPS = ("max_completion_tokens", "max_output_tokens", "max_tokens", "maxTokens")
_COUNT = "llm.token_count."

_PROVIDERS = {
    "aws": "aws.bedrock",
    "azure": "azure.ai.openai",
    "google": "gcp.gen_ai",
    "mistralai": "mistral_ai",
    "vertexai": "gcp.vertex_ai",
    "xai": "x_ai",
}
"""Its names of providers where the conventions have others."""

_MADE_FOR = {
    "anthropic": "anthropic",
    "bedrock": "aws",
    "google_genai": "google",
    "groq": "groq",
    "mistralai": "mistralai",
    "openai": "openai",
    "vertexai": "vertexai",
}
"""The provider that an instrumentation is made for, by the last word of its scope."""


class OpenInference:
    """Spans of Arize's instrumentations, and of programs that use its helpers."""

    name = "openinference"

    def asked(self, seen: Seen) -> Asked | None:
        operation = self._operation(seen)
        if operation is None:
            return None
        get = seen.attributes.get
        made_for = _MADE_FOR.get(seen.scope.rpartition(".")[2]) if seen.scope.startswith(SCOPE) else None
        provider = text(get("llm.provider")) or text(get("llm.system")) or made_for or ""
        return Asked(
            operation=operation,
            provider=_PROVIDERS.get(provider, provider),
            request=_request(seen, embeddings=operation == "embeddings"),
        )

    def may_become(self, seen: Seen) -> bool:
        """Kind and model may come with the end."""
        return KIND not in seen.attributes and (seen.scope.startswith(SCOPE) or seen.name in _NAMED)

    def answered(self, seen: Seen) -> Answer:
        get = seen.attributes.get
        reason = text(get("llm.finish_reason"))
        return Answer(
            usage=_usage(seen, embeddings=get(KIND) == "EMBEDDING"),
            model=text(get("llm.response.model_name")) or text(get(MODEL)),
            finish_reasons=() if reason is None else (reason,),
        )

    def _operation(self, seen: Seen) -> str | None:
        kind = seen.attributes.get(KIND)
        if kind is not None:
            operation = _CALLS.get(str(kind))
            return "text_completion" if operation == "chat" and seen.name == _LEGACY else operation
        if seen.scope and not seen.scope.startswith(SCOPE):
            return None  # a sampler is not told the scope
        if MODEL in seen.attributes or PARAMETERS in seen.attributes or seen.name in _NAMED:
            return "chat"
        return "embeddings" if EMBEDDING_MODEL in seen.attributes else None


def _request(seen: Seen, *, embeddings: bool) -> Request:
    """The facts of a request. What a program sent (`input.value`) is not read: it is content, and can be large."""
    parameters = _object(seen.attributes.get(EMBEDDING_PARAMETERS if embeddings else PARAMETERS))
    model = next((found for key in _MODELS if (found := text(seen.attributes.get(key)))), None)
    model = model or text(parameters.get("model"))
    nested = parameters.get("inferenceConfig")
    if isinstance(nested, Mapping):
        parameters = {**nested, **parameters}
    cap = next((said for key in _CAPS if (said := count(parameters.get(key)))), None)
    return Request(
        model=model or "",
        stream=parameters.get("stream") is True,
        cap=0 if embeddings else cap,
        choices=max(1, count(parameters.get("n")) or 1),
        unbounded="span",
    )


def _usage(seen: Seen, *, embeddings: bool) -> Usage | None:
    def number(name: str) -> int | None:
        return count(seen.attributes.get(_COUNT + name))

    sent, made = number("prompt"), number("completion")
    if sent is None or (made is None and not embeddings):
        return None
    made = made or 0
    read = number("prompt_details.cache_read") or number("prompt_details.cache_input") or 0
    written = number("prompt_details.cache_write") or 0
    if read + written > sent:  # versions before the counts were inclusive
        sent += read + written
    return Usage(
        input=sent,
        output=made,
        cache_read=read,
        cache_write=written,
        reasoning=min(made, number("completion_details.reasoning") or 0),
        input_audio=number("prompt_details.audio") or 0,
        output_audio=number("completion_details.audio") or 0,
    )


def _object(value: Any) -> dict[str, Any]:
    """A JSON object that an attribute holds as text; empty if it is none, or is masked."""
    if not isinstance(value, str) or not value.startswith("{"):
        return {}
    try:
        read = json.loads(value)
    except ValueError:
        return {}
    return read if isinstance(read, dict) else {}
