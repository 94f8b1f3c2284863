"""The blocks of Paygent's page on streaming, as they are written here, and each of its edge cases.

A block is the page's own, with its names replaced as the README's table for those who come from there says, and run
against the stand-in. Who pays is asked of Shekel, and must be the provider's bill to the nano-dollar.
"""

from __future__ import annotations

import gc
import os
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import anthropic
import httpx2
import openai
import pytest
import uvicorn

import shekel
from shekel import ShekelInstrumentor
from shekel.testing import FakeProvider, Reply

from . import blocks
from .blocks import Block

NANO = 1_000_000_000
USER = "user_123"
LIMIT = 0.01
ASKED: dict[str, Any] = {
    "model": "gpt-4o-mini",
    "messages": [{"role": "user", "content": "Tell me a story"}],
    "stream": True,
}
on_the_page = pytest.mark.skipif(blocks.PAYGENT.path() is None, reason=blocks.PAYGENT.absent)

WRITTEN_HERE = (
    (r"^from paygent import .*$", "import shekel"),
    (r"^( *)pg = Paygent\.init\(.*\)$", r"\1shekel.ShekelInstrumentor().instrument()"),
    (r"\bpaygent_context\(", "shekel.scope("),
    (r"\bPaygentLimitExceeded\b", "shekel.BudgetExceededError"),
    (r"\be\.guard_result\.message\b", "e.public_message"),
    (r"\bpg\.wrap\(", "shekel.meter("),
    (r'^    model="[^"]*",\n\)', ")"),  # the model is read from the call
    (r", *stream_options=\{.*\}|^ *stream_options=\{.*\}.*\n", ""),  # asked for where the program does not
)
"""What is replaced in a block, in this order."""


def written_here(block: Block) -> str:
    """The block's code with our names in it."""
    code = block.source()
    for theirs, ours in WRITTEN_HERE:
        code = re.sub(theirs, ours, code, flags=re.MULTILINE)
    assert "paygent" not in code.lower()
    return code


def spent(user: str = USER) -> int:
    """What a user has spent by Shekel's account, in nano-dollars."""
    from shekel.runtime import the_runtime

    r = the_runtime()
    (c,) = r.policies.claims_of({"user.id": user}, time.time())
    return r.ledger.read(c.meter, r.gate.clock()).settled


def billed(provider: FakeProvider) -> int:
    """What the provider bills, in nano-dollars."""
    provider.wait_idle()
    return provider.bill.total


@pytest.fixture(autouse=True)
def _limits(monkeypatch: pytest.MonkeyPatch, provider: FakeProvider) -> Iterator[None]:
    monkeypatch.setenv("OPENAI_BASE_URL", provider.openai_url)
    monkeypatch.setenv("OPENAI_API_KEY", "test")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("PAYGENT_API_KEY", "test")
    shekel.configure(policies=[shekel.per("user.id", f"${LIMIT}/day")])
    yield
    shekel.configure(policies=[])
    ShekelInstrumentor().uninstrument()


@on_the_page
class TestBlocks:
    def _run(self, block: Block, **names: Any) -> dict[str, Any]:
        namespace: dict[str, Any] = {"__name__": "__main__", "os": os, "shekel": shekel, **names}
        exec(compile(written_here(block), f"block at line {block.first}", "exec"), namespace)
        return namespace

    @pytest.mark.parametrize("name", ["sync", "async"])
    def test_a_stream_is_charged_to_the_user_of_the_block(
        self, name: str, provider: FakeProvider, capsys: pytest.CaptureFixture[str]
    ) -> None:
        provider.reply(Reply(text="Once upon a time there was a meter."))
        self._run(blocks.PAYGENT_SYNC if name == "sync" else blocks.PAYGENT_ASYNC)
        assert capsys.readouterr().out == "Once upon a time there was a meter.\n"
        assert spent() == billed(provider) > 0

    def test_without_include_usage_too(self, provider: FakeProvider) -> None:
        """There a stream that does not ask for its usage is free; here it is asked for, and the chunk kept back."""
        assert "include_usage" not in written_here(blocks.PAYGENT_SYNC)
        self._run(blocks.PAYGENT_SYNC)
        (request,) = provider.requests
        assert request.body["stream_options"] == {"include_usage": True}
        assert spent() == billed(provider) > 0

    def test_a_wrapped_call_is_charged_to_the_user_it_names(self, provider: FakeProvider) -> None:
        names = self._run(blocks.PAYGENT_WRAP, client=openai.OpenAI())
        assert isinstance(names["stream"], openai.Stream), "the SDK's own"
        assert spent() == billed(provider) > 0

    def test_and_once_only_inside_a_scope_with_the_doors_on(self, provider: FakeProvider) -> None:
        ShekelInstrumentor().instrument()
        with shekel.scope(user_id="somebody else"):
            self._run(blocks.PAYGENT_WRAP, client=openai.OpenAI())
        assert spent() == billed(provider) > 0
        assert spent("somebody else") == 0


