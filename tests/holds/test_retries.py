"""Attempts, not only calls: failed attempts that the provider bills all the same stay inside the bound."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from shekel import BudgetExceededError, budget
from shekel.testing import FakeProvider, Reply

from .callers import Callers
from .clients import sync_client
from .quarter import quarter
from .table import MODES, NANO, forget_what_was_learnt

ASKED: dict[str, Any] = {
    "model": "gpt-4o-mini",
    "messages": [{"role": "user", "content": "Hello there, how are you today?"}],
    "max_completion_tokens": 64,
}
FAILS = Reply(status=500, bill_error=True)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_strict_holds_for_every_attempt(stream: bool) -> None:
    limit = 0.0005
    with FakeProvider() as provider, sync_client(provider.openai_url, retries=2) as client:
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
    with FakeProvider() as provider, sync_client(provider.openai_url, retries=2) as client:
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
    with FakeProvider() as provider, sync_client(provider.openai_url, retries=1) as client:
        provider.default = Reply(status=status)
        with budget(max_usd=1) as b, pytest.raises(openai.APIStatusError):
            client.chat.completions.create(**ASKED)
        assert provider.bill.total == 0
    assert (b.spent, b.held, b.exposure, b.calls_used) == (0, 0, 0, 0)


def test_a_timeout_is_charged_what_it_probably_cost_beside_the_retry() -> None:
    with FakeProvider() as provider:
        with sync_client(provider.openai_url, retries=1, timeout=0.3) as client:
            provider.reply(Reply(stall_after=-1, keep_generating=True), Reply())
            with budget(max_usd=1) as b:
                client.chat.completions.create(**ASKED)
        provider.wait_idle()
        bill = provider.bill.total / 1e9
    assert len(provider.bill) == 2
    assert bill == pytest.approx(b.spent, rel=0.25)
    assert bill <= b.spent + b.exposure
    assert b.calls_used == 1


@pytest.mark.parametrize("what", ["max_tokens", "max_input_tokens", "max_output_tokens"])
def test_strict_holds_tokens_for_every_attempt_and_keeps_those_of_the_failed(what: str) -> None:
    limit = 1_200
    with FakeProvider() as provider, sync_client(provider.openai_url, retries=2) as client:
        with budget(mode="strict", **{what: limit}) as b:
            refused = False
            while not refused:
                provider.reply(FAILS, Reply(output_tokens=8))
                try:
                    client.chat.completions.create(**ASKED)
                except BudgetExceededError:
                    refused = True
        provider.wait_idle()
        sent = sum(attempt.input_tokens for attempt in provider.bill)
        made = sum(attempt.output_tokens for attempt in provider.bill)
        used = {"max_tokens": sent + made, "max_input_tokens": sent, "max_output_tokens": made}[what]
    assert len(provider.bill) >= 4
    assert used <= b.limits()[-1].used <= limit


def test_an_attempt_that_strict_has_not_made_takes_no_tokens() -> None:
    """Of three attempts that were held for, one timed out and one was answered."""
    with FakeProvider() as provider:
        with sync_client(provider.openai_url, retries=2, timeout=0.3) as client:
            provider.reply(Reply(stall_after=-1), Reply(output_tokens=8))
            with budget(mode="strict", max_output_tokens=1_000) as b:
                client.chat.completions.create(**ASKED)
    assert b.limits()[-1].used == 64 + 8


def test_a_last_attempt_that_does_not_tell_its_usage_takes_the_tokens_of_one() -> None:
    """Of three attempts that were held for, the first was answered, and dropped before its usage came."""
    with FakeProvider() as provider, sync_client(provider.openai_url, retries=2) as client:
        with budget(mode="strict", max_output_tokens=1_000) as b:
            with client.chat.completions.create(**ASKED, stream=True) as stream:
                next(iter(stream))
    assert b.limits()[-1].used == 64


def test_a_stream_that_is_dropped_takes_the_tokens_of_the_attempts_before_it_too() -> None:
    """Of three attempts that were held for, one timed out, and one was answered and dropped before its usage came."""
    with FakeProvider() as provider, sync_client(provider.openai_url, retries=2, timeout=0.3) as client:
        provider.reply(Reply(stall_after=-1), Reply())
        with budget(mode="strict", max_output_tokens=1_000) as b:
            with client.chat.completions.create(**ASKED, stream=True) as stream:
                next(iter(stream))
    assert b.limits()[-1].used == 2 * 64


@pytest.mark.parametrize("mode", ["sliced", "strict"])
@pytest.mark.parametrize("refusal", [400, 503])
def test_tokens_of_a_timeout_are_charged_also_where_the_retry_is_refused(mode: str, refusal: int) -> None:
    forget_what_was_learnt()
    with FakeProvider() as provider:
        with sync_client(provider.openai_url, retries=1, timeout=0.3) as client:
            provider.reply(Reply(stall_after=-1, keep_generating=True), Reply(status=refusal))
            with budget(mode=mode, max_output_tokens=1_000) as b, pytest.raises(openai.APIStatusError):
                client.chat.completions.create(**ASKED)
        provider.wait_idle()
        made = sum(attempt.output_tokens for attempt in provider.bill)
    assert b.limits()[-1].used == made == 64


@pytest.mark.parametrize("mode", ["sliced", "expected"])
def test_tokens_of_a_timeout_are_charged_beside_the_retry(mode: str) -> None:
    forget_what_was_learnt()
    with FakeProvider() as provider:
        with sync_client(provider.openai_url, retries=1, timeout=0.3) as client:
            provider.reply(Reply(stall_after=-1, keep_generating=True), Reply())
            with budget(mode=mode, max_output_tokens=1_000) as b:
                client.chat.completions.create(**ASKED)
        provider.wait_idle()
        made = sum(attempt.output_tokens for attempt in provider.bill)
    assert len(provider.bill) == 2
    assert b.limits()[-1].used == made == 2 * 64
    assert b.calls_used == 1


@pytest.mark.parametrize("model", ["gpt-4o-mini", "a-model-that-nobody-prices"])
def test_tokens_are_held_for_a_retry_whatever_is_known_of_the_price(model: str) -> None:
    forget_what_was_learnt()
    held: list[float] = []

    def decide(_: Any) -> Reply:
        held.append(b.limits()[-1].held)
        return Reply(stall_after=-1) if len(held) == 1 else Reply()

    with FakeProvider(decide=decide) as provider, sync_client(provider.openai_url, retries=1, timeout=0.3) as client:
        with budget(max_output_tokens=1_000) as b:
            client.chat.completions.create(**{**ASKED, "model": model})
    assert held == [64, 128]


def test_what_is_held_for_a_retry_is_no_longer_exposed() -> None:
    """Once an attempt has timed out, the hold is for it and for the next: what may come beyond that is less."""
    seen: list[tuple[float, float]] = []

    def decide(_: Any) -> Reply:
        seen.append((b.held, b.exposure))
        return Reply(stall_after=-1) if len(seen) == 1 else Reply()

    with FakeProvider(decide=decide) as provider, sync_client(provider.openai_url, retries=1, timeout=0.3) as client:
        with budget(max_usd=1) as b:
            client.chat.completions.create(**ASKED)
    (held, exposed), (held_then, exposed_then) = seen
    assert held_then > held
    assert held_then + exposed_then == pytest.approx(held + exposed)


def test_no_connection_costs_nothing() -> None:
    with FakeProvider() as provider:
        url = provider.openai_url
    with sync_client(url, retries=1, timeout=1) as client:
        with budget(max_usd=1) as b, pytest.raises(openai.APIConnectionError):
            client.chat.completions.create(**ASKED)
    assert (b.spent, b.held, b.exposure) == (0, 0, 0)


@pytest.mark.parametrize(
    ("who", "stream", "mode", "worth"), quarter(("threads", "tasks"), (False, True), MODES, (1, 10))
)
def test_many_at_once_whose_failed_attempts_are_billed(who: str, stream: bool, mode: str, worth: int) -> None:
    """Each attempt but the last of a call fails and is billed in full: three times the money of an answer."""
    forget_what_was_learnt()
    limit = worth * 3 * 48_000
    failed: dict[str, int] = {}

    def decide(seen: Any) -> Reply:
        name = seen.body["user"]
        failed[name] = failed.get(name, 0) + 1
        return FAILS if failed[name] < 3 else Reply(delay=0.1)

    with FakeProvider(decide=decide) as provider:
        b = budget(max_usd=limit / NANO, mode=mode)
        asked = {**ASKED, "stream": True} if stream else ASKED
        everyone = Callers(provider, b, 32, lambda number: {**asked, "user": f"caller {number}"}, retries=2)
        everyone.go(who)
        provider.wait_idle()
        billed = provider.bill.total
        assert len(provider.bill) == 3 * len(failed)
    assert billed <= limit + (0 if mode == "strict" else b.peak_exposure * NANO)
    assert everyone.failed == []
    assert everyone.finished + len(everyone.cut) == len(failed)
    assert (b.held, len(failed) + len(everyone.refused)) == (0, 32)
    assert failed or mode == "strict"


@pytest.mark.parametrize("status", [400, 401, 429, 503, 529])
@pytest.mark.parametrize("who", ["threads", "tasks"])
def test_many_rejections_leave_the_money_to_those_that_are_answered(who: str, status: int) -> None:
    """32 are rejected, at once, on a budget that has room for ten; then all of it is still there."""
    forget_what_was_learnt()
    with FakeProvider(Reply(status=status, delay=0.1)) as provider:
        b = budget(max_usd=10 * 48_000 / NANO)
        first = Callers(provider, b, 32, ASKED)
        first.go(who)
        assert len(first.failed) + len(first.refused) == 32
        assert first.failed
        assert (provider.bill.total, b.spent, b.held, b.exposure) == (0, 0, 0, 0)
        provider.default = Reply(delay=0.25)
        second = Callers(provider, b, 32, ASKED)
        second.go(who)
        provider.wait_idle()
        assert second.finished >= 10
        assert 0.8 * 10 * 48_000 <= provider.bill.total <= 10 * 48_000
