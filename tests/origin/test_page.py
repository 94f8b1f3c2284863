"""Code written for the shekel library runs unchanged: every block of its page on streaming, against the stand-in.

What the page leaves to the reader (a client, a prompt, a list of items) is put into the block's namespace. The stand-in
is found through the SDKs' own environment variables. Each block runs inside a budget without a limit, whose sum must
be the provider's bill to the nano-dollar.
"""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import openai
import pytest

import shekel
from shekel.testing import FakeProvider, Reply

from . import blocks
from .blocks import Block

pytestmark = [
    pytest.mark.skipif(blocks.SHEKEL.path() is None, reason=blocks.SHEKEL.absent),
    pytest.mark.filterwarnings("ignore:The model:DeprecationWarning"),
]

NANO = 1_000_000_000
ASKED: dict[str, Any] = {
    "model": "gpt-4o-mini",
    "messages": [{"role": "user", "content": "Tell me a story"}],
    "stream": True,
}


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeProvider]:
    # 400 tokens: enough for four printed decimals to show something, at the prices of the small models.
    with FakeProvider(output_tokens=400) as provider:
        monkeypatch.setenv("OPENAI_BASE_URL", provider.openai_url)
        monkeypatch.setenv("OPENAI_API_KEY", "test")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", provider.anthropic_url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "test")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield provider


@pytest.fixture(autouse=True)
def _same_signals() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


class Run:
    """A block that has run: its names, what it printed, what it cost and what the provider bills."""

    def __init__(self, block: Block, provider: FakeProvider, capsys: pytest.CaptureFixture[str], **names: Any) -> None:
        code = compile(block.source(), f"block at line {block.first}", "exec")
        self.names = {"__name__": "__main__", "budget": shekel.budget, "openai": openai, **names}
        if "client" not in names:
            self.names["client"] = openai.OpenAI()
        self._provider, self._capsys = provider, capsys
        with shekel.budget() as self.total:
            exec(code, self.names)
        self.printed = capsys.readouterr().out

    @property
    def bill(self) -> int:
        """Nano-dollars."""
        self._provider.wait_idle()
        return self._provider.bill.total

    @property
    def spent(self) -> int:
        """Nano-dollars."""
        return round(self.total.spent * NANO)

    def amounts(self) -> list[str]:
        """The dollar amounts that were printed, as they were printed."""
        return re.findall(r"\$(\d+\.\d+)", self.printed)


@pytest.fixture
def run(provider: FakeProvider, capsys: pytest.CaptureFixture[str]) -> Any:
    def run(block: Block, **names: Any) -> Run:
        return Run(block, provider, capsys, **names)

    return run


def _shown(nano: int, digits: int = 4) -> str:
    return f"{nano / NANO:.{digits}f}"


@pytest.mark.parametrize("name", blocks.ALL)
def test_every_block_is_python_once_it_is_indented(name: str) -> None:
    compile(blocks.ALL[name].source(), name, "exec")


