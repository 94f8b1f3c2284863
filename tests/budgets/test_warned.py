"""Warnings of Python: they name the program's own line, and one that a filter makes an error breaks nothing."""

from __future__ import annotations

import asyncio
import inspect
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest

import shekel
from shekel import budget, deliveries, faults, late, locks, per, scope, tool
from shekel.testing import FakeProvider

from .conftest import MODEL, ask, ask_async, async_client, billed, nano, stream, until

CHEAP = "gpt-4.1-nano"
FALLS_BACK: dict[str, Any] = {"max_usd": 0.001, "fallback": {"at_pct": 0.01, "model": CHEAP}}


@pytest.fixture
def strictly() -> Iterator[None]:
    """As under `python -W error`."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@tool
def look_up(word: str) -> str:
    return word.upper()


def heard(work: Callable[[], object]) -> list[tuple[str, str, str]]:
    """Of each warning: what it says, and the file and the line of the program that it names."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        work()
    found = []
    for each in caught:
        with open(each.filename) as file:
            line = file.read().splitlines()[each.lineno - 1]
        found.append((str(each.message), each.filename, line.strip()))
    return found


@pytest.mark.usefixtures("strictly")
class TestMadeAnError:
    def test_a_fallback_goes_on(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        with budget(**FALLS_BACK) as b:
            answers = [ask(client) for _ in range(3)]
            assert b.held == 0
        assert [each.model for each in provider.bill] == [answers[0].model, CHEAP, CHEAP]
        assert nano(b.spent) == billed(provider)

    def test_a_stream_that_falls_back_goes_on(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        with budget(**FALLS_BACK) as b:
            ask(client)
            assert len(list(stream(client, max_tokens=20))) > 1
            assert b.held == 0
        assert nano(b.spent) == billed(provider)

    def test_a_tool_that_is_taken_for_a_loop_runs(self) -> None:
        with budget(loop_guard=True, loop_guard_max_calls=1, warn_only=True) as b:
            assert [look_up("a"), look_up("b")] == ["A", "B"]
        assert b.tool_calls_used == 2


class TestNamesTheProgram:
    def test_at_a_threshold(self, client: openai.OpenAI) -> None:
        def work() -> None:
            with budget(max_usd=1, warn_at=0.000001):
                client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "a"}])

        [(text, file, line)] = heard(work)
        assert "has spent" in text
        assert (file, line[:30]) == (__file__, "client.chat.completions.create")

    def test_at_the_end_of_a_stream(self, client: openai.OpenAI) -> None:
        def work() -> None:
            with budget(max_usd=1, warn_at=0.000001):
                for _ in stream(client, max_tokens=9):
                    pass

        assert [(file, line) for _, file, line in heard(work)] == [(__file__, "for _ in stream(client, max_tokens=9):")]

    def test_where_it_falls_back_in_async_code(self, provider: FakeProvider) -> None:
        async def work() -> None:
            async with async_client(provider) as client:
                with budget(**FALLS_BACK):
                    for _ in range(2):
                        await ask_async(client)

        [(text, file, _)] = heard(lambda: asyncio.run(work()))
        assert f"calls go to {CHEAP}" in text
        assert file == inspect.getfile(ask_async)

    def test_where_a_tool_loops(self) -> None:
        def work() -> None:
            with budget(loop_guard=True, loop_guard_max_calls=1, warn_only=True):
                look_up("a")
                look_up("b")

        assert [(file, line) for _, file, line in heard(work)] == [(__file__, 'look_up("b")')]


