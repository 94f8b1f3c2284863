"""Where a block is in force, in whatever order blocks are left."""

from __future__ import annotations

from collections.abc import Generator

import openai
import pytest
from openai._base_client import SyncAPIClient

from shekel import Budget, BudgetExceededError, budget
from shekel.testing import FakeProvider

from .conftest import ask, billed, nano

UNTOUCHED = SyncAPIClient.request


def is_untouched() -> bool:
    """Whether the SDK is as it was before."""
    return SyncAPIClient.request is UNTOUCHED


def tries(client: openai.OpenAI, times: int) -> list[str]:
    told = []
    for _ in range(times):
        try:
            ask(client)
            told.append("sent")
        except BudgetExceededError:
            told.append("refused")
    return told


class TestAfterTheBlock:
    def test_the_sdk_is_as_before(self, client: openai.OpenAI) -> None:
        assert is_untouched()
        for _ in range(3):
            with budget(max_usd=1) as outer, budget(max_usd=1), outer:
                ask(client)
                assert not is_untouched()
            assert is_untouched()


class TestAnyOrder:
    def agent(self, b: Budget, client: openai.OpenAI, steps: int) -> Generator[str, None, None]:
        with b:
            for _ in range(steps):
                yield tries(client, 1)[0]

    def test_the_one_that_stays_is_kept(self, client: openai.OpenAI) -> None:
        short, long = budget(max_llm_calls=9), budget(max_llm_calls=2)
        first, second = self.agent(short, client, 1), self.agent(long, client, 6)
        assert next(first) == "sent"
        assert next(second) == "sent"
        assert list(first) == []
        assert list(second) == ["sent", *["refused"] * 4]
        assert long.calls_used == 2
        assert is_untouched()

    def test_the_one_that_was_left_does_not_come_back(self, client: openai.OpenAI) -> None:
        one, other = budget(max_llm_calls=1, name="one"), budget(name="other")
        first, second = self.agent(one, client, 2), self.agent(other, client, 2)
        assert next(first) == "sent"
        assert next(second) == "refused"  # it was entered inside the first
        first.close()
        second.close()
        with budget(name="third") as third:
            assert tries(client, 2) == ["sent", "sent"]
        assert (one.calls_used, third.calls_used) == (1, 2)
        budget(name="other")

    def test_the_same_budget_twice(self, client: openai.OpenAI) -> None:
        b = budget(max_llm_calls=3)
        first, second = self.agent(b, client, 1), self.agent(b, client, 1)
        next(first), next(second)
        first.close()
        assert tries(client, 2) == ["sent", "refused"]
        second.close()
        assert tries(client, 1) == ["sent"]
        assert b.calls_used == 3

    def test_one_exit_too_many_takes_nothing_from_others(self, client: openai.OpenAI) -> None:
        never, b = budget(max_usd=1), budget(max_llm_calls=1)
        with b:
            never.__exit__(None, None, None)
            assert tries(client, 2) == ["sent", "refused"]
        b.__exit__(None, None, None)
        b.reset()
        never.reset()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a_callback_that_ends_the_program_leaves_no_hold(
    provider: FakeProvider, client: openai.OpenAI, error: type[BaseException]
) -> None:
    def ends(*told: object) -> None:
        raise error

    b = budget(max_usd=0.001, fallback={"at_pct": 0.01, "model": "gpt-4.1-nano"}, on_fallback=ends)
    with b:
        ask(client)
        with pytest.raises(error):
            ask(client)
        assert b.held == 0
        assert b.exposure == 0
        ask(client)
    assert len(provider.bill) == 2
    assert nano(b.spent) == billed(provider)