class TestEveryBlock:
    @pytest.mark.parametrize(
        "name",
        ["openai", "anthropic", "low_limit", "async_anthropic", "several", "progress", "fallback", "interruption"],
    )
    def test_prints_the_cost_that_the_provider_bills(self, name: str, run: Any, provider: FakeProvider) -> None:
        block = blocks.ALL[name]
        done = run(block)
        assert done.spent == done.bill > 0
        assert len(provider.bill) == block.calls
        if name == "interruption":  # which prints nothing unless it is interrupted
            return
        shown = done.amounts()[-1]
        # The page prints the first of two streams where the fallback did not switch.
        billed = provider.bill[0].cost if name == "fallback" else done.bill
        assert shown == _shown(billed)
        assert float(shown) > 0

    def test_async_openai(self, run: Any) -> None:
        done = run(blocks.ASYNC_OPENAI, client=openai.AsyncOpenAI())
        assert done.spent == done.bill > 0
        assert done.amounts() == [_shown(done.bill)]

    def test_running_cost_accumulates_over_repeated_blocks(self, run: Any, provider: FakeProvider) -> None:
        done = run(blocks.RUNNING)
        assert done.spent == done.bill > 0
        costs = [attempt.cost for attempt in provider.bill]
        assert len(costs) == blocks.RUNNING.calls
        assert done.amounts()[::2] == [_shown(sum(costs[: n + 1])) for n in range(len(costs))]
        assert set(done.amounts()[1::2]) == {"5.00"}

    def test_after_each_of_several_streams(self, run: Any, provider: FakeProvider) -> None:
        done = run(blocks.SEVERAL)
        costs = [attempt.cost for attempt in provider.bill]
        steps = [_shown(sum(costs[: n + 1])) for n in range(len(costs))]
        assert done.amounts() == [*steps, steps[-1]]

    def test_token_tracking_tells_what_the_provider_counted(self, run: Any, provider: FakeProvider) -> None:
        done = run(blocks.TOKENS)
        (attempt,) = provider.bill
        numbers = re.findall(r"tokens: (\d+)", done.printed)
        assert numbers == [str(attempt.input_tokens), str(attempt.output_tokens)]
        assert done.amounts() == [_shown(done.bill, 6)]
        assert float(done.amounts()[0]) > 0

    def test_one_budget_for_many_items(self, run: Any, provider: FakeProvider) -> None:
        client = openai.OpenAI()

        def stream_response(item: str) -> None:
            for _ in client.chat.completions.create(
                model="gpt-4o-mini", messages=[{"role": "user", "content": item}], stream=True
            ):
                pass

        done = run(blocks.REUSE, client=client, items=["one", "two", "three"], stream_response=stream_response)
        assert len(provider.bill) == blocks.REUSE.calls
        assert round(done.names["session"].spent * NANO) == done.spent == done.bill > 0

    def test_a_client_with_a_timeout(self, run: Any) -> None:
        done = run(blocks.TIMEOUT, prompt="Hello.")
        assert done.names["client"].timeout == 30.0
        assert sum(1 for chunk in done.names["stream"] if chunk.choices) > 1, "read after the block, charged to it"
        assert done.spent == done.bill > 0

    def test_a_buffer_prints_the_whole_text(self, run: Any, provider: FakeProvider) -> None:
        text = "What is bought by the word is paid for by the token, and printed by the line."
        provider.reply(Reply(text=text))
        done = run(blocks.BUFFER)
        assert done.printed.rstrip("\n") == text
        assert done.spent == done.bill > 0


