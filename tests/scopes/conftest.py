"""A process that trusts nobody, before and after each test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import shekel
from shekel import faults
from shekel.scopes import counts
from shekel.scopes.outside import outside


def _forget() -> None:
    outside.clock = __import__("time").time
    counts.dropped.clear()
    counts.unresolved.clear()
    for key in [each for each in faults._said if each.startswith("untrusted ") or each == "baggage keys"]:
        faults._said.discard(key)


@pytest.fixture(autouse=True)
def nobody_is_trusted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("SHEKEL_TRUST", "SHEKEL_BAGGAGE_KEY", "SHEKEL_BAGGAGE_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    _forget()
    yield
    shekel.configure(trust="none", baggage_keys=None, baggage_lifetime=300, policies=[])
    _forget()


class Clock:
    """Seconds since the epoch, as a test says."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Any:
    outside.clock = Clock()
    return outside.clock
