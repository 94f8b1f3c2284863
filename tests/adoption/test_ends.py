"""However a call ends, the span that stands for it ends once, with its cost, and the charge is as without theirs."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import anthropic
import openai
import pytest

from shekel import BudgetExceededError, budget
from shekel.testing import FakeProvider, Reply

from . import calls
from .cases import cases
from .instrumentations import ALL
from .stage import COST, Stage, stage


def ask(on: Stage, **more: Any) -> Any:
    """Open a stream, or make a call."""
    client = on.clients[0]
    if on.sdk == "openai":
        return client.chat.completions.create(**{**calls.GPT, "max_tokens": 4000, **more})
    return client.messages.create(**{**calls.CLAUDE, "max_tokens": 4000, **more})


def ended_once(on: Stage, names: tuple[str, ...], outcome: str, spent: float) -> None:
    """The span that carries cost and outcome has ended, whatever others do with theirs, and there is none of ours."""
    gc.collect()
    for name in names:
        assert len(on.spans_of(ALL[name].scope)) <= 1, name
    assert on.spans_of("shekel") == []
    [priced] = on.priced
    attributes = priced.attributes or {}
    assert attributes["shekel.outcome"] == outcome
    assert attributes[COST] == pytest.approx(spent)


SETS = pytest.mark.parametrize(("sdk", "names", "ours"), cases())


@SETS
def test_a_stream_that_is_left(provider: FakeProvider, sdk: str, names: tuple[str, ...], ours: str) -> None:
    provider.default = Reply(output_tokens=400, pace=0.002)
    with stage(sdk, names, ours=ours, provider=provider) as on:
        with budget(max_usd=5) as b:
            stream = ask(on, stream=True)
            for _, _chunk in zip(range(6), stream, strict=False):
                pass
            stream.close()
        del stream
        provider.wait_idle()
        assert (b.calls_used, b.held) == (1, 0)
        assert 0 < b.spent <= provider.bill.total / 1e9 + b.peak_exposure
        ended_once(on, names, "closed", b.spent)


@SETS
def test_a_stream_that_is_dropped(provider: FakeProvider, sdk: str, names: tuple[str, ...], ours: str) -> None:
    provider.default = Reply(output_tokens=400, pace=0.002)
    with stage(sdk, names, ours=ours, provider=provider) as on:
        with budget(max_usd=5) as b:
            stream = ask(on, stream=True)
            next(iter(stream))
            del stream
            gc.collect()
            ask(on, max_tokens=1)  # what was dropped is settled before the next call asks, at the latest
        assert (b.calls_used, b.held) == (2, 0)
        assert sum((span.attributes or {})[COST] for span in on.priced) == pytest.approx(b.spent)
        assert len(on.priced) == 2


@SETS
def test_a_stream_that_is_cut(provider: FakeProvider, sdk: str, names: tuple[str, ...], ours: str) -> None:
    provider.default = Reply(output_tokens=4000, pace=0.0005)
    limit = 0.0005 if sdk == "openai" else 0.004
    with stage(sdk, names, ours=ours, provider=provider) as on:
        with budget(max_usd=limit) as b, pytest.raises(BudgetExceededError):
            for _ in ask(on, stream=True):
                pass
        provider.wait_idle()
        assert (b.calls_used, b.held) == (1, 0)
        ended_once(on, names, "cut", b.spent)


@SETS
def test_an_answer_after_a_retry(provider: FakeProvider, sdk: str, names: tuple[str, ...], ours: str) -> None:
    provider.reply(Reply(status=429, retry_after=0.001))
    with stage(sdk, names, ours=ours, provider=provider) as on:
        on.clients[0].max_retries = 1
        with budget(max_usd=5) as b:
            ask(on)
        assert len(provider.requests) == 2
        assert (b.calls_used, b.held) == (1, 0)
        assert b.spent == pytest.approx(provider.bill.total / 1e9)
        ended_once(on, names, "complete", b.spent)
        assert (on.priced[0].attributes or {})["shekel.attempts"] == 2


@SETS
def test_a_call_that_fails(provider: FakeProvider, sdk: str, names: tuple[str, ...], ours: str) -> None:
    provider.reply(Reply(status=400))
    errors = {"openai": openai.BadRequestError, "anthropic": anthropic.BadRequestError}
    with stage(sdk, names, ours=ours, provider=provider) as on:
        with budget(max_usd=5) as b, pytest.raises(errors[sdk]) as raised:
            ask(on)
        assert type(raised.value) is errors[sdk]
        assert (b.spent, b.held) == (0, 0)
        ended_once(on, names, "error", 0)


@SETS
def test_a_task_that_is_cancelled(provider: FakeProvider, sdk: str, names: tuple[str, ...], ours: str) -> None:
    provider.default = Reply(delay=30)
    with stage(sdk, names, ours=ours, provider=provider) as on:

        async def cancelled() -> None:
            client = on.clients[1]
            made = (
                client.chat.completions.create(**calls.GPT)
                if sdk == "openai"
                else client.messages.create(**calls.CLAUDE)
            )
            task = asyncio.ensure_future(made)
            while not provider.requests:
                await asyncio.sleep(0.002)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await client.close()

        with budget(max_usd=5) as b:
            asyncio.run(cancelled())
        assert (b.calls_used, b.held) == (1, 0)
        ended_once(on, names, "cancelled", b.spent)