class TestLowLimit:
    def test_a_stream_over_the_limit_ends_with_the_error_of_the_page(self, run: Any, provider: FakeProvider) -> None:
        provider.default = Reply(output_tokens=3000, pace=0.0005)  # 3,000 tokens of gpt-4o cost $0.03
        done = run(blocks.LOW_LIMIT, BudgetExceededError=shekel.BudgetExceededError)
        (shown,) = done.amounts()
        b = done.names["b"]
        assert b.model_switched is False
        assert 0.0095 <= float(shown) <= 0.01 + b.peak_exposure
        assert 0.0075 <= done.bill / NANO <= 0.01 + b.peak_exposure, "cut: a third of it, and what was under way"

    def test_or_is_let_to_its_end_as_the_page_says_where_that_is_asked_for(
        self, run: Any, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        provider.default = Reply(output_tokens=3000)
        monkeypatch.setattr(shekel, "budget", partial(shekel.budget, at_limit="finish"))
        done = run(blocks.LOW_LIMIT)
        assert done.printed.rstrip().splitlines()[-1] == f"Budget exceeded after stream: ${_shown(done.bill)}"
        assert done.bill / NANO > 0.03, "the whole answer"
        assert done.spent == done.bill


class TestFallback:
    def test_the_second_stream_goes_to_the_cheaper_model(self, run: Any, provider: FakeProvider) -> None:
        provider.reply(Reply(input_tokens=330_000), Reply())  # 330,000 tokens into gpt-4o cost $0.825 of $1.00
        done = run(blocks.FALLBACK)
        first, second = provider.bill
        assert (first.model, second.model) == ("gpt-4o", "gpt-4o-mini")
        assert done.amounts() == [_shown(first.cost), _shown(first.cost)]
        assert done.spent == done.bill


class TestInterruption:
    def test_ctrl_c_prints_what_the_stream_has_cost(self, run: Any, provider: FakeProvider) -> None:
        def decide(request: Any) -> Reply:
            threading.Timer(0.4, os.kill, (os.getpid(), signal.SIGINT)).start()
            return Reply(output_tokens=4000, pace=0.001)

        provider.decide = decide
        done = run(blocks.INTERRUPTION)
        (shown,) = done.amounts()
        assert float(shown) > 0
        done.names["stream"].close()  # where Ctrl+C came between two chunks, the page leaves it open
        bill = done.bill
        (attempt,) = provider.bill
        assert attempt.outcome == "disconnected"
        # How much was under way is the machine's affair, and stated: the bill lies within it.
        assert bill <= done.spent + done.names["b"].exposure * NANO
        assert float(shown) * NANO <= done.spent + 0.00005 * NANO, "the page shows four digits"


class TestErrors:
    def test_a_good_answer_is_returned(self, run: Any, capsys: pytest.CaptureFixture[str]) -> None:
        done = run(blocks.ERRORS)
        with shekel.budget() as total:
            answer = done.names["safe_stream"]("Hello.")
        assert answer
        assert capsys.readouterr().out == answer
        assert round(total.spent * NANO) == done.bill > 0

    def test_a_budget_that_is_exceeded_is_told(
        self, run: Any, provider: FakeProvider, capsys: pytest.CaptureFixture[str]
    ) -> None:
        done = run(blocks.ERRORS)
        with shekel.budget(max_usd=0.0000001):
            assert done.names["safe_stream"]("Hello.") is None
        assert capsys.readouterr().out == "\n[Budget exceeded: $0.0000]\n"
        assert provider.requests == []

    def test_another_error_is_told(self, run: Any, provider: FakeProvider, capsys: pytest.CaptureFixture[str]) -> None:
        done = run(blocks.ERRORS)
        provider.reply(Reply(status=400, error="The stand-in does not like it."))
        assert done.names["safe_stream"]("Hello.") is None
        assert "[Error: Error code: 400" in capsys.readouterr().out
        assert done.bill == 0


def test_usage_is_asked_for_and_the_page_never_sees_the_extra_chunk(run: Any, provider: FakeProvider) -> None:
    # The page indexes `choices[0]` of every chunk: one chunk without choices, and it would raise.
    run(blocks.OPENAI)
    (request,) = provider.requests
    assert request.body["stream_options"] == {"include_usage": True}


class TestLimitations:
    """What the page says it cannot do."""

    def test_cost_is_checked_while_the_answer_comes(self, provider: FakeProvider) -> None:
        provider.default = Reply(output_tokens=500, pace=0.001)
        with shekel.budget(max_usd=1) as b:
            seen = [b.spent for _ in openai.OpenAI().chat.completions.create(**ASKED)]
        assert 0 < seen[10] < seen[200] < seen[-1]

    def test_a_stream_is_stopped_in_the_middle(self, provider: FakeProvider) -> None:
        provider.default = Reply(output_tokens=8_000, pace=0.002)  # $0.0048
        chunks = 0
        with shekel.budget(max_usd=0.0006) as b, pytest.raises(shekel.BudgetExceededError):
            for _ in openai.OpenAI().chat.completions.create(**ASKED):
                chunks += 1
        provider.wait_idle()
        (attempt,) = provider.bill
        assert chunks > 500
        assert attempt.outcome == "disconnected"
        assert attempt.output_tokens < 4_000
        assert attempt.cost / NANO <= 0.0006 + b.peak_exposure

    def test_a_stream_that_is_left_early_costs_what_was_generated_by_then(self, provider: FakeProvider) -> None:
        """Only the provider knows what it generated after that: `spent` estimates it, `exposure` bounds it."""
        provider.default = Reply(output_tokens=2_000, pace=0.002)
        with shekel.budget() as b:
            with openai.OpenAI().chat.completions.create(**ASKED) as stream:
                for number, _ in enumerate(stream):
                    if number == 100:
                        break
        provider.wait_idle()
        (attempt,) = provider.bill
        whole = 2_000 * 0.6e-6
        assert 100 * 0.6e-6 <= b.spent < whole
        assert attempt.cost / NANO < whole
        assert attempt.cost / NANO <= b.spent + b.exposure
