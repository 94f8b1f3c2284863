"""One stand-in, whose answers are short and partly read from a cache."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from shekel.testing import FakeProvider, Reply


@pytest.fixture
def provider(provider: FakeProvider) -> FakeProvider:
    """The stand-in for the providers."""
    provider.default = Reply(output_tokens=12, cached_tokens=3)
    return provider


@pytest.fixture(autouse=True, scope="package")
def small_heap() -> Iterator[None]:
    """What was there before is not looked at again by each collection: it would be most of what the tests do."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
    gc.collect()
