"""Grants of `on_exceed` and `allow`: how much they add to which limit, and for how long."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from shekel import Allowance, BudgetExceededError, Exceeded, budget
from shekel.testing import Clock, FakeProvider

from .conftest import ask, billed


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads take turns at every step."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def sent(provider: FakeProvider, client: openai.OpenAI, tries: int) -> int:
    """How many of so many calls were sent."""
    before = len(provider.requests)
    for _ in range(tries):
        try:
            ask(client)
        except BudgetExceededError:
            continue
    return len(provider.requests) - before


def test_a_rule_that_grants_for_ever_takes_no_memory_without_bound(client: openai.OpenAI) -> None:
    b = budget("1 call")
    claim = b.claims(time.time())[1]
    for number in range(1, 1_501):
        b.allow(claim, Allowance(1, by=f"rule {number}"))
    assert [b.allowances[0].by, b.allowances[-1].by] == ["rule 501", "rule 1500"]
    assert b.limits()[0].limit == 1_501


def once(**more: Any) -> Any:
    """A rule that grants two calls at the first question only."""
    answers = [Allowance(2, "boss", "only now")]
    return lambda question: answers.pop() if answers else None


class TestTheWindowOfAGrant:
    @pytest.mark.parametrize("spec", ["1 call/hr", "1 call/session idle=1h"])
    def test_it_counts_for_the_present_window_only(
        self, provider: FakeProvider, client: openai.OpenAI, clock: Clock, spec: str
    ) -> None:
        with budget(spec, on_exceed=once()) as b:
            found = []
            for _ in range(3):
                found.append(sent(provider, client, 6))
                clock.advance(3600 * 65 / 64 + 5)
            assert found == [3, 1, 1]
        assert len(b.allowances) == 1

    def test_on_a_rate_too(self, provider: FakeProvider, client: openai.OpenAI, clock: Clock) -> None:
        with budget(max_velocity="$0.00001/min", on_exceed=lambda question: not question.budget.allowances) as b:
            assert sent(provider, client, 3) == 1
            clock.advance(70)
            assert sent(provider, client, 3) == 0
        assert b.limits()[-1].limit == pytest.approx(0.00001)

    def test_on_a_sliding_window_it_counts_as_long_as_what_is_settled_then(self, clock: Clock) -> None:
        b = budget("1 call/64s")
        claim = b.claims(clock())[1]
        start = int(clock()) // 64 * 64 + 64
        b.allow(claim, Allowance(2), start + 0.5)
        b.allow(claim, Allowance(3), start + 1.5)
        limits = {after: b.claims(start + after)[1].limit for after in (2, 64, 64.9, 65, 65.9, 66)}
        assert limits == {2: 6, 64: 6, 64.9: 6, 65: 4, 65.9: 4, 66: 1}

    def test_on_a_session_it_counts_until_the_session_is_over(
        self, provider: FakeProvider, client: openai.OpenAI, clock: Clock
    ) -> None:
        with budget("1 call/session idle=1h", on_exceed=once()) as b:
            assert sent(provider, client, 2) == 2
            clock.advance(3000)
            assert sent(provider, client, 6) == 1  # the last call of the grant; the session goes on
            clock.advance(3000)
            assert b.limits()[-1].limit == 3
            assert sent(provider, client, 6) == 0
            clock.advance(3700)
            assert b.limits()[-1].limit == 1
            assert sent(provider, client, 6) == 1
            assert b.limits()[-1].limit == 1

    def test_a_further_session_may_be_granted_something_of_its_own(
        self, provider: FakeProvider, client: openai.OpenAI, clock: Clock
    ) -> None:
        with budget("1 call/session idle=1h") as b:
            claim = b.claims(clock())[1]
            b.allow(claim, Allowance(5))
            assert sent(provider, client, 1) == 1
            clock.advance(4000)
            b.allow(claim, Allowance(1))
            assert sent(provider, client, 9) == 2

    @pytest.mark.parametrize("spec", ["1 call", "1 call/day"])
    def test_without_a_window_that_slides_it_stays(self, clock: Clock, spec: str) -> None:
        b = budget(spec)
        b.allow(b.claims(clock())[1], Allowance(2))
        clock.advance(3600 * 23)
        assert b.claims(clock())[1].limit == 3


class TestTheAmountOfAGrant:
    def test_threads_that_grant_at_once_lose_nothing(self, hasty: None) -> None:
        b = budget(1.0)
        claim = b.claims(time.time())[0]

        start = threading.Barrier(8)

        def grant() -> None:
            start.wait()
            for _ in range(1000):
                b.allow(claim, Allowance(0.001))

        threads = [threading.Thread(target=grant) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert b.limit == 1.0 + 8.0

    def test_a_fraction_of_a_count_is_recorded_as_what_it_counts(
        self, provider: FakeProvider, client: openai.OpenAI
    ) -> None:
        with budget("1 call", on_exceed=lambda question: 0.1) as b:
            assert sent(provider, client, 2) == 2
        assert [each.amount for each in b.allowances] == [1]
        assert b.limits()[0].limit == 2


class TestQuestions:
    def test_each_limit_that_lacks_room_is_asked_about(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        asked: list[str] = []

        def yes(question: Exceeded) -> bool:
            asked.append(question.unit)
            return True

        with budget("1 call + $0.00005", on_exceed=yes) as b:
            assert sent(provider, client, 2) == 2
        assert sorted(asked) == ["calls", "usd"]
        assert [each.used for each in b.limits()] == [pytest.approx(b.spent), 2]

    def test_a_limit_that_grants_too_little_is_asked_about_once(
        self, provider: FakeProvider, client: openai.OpenAI
    ) -> None:
        asked: list[str] = []

        def little(question: Exceeded) -> float:
            asked.append(question.unit)
            return 0.000001

        with budget("1 call + $0.00005", on_exceed=little):
            assert sent(provider, client, 2) == 1
        assert asked == ["calls", "usd"]

    def test_it_is_asked_again_where_another_call_took_the_grant(
        self, provider: FakeProvider, client: openai.OpenAI
    ) -> None:
        """The rule itself lets another call take it, twice; the third grant is left to the first call."""
        asked: list[Exceeded] = []

        def rule(question: Exceeded) -> bool:
            asked.append(question)
            if len(asked) <= 2:
                taken.append(threading.Thread(target=b.bind(lambda: take(question))))
                taken[-1].start()
                taken[-1].join()
            return True

        def take(question: Exceeded) -> None:
            b.allow(b.claims(time.time())[1], Allowance(1))
            ask(client)
            b.allow(b.claims(time.time())[1], Allowance(-1))

        taken: list[threading.Thread] = []
        with budget("1 call", on_exceed=rule) as b:
            assert sent(provider, client, 2) == 4
        assert len(asked) == 3

    def test_it_is_not_asked_for_ever(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        asked: list[Exceeded] = []

        def rule(question: Exceeded) -> Allowance:
            asked.append(question)
            b.allow(b.claims(time.time())[1], Allowance(-question.lacking))  # what is granted is gone at once
            return Allowance(question.lacking)

        with budget("1 call", on_exceed=rule) as b:
            assert sent(provider, client, 2) == 1
        assert 1 < len(asked) <= 6


class TestParts:
    def test_a_grant_counts_for_the_part_that_asked(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        asked: list[Exceeded] = []

        def yes(question: Exceeded) -> bool:
            asked.append(question)
            return True

        b = budget(max_usd=5, on_exceed=yes)
        b.agent("res", max_usd=0.00001)
        with b, budget(name="res"):
            assert sent(provider, client, 2) == 2
        assert [(each.part, each.limit) for each in asked] == [
            ("agent res", 0.00001), ("agent res", pytest.approx(0.00001 + asked[0].lacking)),
        ]  # fmt: skip
        assert b.limit == 5
        assert billed(provider) == round(b.spent * 1e9)

    def test_a_reset_or_another_cap_ends_it(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        answers = [True]
        b = budget(max_usd=5, on_exceed=lambda question: answers.pop() if answers else None)
        b.agent("res", max_usd=0.00001)
        with b, budget(name="res"):
            assert sent(provider, client, 1) == 1
        b.reset()
        with b, budget(name="res"):
            assert sent(provider, client, 1) == 0
        answers.append(True)
        with b, budget(name="res"):
            assert sent(provider, client, 1) == 1
            b.agent("res", max_usd=0.00002)
            assert sent(provider, client, 1) == 0
