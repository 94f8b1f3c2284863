"""Thresholds in windows that slide and in sessions: told once per threshold and window, by whoever crosses it."""

from __future__ import annotations

import threading
from typing import Any

import openai
import pytest

import shekel
from shekel import LimitEvent, budget, tool
from shekel.budgets.claims import Claim
from shekel.budgets.thresholds import Thresholds
from shekel.runtime import the_runtime
from shekel.telemetry import decisions
from shekel.testing import Clock

from .conftest import ask

HOUR = 3_600_000_000
WINDOWS: list[Any] = ["2 calls/hr", "2 calls/session idle=1h"]


@pytest.fixture
def clock(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(decisions, "clock", clock)
    return clock


@pytest.mark.parametrize(
    ("spec", "more"),
    [
        *((spec, {"warn_at": 0.5}) for spec in WINDOWS),
        ("1 call/hr", {"at_limit": "warn"}),
        ("$0.00001/session idle=1h", {"at_limit": "warn"}),
    ],
)
def test_the_first_settlement_of_a_window_may_cross_it(
    client: openai.OpenAI, clock: Clock, spec: str, more: dict[str, Any]
) -> None:
    told: list[Any] = []
    with budget(spec, on_warn=lambda *at: told.append(at), **more):
        for window in range(1, 4):
            ask(client)
            ask(client)
            assert len(told) == window
            clock.advance(4000)


@pytest.mark.parametrize("spec", WINDOWS)
def test_calls_that_end_together_in_a_later_window_tell_once(client: openai.OpenAI, clock: Clock, spec: str) -> None:
    told: list[Any] = []
    b = budget("20" + spec[1:], warn_at=0.25, on_warn=lambda *at: told.append(at))
    for window in range(1, 4):
        start = threading.Barrier(8)

        def work(start: threading.Barrier = start) -> None:
            start.wait()
            ask(client)

        threads = [threading.Thread(target=b.bind(work)) for _ in range(8)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert len(told) == window
        clock.advance(4000)


def test_what_is_kept_for_a_last_call_counts_in_the_share(client: openai.OpenAI, clock: Clock) -> None:
    told: list[Any] = []
    b = budget("$0.0003/hr", last_call=0.0002, warn_at=0.2, on_warn=lambda *at: told.append(at))
    with b:
        with b.last_call():
            for calls, seconds in ((4, 1800), (1, 1900)):
                for _ in range(calls):
                    ask(client)
                clock.advance(seconds)
        assert 0.00002 < b.spent < 0.00006  # below the share of the whole, above that of the rest
        ask(client)
    assert len(told) == 2


def test_what_stays_above_it_is_told_once(client: openai.OpenAI, clock: Clock) -> None:
    told: list[Any] = []
    with budget("10 calls/hr", warn_at=0.2, on_warn=lambda *at: told.append(at)):
        for _ in range(12):
            ask(client)
            clock.advance(900)
    assert told == [(2, 10)]


def test_a_tool_may_cross_it(clock: Clock) -> None:
    @tool
    def look_up() -> None: ...

    told: list[Any] = []
    with budget("2 tool calls/hr", warn_at=0.5, on_warn=lambda *at: told.append(at)):
        for _ in range(3):
            look_up()
            clock.advance(4000)
    assert told == [(1, 2)] * 3


@pytest.mark.parametrize("spec", WINDOWS)
def test_who_listens_for_soft_limits_is_told_too(client: openai.OpenAI, clock: Clock, spec: str) -> None:
    the_runtime().teller._recent.__init__()  # type: ignore[misc]
    told: list[LimitEvent] = []
    with shekel.on_soft_limit(told.append, at=0.5), budget(spec):
        for _ in range(3):
            ask(client)
            clock.advance(4000)
    assert len(told) == 3


def test_a_settlement_of_the_window_before_that_is_read_late_tells_nothing() -> None:
    """It read 2 of 4 in the first window, and is heard in the second, which has seen less by then."""
    thresholds = Thresholds((0.5,), None)
    claim = Claim(object(), 4, window=HOUR, slides=True)
    assert thresholds.crossed(claim, 2, HOUR) == [0.5]
    thresholds.arm(claim, 3 * HOUR)
    assert thresholds.crossed(claim, 2, HOUR + 1) == []
    assert thresholds.crossed(claim, 1, 3 * HOUR) == []
    assert thresholds.crossed(claim, 2, 3 * HOUR) == [0.5]
    assert thresholds.crossed(claim, 2, 3 * HOUR) == []
    thresholds.arm(claim, 3 * HOUR + 1)
    assert thresholds.crossed(claim, 2, 3 * HOUR + 1) == []
