"""The exposure of what ended without usage goes with the window that counts it: not before, and not long after."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

import shekel
from shekel import budget
from shekel.budgets.claims import Claim
from shekel.budgets.limits import Unit
from shekel.budgets.unreported import Unreported
from shekel.budgets.windows import Calendar, Session, Sliding
from shekel.ledgers.base import Line
from shekel.ledgers.memory import MemoryLedger
from shekel.testing import Clock, FakeProvider, Reply

from .conftest import ask, nano, stream

MICRO = 1_000_000
HOUR, DAY = 3_600, 86_400
WINDOWS = [Sliding(3_600), Sliding(90), Sliding(7), Session(600), Session(60), Calendar("hour"), Calendar("day")]
LOST = Reply(status=500, bill_error=True)


class World:
    """The parts of a budget, and beside each window a meter of the ledger that is charged the same."""

    def __init__(self, windows: list[Any]) -> None:
        self.windows = windows
        self.unreported = Unreported()
        self.ledger = MemoryLedger()
        self.open: dict[str, list[Claim]] = {}
        self.now = int(datetime(2026, 12, 31, 22, 50, tzinfo=UTC).timestamp()) * MICRO

    def meter(self, number: int) -> tuple[int, str | None]:
        return number, self.windows[number].at(self.now / MICRO).key

    def claims(self) -> list[Claim]:
        return [
            Claim(
                self.meter(number),
                1,
                unit=Unit.USD,
                window=window.length_us,
                slides=window.slides,
                until=window.at(self.now / MICRO).until,
            )
            for number, window in enumerate(self.windows)
        ]

    def admit(self, name: str) -> None:
        self.unreported.came(self.now, busy=bool(self.open))
        self.open[name] = claims = self.claims()
        lines = [Line(c.meter, None, 0, window=c.window, slides=c.slides, until=c.until) for c in claims]
        self.ledger.admit(name, 0, 0, lines, self.now)

    def settle(self, name: str, share: int) -> Any:
        self.unreported.came(self.now, busy=bool(self.open))
        claims = self.open.pop(name)
        self.ledger.settle(name, {claim.meter: share for claim in claims}, self.now)
        return self.unreported.add(share, claims, self.now) if share else None

    def counted(self) -> list[int]:
        return [self.ledger.read(self.meter(number), self.now).settled for number in range(len(self.windows))]

    def stated(self) -> float:
        return self.unreported.at(self.now, busy=bool(self.open))


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["admit", "admit", "settle", "settle", "correct", "wait"]),
        st.integers(0, 9),
        st.one_of(st.integers(0, 30), st.sampled_from([59, 60, 61, 90, 92, 600, 3_599, 3_600, 3_657, 4_000, DAY])),
    ),
    max_size=60,
)


def walked(world: World, steps: list[tuple[str, int, int]]) -> Any:
    """Take the steps, and stop after each."""
    ended: list[tuple[str, int, Any, list[Any]]] = []
    for number, (step, which, seconds) in enumerate(steps):
        world.now += seconds * MICRO + which
        if step == "admit":
            world.admit(f"call-{number}")
        elif step == "settle" and world.open:
            name = sorted(world.open)[which % len(world.open)]
            share = which * 1_000 + 1
            meters = [claim.meter for claim in world.open[name]]
            ended.append((name, share, world.settle(name, share), meters))
        elif step == "correct" and ended:
            name, share, part, meters = ended.pop(which % len(ended))
            part.add(-share)
            world.ledger.correct(name, dict.fromkeys(meters, 0), world.now)
        yield


@given(st.sampled_from(WINDOWS), STEPS)
def test_it_counts_what_the_ledger_counts(window: Any, steps: list[tuple[str, int, int]]) -> None:
    world = World([window])
    for _ in walked(world, steps):
        assert world.stated() == world.counted()[0]


@given(st.lists(st.sampled_from(WINDOWS), min_size=2, max_size=3, unique=True), STEPS)
def test_of_several_windows_the_last_that_counts_it(windows: list[Any], steps: list[tuple[str, int, int]]) -> None:
    world = World(windows)
    for _ in walked(world, steps):
        assert max(world.counted()) <= world.stated()
        if not any(world.counted()):
            assert world.stated() == 0 or any(isinstance(each, Session) for each in windows)


BACKWARD = st.lists(
    st.tuples(
        st.sampled_from(["admit", "settle", "wait"]),
        st.integers(0, 9),
        st.sampled_from([-4_000, -600, -60, -7, -1, 0, 1, 7, 60, 90, 600, 3_600, 4_000]),
    ),
    max_size=60,
)


@given(st.sampled_from([each for each in WINDOWS if not isinstance(each, Calendar)]), BACKWARD)
def test_none_goes_before_the_ledger_forgets_it_where_the_clock_is_set_back(
    window: Any, steps: list[tuple[str, int, int]]
) -> None:
    world = World([window])
    for _ in walked(world, steps):
        assert world.counted()[0] <= world.stated()


def lose(provider: FakeProvider, client: openai.OpenAI, **more: Any) -> None:
    """A call that may have cost something, of which nobody says what."""
    provider.reply(LOST)
    with pytest.raises(openai.InternalServerError):
        ask(client, **more)


@pytest.mark.parametrize("windows", [[Session(600), Session(60)], [Session(60), Session(600)]], ids=str)
def test_of_two_sessions_the_longer(windows: list[Any]) -> None:
    world = World(windows)
    world.admit("call")
    world.settle("call", 1_000)
    world.now += 599 * MICRO
    assert world.stated() == max(world.counted()) == 1_000
    world.now += MICRO
    assert world.stated() == max(world.counted()) == 0


def test_what_nothing_bounds_goes_and_is_corrected_too() -> None:
    world = World([Sliding(90)])
    world.admit("bounded")
    world.settle("bounded", 1_000)
    part = world.unreported.add(math.inf, world.claims(), world.now)
    other = world.unreported.add(math.inf, world.claims(), world.now)
    assert world.stated() == math.inf
    part.add(-math.inf)
    assert world.stated() == math.inf
    other.add(-math.inf)
    assert world.stated() == 1_000
    world.unreported.add(math.inf, world.claims(), world.now)
    world.now += 90 * 65 // 64 * MICRO + 2 * MICRO
    assert world.stated() == 0


@pytest.mark.parametrize(
    ("spec", "begin", "within", "over"),
    [
        ("$1/hr", "12:00", HOUR, HOUR * 65 // 64 + 1),
        ("$1/day", "12:00", HOUR, DAY),
        ("$1/session idle=20min", "12:00", 20 * 60 - 5, 20 * 60 + 1),
        ("$1/hr + $5/day", "12:00", HOUR * 65 // 64 + 1, DAY),
        ("$5/day + $1/hr", "12:00", HOUR * 65 // 64 + 1, DAY),
        ("$1/hr + $5/day", "23:50", HOUR, HOUR * 65 // 64 + 1),
        ("$5/day + $1/hr", "23:50", HOUR, HOUR * 65 // 64 + 1),
        ("$1/hr + 5 calls/day", "12:00", HOUR, HOUR * 65 // 64 + 1),
    ],
)
def test_a_budget_lets_it_go(
    provider: FakeProvider, client: openai.OpenAI, clock: Clock, spec: str, begin: str, within: float, over: float
) -> None:
    clock.set(datetime.fromisoformat(f"2026-12-30T{begin}Z"))
    with budget(spec) as b:
        lose(provider, client)
    exposure = b.exposure
    assert exposure > 0
    clock.advance(within)
    assert b.exposure == exposure
    clock.advance(over - within)
    assert b.exposure == 0
    with b:
        lose(provider, client)
    assert b.exposure == pytest.approx(exposure)
    assert b.peak_exposure == pytest.approx(exposure), "of one window, not of two"


@pytest.mark.parametrize(
    ("arguments", "over"),
    [
        ({"max_usd": "$2/day on gpt-4o-mini"}, DAY),
        ({"max_velocity": "$1/min"}, 62),
    ],
)
def test_what_only_counts_does_not_keep_it(
    provider: FakeProvider, client: openai.OpenAI, clock: Clock, arguments: dict[str, Any], over: float
) -> None:
    with budget(**arguments) as b:
        lose(provider, client)
        assert b.exposure > 0
        clock.advance(over)
        assert b.exposure == 0


def test_the_runs_of_a_tool_do_not_keep_it(provider: FakeProvider, client: openai.OpenAI, clock: Clock) -> None:
    @shekel.tool
    def search() -> None:
        lose(provider, client)

    with budget("$1/day").tool("search", max_calls=20) as b:
        search()
        assert b.exposure > 0
        clock.advance(DAY)
        assert b.exposure == 0


def test_it_stays_as_long_as_what_is_spent_where_the_clock_was_set_back(
    provider: FakeProvider, client: openai.OpenAI, clock: Clock
) -> None:
    with budget("$1/hr") as b:
        ask(client)
        clock.set(clock.now() - timedelta(seconds=600))
        lose(provider, client)
        clock.advance(HOUR + 300)
        assert b.spent > 0
        assert b.exposure > 0
        clock.advance(600)
        assert (b.spent, b.exposure) == (0, 0)


@pytest.mark.parametrize("spec", ["$1", "100 calls/hr"])
def test_without_a_window_it_stays(provider: FakeProvider, client: openai.OpenAI, clock: Clock, spec: str) -> None:
    with budget(spec) as b:
        lose(provider, client)
        exposure = b.exposure
        clock.advance(400 * DAY)
        assert b.exposure == exposure > 0
    b.reset()
    assert (b.exposure, b.peak_exposure) == (0, 0)


def test_a_session_goes_on_with_each_call_and_tool(provider: FakeProvider, client: openai.OpenAI, clock: Clock) -> None:
    @shekel.tool(price=0.001)
    def search() -> None: ...

    with budget("$1/session idle=20min") as b:
        lose(provider, client)
        exposure = b.exposure
        for go_on in (lambda: ask(client), search, lambda: ask(client)):
            clock.advance(19 * 60)
            go_on()
            assert b.exposure == exposure
        opened = stream(client)
        next(iter(opened))
        clock.advance(HOUR)
        assert b.exposure >= exposure, "a call is open"
        opened.close()
        clock.advance(20 * 60 + 5)
        assert b.exposure == 0
        ask(client)
        assert b.exposure == 0
        assert b.spent < 0.001, "the ledger has begun anew as well"


def test_the_bill_of_every_day_is_within_what_was_stated(
    provider: FakeProvider, client: openai.OpenAI, clock: Clock
) -> None:
    """Days on which much is lost do not make the bound of a quiet one any higher."""
    clock.set(datetime(2026, 12, 30, 23, 0, tzinfo=UTC))
    with budget("$1/day") as b:
        for losses in (3, 0, 1):
            before = provider.bill.total
            for _ in range(losses):
                lose(provider, client)
            ask(client)
            provider.wait_idle()
            assert nano(b.spent) <= provider.bill.total - before <= nano(b.spent + b.exposure)
            assert (b.exposure > 0) == (losses > 0)
            clock.advance(DAY)


def test_a_correction_after_its_window_takes_nothing_from_the_next(
    provider: FakeProvider, client: openai.OpenAI, clock: Clock
) -> None:
    with budget("$1/hr") as b:
        opened = stream(client, max_tokens=4_000)
        call = shekel.call_of(opened)
        next(iter(opened))
        opened.close()
        first = b.exposure
        assert first > 0
        clock.advance(2 * HOUR)
        lose(provider, client)
        exposure = b.exposure
        assert 0 < exposure < first
        shekel.reconcile(call.id, 0.0001)
        assert b.exposure == exposure
