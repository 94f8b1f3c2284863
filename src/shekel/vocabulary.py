"""Names of the `shekel` library that need what is not here yet: a ledger that processes share, or an adapter.

They can be imported, named in annotations and subclassed, so that a program that mentions them starts. Using one
raises `NotHereYetError`, which says what to use instead.
"""

from __future__ import annotations

from typing import Any, NoReturn


class NotHereYetError(NotImplementedError):
    """Something of the vocabulary that Shekel cannot do yet; the message says what to use instead."""


LEDGER = (
    "the spending is kept in the memory of each process, so each has a limit of its own: "
    "leave backend= out, and give each process its share of the limit"
)
TENANTS = (
    'give each tenant a limit with shekel.configure(policies=[per("tenant.id", "$5/day")]) '
    "and name it with shekel.scope(tenant_id=…)"
)
METER = "ShekelInstrumentor().instrument(meter_provider=…) records the metrics"
EVENTS = (
    "budgets call on_warn= and on_fallback=, and ShekelInstrumentor().instrument() tells the rest by spans and metrics"
)
LANGFUSE = "ShekelInstrumentor().instrument() makes spans, which Langfuse takes at its OpenTelemetry endpoint"
PROVIDERS = (
    "the openai and anthropic SDKs are seen by themselves, and with them each provider that is called through "
    "their base_url"
)


def refuse(name: str, instead: str) -> NoReturn:
    """Say that something is not here yet."""
    raise NotHereYetError(f"{name} is not here yet: {instead}.")


class _NotHere(type):
    """The type of such names: making one, or calling a method of the class, raises."""

    instead: str

    def __call__(cls, *args: Any, **kwargs: Any) -> NoReturn:
        refuse(cls.__mro__[-2].__name__, cls.instead)


class RedisBackend(metaclass=_NotHere):
    instead = LEDGER


class AsyncRedisBackend(metaclass=_NotHere):
    instead = LEDGER


class ShekelMeter(metaclass=_NotHere):
    instead = METER


class LangfuseAdapter(metaclass=_NotHere):
    instead = LANGFUSE


class ObservabilityAdapter(metaclass=_NotHere):
    instead = EVENTS


class ProviderAdapter(metaclass=_NotHere):
    instead = PROVIDERS


class AdapterRegistry(metaclass=_NotHere):
    """Its methods are called on the class itself."""

    instead = EVENTS

    @classmethod
    def register(cls, adapter: Any = None) -> NoReturn:
        refuse("AdapterRegistry.register", cls.instead)

    @classmethod
    def unregister(cls, adapter: Any = None) -> NoReturn:
        refuse("AdapterRegistry.unregister", cls.instead)

    @classmethod
    def emit_event(cls, name: str = "", data: Any = None) -> NoReturn:
        refuse("AdapterRegistry.emit_event", cls.instead)

    @classmethod
    def clear(cls) -> NoReturn:
        refuse("AdapterRegistry.clear", cls.instead)


class _ProviderRegistry:
    """`ADAPTER_REGISTRY`, where providers would be registered."""

    def register(self, adapter: Any = None) -> NoReturn:
        refuse("ADAPTER_REGISTRY.register", PROVIDERS)


ADAPTER_REGISTRY = _ProviderRegistry()

NAMES = (
    "AdapterRegistry",
    "AsyncRedisBackend",
    "LangfuseAdapter",
    "ObservabilityAdapter",
    "ProviderAdapter",
    "RedisBackend",
    "ShekelMeter",
)
"""What `from shekel import …` finds here."""
