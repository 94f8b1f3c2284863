"""Which vocabularies are read from the spans of other instrumentations, and which of these lie over an SDK with a door.

Where a span speaks several vocabularies, the first that knows it for an inference is read. OpenLLMetry's comes before
the conventions because it holds them, and takes only spans that have words of its own.
"""

from __future__ import annotations

from .base import Asked, Dialect, Seen
from .conventions import Conventions
from .openinference import SCOPE, OpenInference
from .openllmetry import OpenLLMetry

__all__ = [
    "DIALECTS",
    "SDK_SCOPES",
    "Asked",
    "Dialect",
    "Seen",
    "find",
    "leaves_open",
    "may_become",
    "measures",
    "sdk_of",
    "starts_aside",
    "usual_sdk",
]

DIALECTS: tuple[Dialect, ...] = (OpenLLMetry(), Conventions(), OpenInference())

SDK_SCOPES: dict[str, str] = {
    "opentelemetry.instrumentation.openai_v2": "openai",
    "opentelemetry.instrumentation.genai.openai": "openai",
    "opentelemetry.instrumentation.genai.anthropic": "anthropic",
    "opentelemetry.instrumentation.openai": "openai",
    "opentelemetry.instrumentation.anthropic": "anthropic",
    "openinference.instrumentation.openai": "openai",
    "openinference.instrumentation.anthropic": "anthropic",
}
"""Instrumentation scopes that trace the calls of one SDK, and of nothing else, and that SDK's name. A door of ours in
that SDK sees the same calls; a scope counts with all that begins with it and a dot."""

_PROVIDERS = {
    "openai": "openai",
    "azure.ai.openai": "openai",
    "az.ai.openai": "openai",
    "azure": "openai",
    "anthropic": "anthropic",
}
"""The SDK that calls to a provider are usually made with."""


def find(seen: Seen) -> tuple[Dialect, Asked] | None:
    """The vocabulary in which a span says that it is an inference, and what it asks for; None if none does."""
    for dialect in DIALECTS:
        asked = dialect.asked(seen)
        if asked is not None:
            return dialect, asked
    return None


def may_become(seen: Seen) -> bool:
    """Whether a span may turn out to be an inference when its attributes are set later."""
    return any(dialect.may_become(seen) for dialect in DIALECTS)


def sdk_of(scope: str) -> str | None:
    """The SDK whose calls an instrumentation traces, where it is known to trace nothing else."""
    name = scope
    while name:
        known = SDK_SCOPES.get(name)
        if known is not None:
            return known
        name = name.rpartition(".")[0]
    return None


def leaves_open(scope: str) -> bool:
    """Whether an instrumentation never ends its span where a stream is left early, or its task is cancelled.

    Seen with OpenLLMetry's openai and anthropic 0.62.4.
    """
    return scope.startswith(("opentelemetry.instrumentation.openai.", "opentelemetry.instrumentation.anthropic"))


def starts_aside(scope: str) -> bool:
    """Whether an instrumentation never makes its span current: a door in another thread does not find it.

    Seen with OpenLLMetry's anthropic 0.62.4.
    """
    return scope.startswith("opentelemetry.instrumentation.anthropic")


def measures(scope: str) -> bool:
    """Whether an instrumentation records the metrics of the conventions beside its spans. OpenInference's have none."""
    return not scope.startswith(SCOPE)


def usual_sdk(provider: str) -> str | None:
    """The SDK that a provider's calls are usually made with, if it is one with a door."""
    return _PROVIDERS.get(provider)
