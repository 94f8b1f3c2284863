"""Which vocabularies are read from the spans of other instrumentations, and which of these lie over an SDK with a door.

The conventions go first: where a span speaks several vocabularies, the first that knows it for an inference is read.
"""

from __future__ import annotations

from .base import Asked, Dialect, Seen
from .conventions import Conventions

__all__ = ["DIALECTS", "SDK_SCOPES", "Asked", "Dialect", "Seen", "find", "may_become", "sdk_of", "usual_sdk"]

DIALECTS: tuple[Dialect, ...] = (Conventions(),)

SDK_SCOPES: dict[str, str] = {
    "opentelemetry.instrumentation.openai_v2": "openai",
    "opentelemetry.instrumentation.genai.openai": "openai",
    "opentelemetry.instrumentation.genai.anthropic": "anthropic",
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


def usual_sdk(provider: str) -> str | None:
    """The SDK that a provider's calls are usually made with, if it is one with a door."""
    return _PROVIDERS.get(provider)
