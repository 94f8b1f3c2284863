"""Ours and theirs taken off in any order, and put on again: a call is charged once, and by its budget all the time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

from shekel import BudgetExceededError, ShekelInstrumentor, budget
from shekel.testing import FakeProvider

from . import calls
from .instrumentations import ALL, as_it_was

WITH_INSTRUMENTOR = [name for name, each in ALL.items() if each.module]
ORDERS = [
    "+ours +theirs -ours",
    "+ours +theirs -theirs",
    "+theirs +ours -ours",
    "+theirs +ours -theirs",
    "+ours +theirs -ours -theirs",
    "+theirs +ours -theirs -ours",
    "+ours +theirs -ours +ours",
    "+theirs +ours -theirs +theirs",
    "+ours +theirs -theirs -ours +theirs +ours",
]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", WITH_INSTRUMENTOR)
def test_one_charge_after_every_step(provider: FakeProvider, name: str, order: str) -> None:
    theirs, ours, tracer_provider = ALL[name], ShekelInstrumentor(), TracerProvider()
    steps: dict[str, Callable[[], Any]] = {
        "+ours": lambda: ours.instrument(tracer_provider=tracer_provider),
        "-ours": ours.uninstrument,
        "+theirs": lambda: theirs.on(tracer_provider),
        "-theirs": theirs.off,
    }
    with as_it_was():
        client, _ = calls.clients(theirs.sdk, provider, None)
        try:
            for step in order.split():
                steps[step]()
                asked, billed = len(provider.requests), provider.bill.total
                with budget("$1 + 2 calls") as b:
                    for way in ("plain", "stream"):
                        calls.SYNC[theirs.sdk][way](client)
                    provider.wait_idle()
                    with pytest.raises(BudgetExceededError):
                        calls.SYNC[theirs.sdk]["plain"](client)
                assert len(provider.requests) == asked + 2, step
                assert (b.calls_used, b.held) == (2, 0), step
                assert b.spent == pytest.approx((provider.bill.total - billed) / 1e9), step
        finally:
            client.close()
            ours.uninstrument()
            theirs.off()
