"""Whoever else traces the same call: it is charged once, on one span, and the program gets what it got before."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from shekel import budget
from shekel.testing import FakeProvider

from . import calls
from .cases import cases, each_way
from .instrumentations import ALL
from .stage import COST, stage

OURS = "shekel"


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(("sdk", "names", "ours"), cases())
def test_a_call_is_charged_once_on_one_span(
    provider: FakeProvider, sdk: str, names: tuple[str, ...], ours: str, is_async: bool
) -> None:
    with stage(sdk, names, ours=ours, provider=provider) as on:

        def check(way: str, ask: Callable[[], calls.Seen]) -> None:
            asked, billed = len(provider.requests), provider.bill.total
            on.exporter.clear()
            with budget(max_usd=5, name="b") as b:
                ask()
            provider.wait_idle()
            assert len(provider.requests) == asked + 1, way
            assert (b.calls_used, b.held) == (1, 0), way
            assert b.spent == pytest.approx((provider.bill.total - billed) / 1e9), way
            priced = on.priced
            assert [(span.attributes or {})[COST] for span in priced] == [b.spent], way
            assert (priced[0].attributes or {})["shekel.outcome"] == "complete", way
            # One span of theirs stands for the call and none of ours is beside it, where theirs is there in time.
            stands = any(way not in ALL[name].after | ALL[name].misses for name in names)
            assert len(on.spans_of(OURS)) == (0 if stands else 1), way
            for name in names:
                assert len(on.spans_of(ALL[name].scope)) == (0 if way in ALL[name].misses else 1), (way, name)

        each_way(on, is_async, check)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(("sdk", "names", "ours"), cases())
def test_the_program_gets_what_it_got_before(
    provider: FakeProvider, sdk: str, names: tuple[str, ...], ours: str, is_async: bool
) -> None:
    before: dict[str, calls.Seen] = {}
    after: dict[str, calls.Seen] = {}
    with stage(sdk, names, ours=None, provider=provider) as on:
        each_way(on, is_async, lambda way, ask: before.update({way: ask()}))
    with stage(sdk, names, ours=ours, provider=provider) as on:
        each_way(on, is_async, lambda way, ask: after.update({way: ask()}))
    assert after == before