class TestAsync:
    """What an async callback returns is run, and not dropped."""

    @pytest.mark.filterwarnings("error")
    def test_without_a_loop_in_a_thread_of_ours(self, client: openai.OpenAI) -> None:
        told: list[tuple[object, ...]] = []

        async def tell(*at: object) -> None:
            await asyncio.sleep(0)
            told.append(at)

        with budget(**{**FALLS_BACK, "warn_at": 0.01}, on_warn=tell, on_fallback=tell) as b:
            ask(client)
            spent = b.spent
            ask(client)
        assert deliveries.drain(30)
        assert sorted(told, key=len) == [(spent, 0.001), (spent, 0.001, CHEAP)]

    def test_no_lock_is_held_while_that_thread_starts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It starts when it runs: a finaliser that runs there first may want to know what is spent."""

        def listening() -> int:
            return sum(each.name == "shekel-listeners" for each in threading.enumerate())

        ours, before = deliveries._Thread(), listening()
        monkeypatch.setattr(deliveries, "_ours", ours)
        held: list[bool] = []
        start, both = threading.Thread.start, threading.Barrier(2)

        def starting(thread: threading.Thread) -> None:
            if thread.name == "shekel-listeners":
                held.append(locks.inside())
                both.wait(30)
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", starting)
        seen: list[int] = []

        async def tell(number: int) -> None:
            seen.append(number)

        work = [threading.Thread(target=lambda n=n: deliveries.deliver(tell(n), "told")) for n in range(2)]
        for each in work:
            each.start()
        for each in work:
            each.join(30)
        assert held == [False, False]
        assert ours.drain(30)
        assert sorted(seen) == [0, 1]
        until(lambda: listening() == before + 1)  # the other one is not needed

    async def test_in_the_loop_of_an_async_client(self, provider: FakeProvider) -> None:
        told: list[object] = []

        async def tell(*at: object) -> None:
            told.append(asyncio.get_running_loop())

        async with async_client(provider) as client, budget("4 calls", warn_at=0.25, on_warn=tell):
            await ask_async(client)
            while not told:
                await asyncio.sleep(0.001)
        assert told == [asyncio.get_running_loop()]

    def test_of_a_policy_too(self, client: openai.OpenAI) -> None:
        told: list[tuple[object, ...]] = []

        async def tell(*at: object) -> None:
            told.append(at)

        shekel.configure(policies=[per("user.id", "4 calls/hr", warn_at=0.25, on_warn=tell)])
        try:
            with scope(user_id="ada"):
                ask(client)
        finally:
            shekel.configure(policies=[])
        assert deliveries.drain(30)
        assert told == [({"user.id": "ada"}, 1, 4)]

    def test_what_it_raises_is_reported(self, client: openai.OpenAI) -> None:
        async def fails(*at: object) -> None:
            raise RuntimeError("no")

        before = faults.counted["called on_warn"]
        with budget("4 calls", warn_at=0.25, on_warn=fails):
            ask(client)
        assert deliveries.drain(30)
        assert faults.counted["called on_warn"] - before == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
class TestACallbackThatEndsTheProgram:
    @pytest.fixture(autouse=True)
    def tracked(self) -> Iterator[None]:
        shekel.configure(track=["user.id"])
        yield
        shekel.configure(track=None)

    def test_leaves_a_call_that_is_charged_once(
        self, provider: FakeProvider, client: openai.OpenAI, error: type[BaseException]
    ) -> None:
        def ends(*told: object) -> None:
            raise error

        heard: list[float] = []
        outer = budget("$1", warn_at=0.000001, on_warn=ends)
        inner = budget("$1", warn_at=0.000001, on_warn=lambda spent, limit: heard.append(spent))
        with outer, inner, scope(user_id="ada"), pytest.raises(error):
            ask(client)
        late.told()
        for b in (outer, inner):
            assert nano(b.spent) == nano(b.summary_data()["total_spent"]) == billed(provider)
            assert b.calls_used == b.summary_data()["by_model"][MODEL]["calls"] == 1
        assert len(heard) == 1  # who is told next is not forgotten
        assert shekel.usage(user_id="ada").by_model[MODEL].calls == 1

    def test_leaves_a_tool_that_is_counted_on_each_budget(self, error: type[BaseException]) -> None:
        def ends(*told: object) -> None:
            raise error

        with (
            budget("9 tool calls", warn_at=0.1, on_warn=ends) as outer,
            budget("9 tool calls") as inner,
            pytest.raises(error),
        ):
            look_up("rivers")
        assert outer.tool_calls_used == inner.tool_calls_used == 1
