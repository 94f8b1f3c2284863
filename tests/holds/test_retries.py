"""Attempts, not only calls: failed attempts that the provider bills all the same stay inside the bound."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from shekel import BudgetExceededError, budget
from shekel.testing import FakeProvider, Reply

ASKED: dict[str, Any] = {
    "model": "gpt-4o-mini",
    "messages": [{"role": "user", "content": "Hello there, how are you today?"}],
    "max_completion_tokens": 64,
}
FAILS = Reply(status=500, bill_error=True)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_strict_holds_for_every_attempt(stream: bool) -> None:
    limit = 0.0005
    with FakeProvider() as provider, openai.OpenAI(base_url=provider.openai_url, api_key="t", max_retries=2) as client:
        with budget(max_usd=limit, mode="strict") as b:
            refused = False
            while not refused:
                provider.reply(FAILS, FAILS, Reply())
                try:
                    answer = client.chat.completions.create(**ASKED, stream=stream)
                    if stream:
                        list(answer)
                except BudgetExceededError:
                    refused = True
        provider.wait_idle()
        bill = provider.bill.total / 1e9
    assert len(provider.bill) >= 6
    assert bill <= limit
    assert bill <= b.spent  # what failed attempts may have cost is spent for a strict budget
    assert b.exposure == 0


def test_other_modes_state_what_failed_attempts_may_have_cost() -> None:
    with FakeProvider() as provider, openai.OpenAI(base_url=provider.openai_url, api_key="t", max_retries=2) as client:
        provider.reply(FAILS, FAILS, Reply())
        with budget(max_usd=1) as b:
            client.chat.completions.create(**ASKED)
        provider.wait_idle()
        bill = provider.bill.total / 1e9
        answered = (provider.bill[2].cost or 0) / 1e9
    assert b.spent == pytest.approx(answered)
    assert b.spent < bill <= b.spent + b.exposure


@pytest.mark.parametrize("status", [400, 401, 429, 503, 529])
def test_rejected_attempts_cost_nothing_and_hold_nothing(status: int) -> None:
    with FakeProvider() as provider, openai.OpenAI(base_url=provider.openai_url, api_key="t", max_retries=1) as client:
        provider.default = Reply(status=status)
        with budget(max_usd=1) as b, pytest.raises(openai.APIStatusError):
            client.chat.completions.create(**ASKED)
        assert provider.bill.total == 0
    assert (b.spent, b.held, b.exposure, b.calls_used) == (0, 0, 0, 0)


def test_a_timeout_is_charged_what_it_probably_cost_beside_the_retry() -> None:
    with FakeProvider() as provider:
        with openai.OpenAI(base_url=provider.openai_url, api_key="t", max_retries=1, timeout=0.3) as client:
            provider.reply(Reply(stall_after=-1, keep_generating=True), Reply())
            with budget(max_usd=1) as b:
                client.chat.completions.create(**ASKED)
        provider.wait_idle()
        bill = provider.bill.total / 1e9
    assert len(provider.bill) == 2
    assert bill == pytest.approx(b.spent, rel=0.25)
    assert bill <= b.spent + b.exposure
    assert b.calls_used == 1


def test_no_connection_costs_nothing() -> None:
    with FakeProvider() as provider:
        url = provider.openai_url
    with openai.OpenAI(base_url=url, api_key="t", max_retries=1, timeout=1) as client:
        with budget(max_usd=1) as b, pytest.raises(openai.APIConnectionError):
            client.chat.completions.create(**ASKED)
    assert (b.spent, b.held, b.exposure) == (0, 0, 0)
