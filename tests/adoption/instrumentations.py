"""The instrumentations of others that trace the same SDKs as ours: how each is put on, and taken off without a trace.

Their own `uninstrument` leaves wrappers behind (OpenLLMetry stops at the first class that a newer SDK has moved), so
the classes they touch are put back here as they were.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from opentelemetry.sdk.trace import TracerProvider

_TOUCHED = (
    "openai:OpenAI",
    "openai:AsyncOpenAI",
    "openai._base_client:SyncAPIClient",
    "openai._base_client:AsyncAPIClient",
    "openai._base_client:BaseClient",
    "openai.resources.chat.completions:Completions",
    "openai.resources.chat.completions:AsyncCompletions",
    "openai.resources.completions:Completions",
    "openai.resources.completions:AsyncCompletions",
    "openai.resources.embeddings:Embeddings",
    "openai.resources.embeddings:AsyncEmbeddings",
    "openai.resources.images:Images",
    "openai.resources.responses:Responses",
    "openai.resources.responses:AsyncResponses",
    "openai.resources.beta.assistants:Assistants",
    "openai.resources.beta.threads.runs:Runs",
    "openai.resources.beta.threads.messages:Messages",
    "anthropic._base_client:SyncAPIClient",
    "anthropic._base_client:AsyncAPIClient",
    "anthropic._base_client:BaseClient",
    "anthropic.resources.messages:Messages",
    "anthropic.resources.messages:AsyncMessages",
    "anthropic.resources.beta.messages:Messages",
    "anthropic.resources.beta.messages:AsyncMessages",
    "anthropic.lib.bedrock._beta_messages:Messages",
    "anthropic.lib.bedrock._beta_messages:AsyncMessages",
    "anthropic.lib.vertex._beta_messages:Messages",
    "anthropic.lib.vertex._beta_messages:AsyncMessages",
)


@dataclass(frozen=True, slots=True)
class Theirs:
    """One instrumentation of somebody else's.

    Attributes:
        name: what tests call it.
        sdk: whose calls it traces.
        scope: the name of its instrumentation scope.
        module, instrumentor: where its instrumentor is; "" for tracing that the SDK's client does by itself.
        after: the ways of calling that it tells of only when the call is over, in a span beside ours.
        misses: the ways of calling that it does not see.
    """

    name: str
    sdk: str
    scope: str
    module: str = ""
    instrumentor: str = ""
    after: frozenset[str] = frozenset()
    misses: frozenset[str] = frozenset()

    def on(self, tracer_provider: TracerProvider) -> None:
        if self.module:
            self._made().instrument(tracer_provider=tracer_provider)

    def off(self) -> None:
        if self.module:
            self._made().uninstrument()

    def _made(self) -> Any:
        return getattr(importlib.import_module(self.module), self.instrumentor)()


ALL = {
    each.name: each
    for each in (
        Theirs(
            "openinference-openai",
            "openai",
            "openinference.instrumentation.openai",
            "openinference.instrumentation.openai",
            "OpenAIInstrumentor",
        ),
        Theirs(
            "openllmetry-openai",
            "openai",
            "opentelemetry.instrumentation.openai.v1",
            "opentelemetry.instrumentation.openai",
            "OpenAIInstrumentor",
            after=frozenset({"responses", "responses-stream", "responses-helper"}),
        ),
        Theirs(
            "openinference-anthropic",
            "anthropic",
            "openinference.instrumentation.anthropic",
            "openinference.instrumentation.anthropic",
            "AnthropicInstrumentor",
        ),
        Theirs(
            "openllmetry-anthropic",
            "anthropic",
            "opentelemetry.instrumentation.anthropic",
            "opentelemetry.instrumentation.anthropic",
            "AnthropicInstrumentor",
            misses=frozenset({"parse"}),
        ),
        Theirs("anthropic-own", "anthropic", "com.anthropic.sdk.python"),
    )
}

TOGETHER = {
    "openai": ("openinference-openai", "openllmetry-openai"),
    "anthropic": ("openinference-anthropic", "openllmetry-anthropic", "anthropic-own"),
}


@contextmanager
def as_it_was() -> Iterator[None]:
    """Put every class that an instrumentation touches back as it was, whatever was done to it."""
    owners = [getattr(importlib.import_module(module), name) for module, _, name in map(_split, _TOUCHED)]
    before = [(owner, dict(vars(owner))) for owner in owners]
    client = importlib.import_module("anthropic._base_client")
    prepare = (client.prepare_request_data, client.async_prepare_request_data)
    try:
        yield
    finally:
        for owner, known in before:
            for key, value in dict(vars(owner)).items():
                if key not in known and callable(value):
                    delattr(owner, key)
                elif key in known and known[key] is not value and callable(value):
                    setattr(owner, key, known[key])
        client.prepare_request_data, client.async_prepare_request_data = prepare
        # It keeps each response of the Responses API, with the context of its call, for as long as Python runs.
        importlib.import_module("opentelemetry.instrumentation.openai.v1.responses_wrappers").responses.clear()


def _split(place: str) -> tuple[str, str, str]:
    return place.partition(":")
