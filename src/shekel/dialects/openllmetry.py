"""OpenLLMetry (Traceloop): the conventions, with names of its own beside them, and those of its older versions.

Of its spans only those with an operation or a request type are calls: `traceloop.span.kind` is on workflows, tasks,
agents and tools. It sets model and cap right after the start, so a span that has just started often has neither.
Source: opentelemetry-semantic-conventions-ai 0.4 and 0.5.1; seen with its openai, anthropic and bedrock 0.62.4.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..providers.base import Answer
from ..telemetry import names
from .base import Asked, Seen
from .conventions import Conventions

TYPE = "llm.request.type"

RENAMED: Mapping[str, str] = {
    "llm.vendor": names.SYSTEM,
    "llm.request.model": names.REQUEST_MODEL,
    "llm.request.max_tokens": names.REQUEST_MAX_TOKENS,
    "gen_ai.request.max_completion_tokens": names.REQUEST_MAX_TOKENS,
    "gen_ai.request.n": names.REQUEST_CHOICE_COUNT,
    "gen_ai.is_streaming": names.REQUEST_STREAM,
    "llm.is_streaming": names.REQUEST_STREAM,
    "llm.response.model": names.RESPONSE_MODEL,
    "llm.usage.prompt_tokens": names.USAGE_INPUT_TOKENS,
    "llm.usage.completion_tokens": names.USAGE_OUTPUT_TOKENS,
    "gen_ai.usage.cache_read_input_tokens": names.USAGE_CACHE_READ,
    "gen_ai.usage.cache_creation_input_tokens": names.USAGE_CACHE_CREATION,
    "gen_ai.usage.reasoning_tokens": names.USAGE_REASONING,
    "llm.usage.reasoning_tokens": names.USAGE_REASONING,
}
"""Its names, old and new, and what the conventions call the same."""

_AFTERWARDS = "openai.response"

_CALLS = {"chat": "chat", "completion": "text_completion", "embedding": "embeddings"}
_PROVIDERS = {
    "az.ai.openai": "azure.ai.openai",
    "azure": "azure.ai.openai",
    "aws": "aws.bedrock",
    "google": "gcp.gen_ai",
    "mistralai": "mistral_ai",
}

_BEDROCK = "opentelemetry.instrumentation.bedrock"
_VENDORS = {
    "claude": "anthropic",
    "command": "cohere",
    "jamba": "ai21",
    "llama": "meta",
    "ministral": "mistral",
    "mistral": "mistral",
    "mixtral": "mistral",
    "nova": "amazon",
    "titan": "amazon",
}
"""What its bedrock instrumentation takes off the names of models: price lists have them with their vendor."""


class OpenLLMetry(Conventions):
    """Spans that speak the conventions and words of its own; without its own they are left to the conventions."""

    name = "openllmetry"

    def asked(self, seen: Seen) -> Asked | None:
        told = _told(seen)
        return None if told is None else super().asked(told)

    def may_become(self, seen: Seen) -> bool:
        """The span of a call to OpenAI's Responses API: it is made when the call is over, and starts with a name."""
        return seen.name == _AFTERWARDS

    def answered(self, seen: Seen) -> Answer:
        return super().answered(_told(seen) or seen)


def _told(seen: Seen) -> Seen | None:
    """The span with its own names replaced; None if it has none of them."""
    attributes = seen.attributes
    kind = attributes.get(TYPE)
    own = {RENAMED[key]: value for key, value in attributes.items() if key in RENAMED and value is not None}
    if not own and kind is None and seen.scope != _BEDROCK:
        return None
    told: dict[str, Any] = {**own, **attributes}
    if names.OPERATION_NAME not in told:
        operation = _CALLS.get(str(kind))
        if operation is None:
            return None
        told[names.OPERATION_NAME] = operation
    provider = told.get(names.PROVIDER_NAME) or told.get(names.SYSTEM)
    if isinstance(provider, str):
        told[names.PROVIDER_NAME] = _PROVIDERS.get(provider.lower(), provider.lower())
    if seen.scope == _BEDROCK and isinstance(model := told.get(names.REQUEST_MODEL), str):
        vendor = next((each for start, each in _VENDORS.items() if model.startswith(start)), None)
        told[names.REQUEST_MODEL] = model if vendor is None else f"{vendor}.{model}"
    return seen._replace(attributes=told)
