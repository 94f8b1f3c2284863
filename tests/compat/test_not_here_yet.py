"""Names that need what is not here yet: importing and subclassing them works, using them says what to use instead."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from shekel import vocabulary
from shekel.vocabulary import NotHereYetError

PLACES = {
    "RedisBackend": "shekel.backends.redis",
    "AsyncRedisBackend": "shekel.backends.redis",
    "ShekelMeter": "shekel.otel",
    "LangfuseAdapter": "shekel.integrations.langfuse",
    "ObservabilityAdapter": "shekel.integrations.base",
    "AdapterRegistry": "shekel.integrations.registry",
    "ProviderAdapter": "shekel.providers.base",
}


def test_every_name_has_the_place_that_programs_import_it_from() -> None:
    assert set(PLACES) == set(vocabulary.NAMES)
    for name, module in PLACES.items():
        assert getattr(importlib.import_module(module), name) is getattr(vocabulary, name)
    from shekel.integrations import AdapterRegistry, LangfuseAdapter, ObservabilityAdapter
    from shekel.providers import ADAPTER_REGISTRY, ProviderAdapter

    assert (ADAPTER_REGISTRY, ProviderAdapter) == (vocabulary.ADAPTER_REGISTRY, vocabulary.ProviderAdapter)
    assert {AdapterRegistry.__name__, LangfuseAdapter.__name__, ObservabilityAdapter.__name__} < set(PLACES)


@pytest.mark.parametrize("name", sorted(set(PLACES) - {"AdapterRegistry"}))
class TestUse:
    def test_making_one_says_what_to_use_instead(self, name: str) -> None:
        with pytest.raises(NotHereYetError, match=rf"^{name} is not here yet: .+\.$"):
            getattr(vocabulary, name)(url="redis://127.0.0.1", meter_provider=None, client=None)

    def test_a_class_of_the_program_says_it_when_it_is_made(self, name: str) -> None:
        mine: Any = type("Mine", (getattr(vocabulary, name),), {"on_cost_update": lambda self, data: None})
        with pytest.raises(NotHereYetError, match=rf"^{name} is not here yet"):
            mine()


def test_the_registry_says_it_at_each_method() -> None:
    registry = vocabulary.AdapterRegistry
    for method in (registry.register, registry.unregister, registry.emit_event, registry.clear):
        with pytest.raises(NotHereYetError, match=r"on_warn="):
            method()
    with pytest.raises(NotHereYetError, match="base_url"):
        importlib.import_module("shekel.providers.base").ADAPTER_REGISTRY.register(object())


def test_what_is_no_name_at_all_is_none_of_ours() -> None:
    with pytest.raises(ImportError):
        from shekel.providers.base import NoSuchName  # type: ignore[attr-defined]  # noqa: F401


def test_the_errors_are_where_programs_import_them_from() -> None:
    from shekel import exceptions
    from shekel.budgets import errors, part_errors

    for name in exceptions.__all__:
        home = next((m for m in (errors, part_errors, vocabulary) if hasattr(m, name)), None)
        assert home is not None
        assert getattr(exceptions, name) is getattr(home, name)
    assert len(exceptions.__all__) == 16