@on_the_page
class TestServerSentEvents:
    @pytest.fixture
    def url(self, provider: FakeProvider) -> Iterator[str]:
        namespace: dict[str, Any] = {"__name__": "page", "os": os}
        exec(compile(written_here(blocks.PAYGENT_FASTAPI), "the FastAPI block", "exec"), namespace)
        with _served(namespace["app"]) as url:
            yield url

    def test_the_whole_answer_is_the_users(self, url: str, provider: FakeProvider) -> None:
        provider.reply(Reply(text="Once upon a time"))
        text = _get(url, "alice")
        assert "".join(re.findall(r"data: (.*)\n\n", text)) == "Once upon a time[DONE]"
        assert spent("alice") == billed(provider) > 0

    def test_a_refusal_is_an_event(self, url: str, provider: FakeProvider) -> None:
        shekel.configure(policies=[shekel.per("user.id", "$0.0000001/day")])
        text = _get(url, "bob")
        assert text.startswith("event: limit\ndata: ")
        assert "$" not in text
        assert provider.requests == []

    def test_and_so_is_a_cut_in_the_middle(self, url: str, provider: FakeProvider) -> None:
        """There an answer under way runs to its end, whatever it costs."""
        shekel.configure(policies=[shekel.per("user.id", "$0.0006/day")])
        provider.default = Reply(output_tokens=8_000, pace=0.002)  # $0.0048 of gpt-4o-mini
        text = _get(url, "carol")
        assert text.count("data: ") > 100
        assert "event: limit\ndata: " in text
        assert "[DONE]" not in text
        provider.wait_idle()
        (attempt,) = provider.bill
        assert attempt.outcome == "disconnected"
        assert attempt.output_tokens < 4_000, "1,000 tokens, and what was under way"
        assert _get(url, "carol").startswith("event: limit\n"), "the next is refused before its first chunk"
        assert len(provider.requests) == 1


class TestEdgeCases:
    """Each of the page's, and what holds here."""

    @pytest.mark.parametrize("way", ["break and close", "leave the block", "drop"])
    def test_a_stream_that_is_read_in_part_is_charged(
        self, way: str, provider: FakeProvider, client: openai.OpenAI
    ) -> None:
        """There it is not metered. Here it costs what was read, and what was probably under way.

        How much the provider generated after the connection closed it alone knows: the bill lies between what was
        read and that with the exposure, which the remainder of the limit takes into account.
        """
        provider.default = Reply(output_tokens=1000, pace=0.002)
        with shekel.budget() as b, shekel.scope(user_id=USER):
            stream = client.chat.completions.create(**ASKED)
            if way == "leave the block":
                with stream:
                    _read(stream, 50)
            else:
                _read(stream, 50)
            if way == "break and close":
                stream.close()
            del stream
        _wait(lambda: gc.collect() >= 0 and b.held == 0)  # the SDK's streams are cycles: dropped ones wait for this
        provider.wait_idle()
        (attempt,) = provider.bill
        assert attempt.outcome == "disconnected"
        assert attempt.output_tokens < 1000
        assert spent() == round(b.spent * NANO) >= 50 * 600, "fifty tokens of gpt-4o-mini at the least"
        assert attempt.cost <= round((b.spent + b.exposure) * NANO)

    def test_a_connection_that_fails_in_the_middle_is_charged(
        self, provider: FakeProvider, client: openai.OpenAI
    ) -> None:
        """There what was counted by then; here also what the provider went on to generate, as an interval."""
        provider.default = Reply(output_tokens=1000, pace=0.002, drop_after=50, keep_generating=True)
        with shekel.budget() as b, shekel.scope(user_id=USER):
            stream = client.chat.completions.create(**ASKED)
            with pytest.raises(openai.APIError):
                _read(stream, 1000)
        provider.wait_idle()
        assert round(b.spent * NANO) == spent() > 0
        assert spent() <= provider.bill.total <= round((b.spent + b.exposure) * NANO)

    def test_streams_of_one_user_side_by_side_are_charged_each(
        self, provider: FakeProvider, client: openai.OpenAI
    ) -> None:
        """There as here: each stream by itself, and the sum is exact."""
        provider.default = Reply(output_tokens=40, pace=0.001)

        def stream(_: int) -> None:
            with shekel.scope(user_id=USER):
                for _ in client.chat.completions.create(**ASKED):
                    pass

        with shekel.budget(), ThreadPoolExecutor(16) as pool:
            list(pool.map(stream, range(16)))
        assert len(provider.bill) == 16
        assert spent() == billed(provider) > 0

    def test_messages_of_anthropic_need_no_flag(self, provider: FakeProvider, claude: anthropic.Anthropic) -> None:
        request: dict[str, Any] = {"model": "claude-haiku-4-5", "max_tokens": 100, "messages": ASKED["messages"]}
        with shekel.budget(), shekel.scope(user_id=USER), claude.messages.stream(**request) as stream:
            assert "".join(stream.text_stream)
        assert spent() == billed(provider) > 0


def _read(stream: Any, chunks: int) -> None:
    for number, _ in enumerate(stream, 1):
        if number == chunks:
            break


def _wait(ready: Any) -> None:
    deadline = time.monotonic() + 20
    while not ready():
        assert time.monotonic() < deadline, "it did not come to pass in twenty seconds"
        time.sleep(0.005)


def _get(url: str, user: str) -> str:
    with httpx2.Client(trust_env=False, timeout=30) as http:
        return http.get(url, params={"user_id": user, "prompt": "Tell me a story"}).text


@contextmanager
def _served(app: Any) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, lifespan="off", ws="none"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    _wait(lambda: server.started)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/chat/stream"
    server.should_exit = True
    thread.join(10)
    assert not thread.is_alive()
