"""Under an exhausted budget a call is refused whoever else traces it, and the stand-in never hears of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from opentelemetry.trace import StatusCode

from shekel import BudgetExceededError, budget
from shekel.testing import FakeProvider

from . import calls
from .cases import cases, each_way
from .instrumentations import ALL
from .stage import stage


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(("sdk", "names", "ours"), cases())
def test_it_is_not_sent_and_one_span_says_why(
    provider: FakeProvider, sdk: str, names: tuple[str, ...], ours: str, is_async: bool
) -> None:
    with stage(sdk, names, ours=ours, provider=provider) as on:

        def check(way: str, ask: Callable[[], calls.Seen]) -> None:
            on.exporter.clear()
            with budget(max_usd=0.000001, name="b") as b, pytest.raises(BudgetExceededError) as refused:
                ask()
            assert refused.value.budget == "b", way
            assert (b.spent, b.held) == (0, 0), way
            assert provider.requests == [], way
            told = [span for span in on.spans if (span.attributes or {}).get("shekel.decision") == "refused"]
            assert len(told) == 1, way
            assert told[0].status.status_code is StatusCode.ERROR, way
            for span in on.spans:
                assert span.status.status_code is StatusCode.ERROR, (way, span.name)

        each_way(on, is_async, check)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(("sdk", "names", "ours"), cases())
def test_the_last_call_that_fits_is_the_last_that_is_sent(
    provider: FakeProvider, sdk: str, names: tuple[str, ...], ours: str, is_async: bool
) -> None:
    with stage(sdk, names, ours=ours, provider=provider) as on, budget(max_llm_calls=1, name="b") as b:
        ways = iter(range(100))

        def check(way: str, ask: Callable[[], calls.Seen]) -> None:
            if next(ways) == 0:
                ask()
            else:
                with pytest.raises(BudgetExceededError):
                    ask()

        each_way(on, is_async, check)
        assert len(provider.requests) == b.calls_used == 1
        assert all(name in ALL for name in names)
