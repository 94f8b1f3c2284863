"""Where a block is in force: in every context that has it, after the block too, and nowhere else once it was left."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator

import openai
import pytest
from openai._base_client import SyncAPIClient
from opentelemetry import context as otel

from shekel import Budget, BudgetExceededError, budget, deliveries, late
from shekel.budgets import wiring
from shekel.runtime import the_runtime
from shekel.testing import FakeProvider, Reply

from .conftest import DEADLINE, ask, ask_async, async_client, billed, everywhere, nano, stream

UNTOUCHED = SyncAPIClient.request
Settle = Callable[[], None]


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


class TestOutlivesTheBlock:
    def test_a_task_that_was_started_inside(self, provider: FakeProvider, nothing_in_force: Settle) -> None:
        b = budget(max_llm_calls=2)

        async def work() -> list[str]:
            async with async_client(provider) as client:

                async def agent() -> list[str]:
                    told = []
                    for _ in range(4):
                        try:
                            await ask_async(client)
                            told.append("sent")
                        except BudgetExceededError:
                            told.append("refused")
                    return told

                async with b:
                    task = asyncio.create_task(agent())
                return await task

        assert asyncio.run(work()) == ["sent", "sent", "refused", "refused"]
        assert b.calls_used == len(provider.bill) == 2
        assert nano(b.spent) == billed(provider)
        nothing_in_force()
        assert is_untouched()

    def test_a_context_that_was_copied_inside(self, client: openai.OpenAI, nothing_in_force: Settle) -> None:
        b = budget(max_llm_calls=1)
        with b:
            copied = contextvars.copy_context()
        assert copied.run(tries, client, 3) == ["sent", "refused", "refused"]
        assert tries(client, 1) == ["sent"]  # outside nothing is in force
        assert b.calls_used == 1
        del copied
        nothing_in_force()
        assert is_untouched()

    def test_a_thread_that_an_instrumentation_gave_the_context(
        self, client: openai.OpenAI, nothing_in_force: Settle
    ) -> None:
        b = budget(max_llm_calls=1)
        left = threading.Event()
        told: list[str] = []

        def work(here: otel.Context) -> None:
            otel.attach(here)
            del here
            left.wait()
            told.extend(tries(client, 2))

        with b:
            thread = threading.Thread(target=work, args=(otel.get_current(),))
            thread.start()
        left.set()
        thread.join()
        assert told == ["sent", "refused"]
        assert b.calls_used == 1
        del thread
        nothing_in_force()
        assert is_untouched()

    def test_a_block_inside_a_task_that_outlives_the_one_around(
        self, provider: FakeProvider, nothing_in_force: Settle
    ) -> None:
        outer, inner = budget(max_llm_calls=3), budget(max_llm_calls=2)

        async def work() -> int:
            async with async_client(provider) as client:

                async def agent() -> int:
                    sent = 0
                    for block in (inner, budget(), budget()):
                        with block:
                            for _ in range(4):
                                try:
                                    await ask_async(client)
                                    sent += 1
                                except BudgetExceededError:
                                    pass
                    return sent

                async with outer:
                    task = asyncio.create_task(agent())
                return await task

        assert asyncio.run(work()) == 3
        assert (outer.calls_used, inner.calls_used) == (3, 2)
        nothing_in_force()
        assert is_untouched()

    def test_where_no_thread_can_be_started(self, monkeypatch: pytest.MonkeyPatch, nothing_in_force: Settle) -> None:
        """As when Python ends: whoever asks a budget next does what waits."""

        def start(thread: threading.Thread) -> None:
            raise RuntimeError("can't create new thread at interpreter shutdown")

        b = budget(max_usd=1)
        with monkeypatch.context() as here:
            here.setattr(late, "_thread", None)
            here.setattr(threading.Thread, "start", start)
            with b:
                copied = contextvars.copy_context()
            assert not is_untouched()
            del copied
            assert b.spent == 0
            assert is_untouched()


class TestAtBadMoments:
    def test_a_finaliser_that_asks_while_a_block_is_entered(self, nothing_in_force: Settle) -> None:
        """Another thread waits for the same lock then, to let go of what nobody needs."""
        b = budget()
        with budget():
            kept = [contextvars.copy_context()]
        asked = []

        def entering() -> None:
            with the_runtime().lock:
                kept.clear()
                time.sleep(0.1)
                asked.append(b.spent)

        thread = threading.Thread(target=entering, daemon=True)
        thread.start()
        thread.join(DEADLINE)
        assert asked == [0]
        nothing_in_force()

    def test_an_interrupt_while_a_block_is_entered_takes_nothing_from_others(
        self, client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch, nothing_in_force: Settle
    ) -> None:
        def interrupt() -> None:
            raise KeyboardInterrupt

        with everywhere(budget(max_llm_calls=1)):
            for activated in ([interrupt], [*wiring.activated, interrupt]):
                with monkeypatch.context() as here, pytest.raises(KeyboardInterrupt):
                    here.setattr(wiring, "activated", activated)
                    with budget():
                        pass
            late.flush()
            with budget():
                pass
            assert tries(client, 2) == ["sent", "refused"]
        nothing_in_force()
        assert is_untouched()

    def test_one_thread_does_what_is_late_however_many_start_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def workers() -> int:
            return sum(each.name == "shekel-late" for each in threading.enumerate())

        ended = threading.Event()
        monkeypatch.setattr(late, "_run", ended.wait)  # they would share the work of all later tests
        before = workers()
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            for _ in range(20):
                monkeypatch.setattr(late, "_thread", None)
                threads = [threading.Thread(target=late.start) for _ in range(8)]
                for each in threads:
                    each.start()
                for each in threads:
                    each.join()
        finally:
            sys.setswitchinterval(interval)
            found = workers()
            ended.set()
        assert found == before + 20


def test_budgets_that_nobody_asks_anything_leave_no_meters(
    client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(late, "_thread", None)
    late.flush()
    before = len(the_runtime().ledger)
    for _ in range(200):
        with budget(max_usd=1):
            ask(client)
    assert len(the_runtime().ledger) - before < 100


def test_a_call_that_nobody_asks_about_is_sent_as_it_is(
    provider: FakeProvider, client: openai.OpenAI, nothing_in_force: Settle
) -> None:
    """A stream of chat is asked for its usage only where somebody is charged for it, or told of it."""
    with budget():
        copied = contextvars.copy_context()
        inside = len(list(stream(client)))
    assert not is_untouched()
    assert len(list(stream(client))) == inside
    copied.run(lambda: list(stream(client)))
    assert ["stream_options" in each.body for each in provider.requests] == [True, False, True]


class TestNothingIsKept:
    """What is left of a call keeps no context, and with it no block: nothing waits for the garbage collector."""

    @pytest.fixture(autouse=True)
    def no_collection(self, nothing_in_force: Settle) -> Iterator[None]:
        gc.disable()
        yield
        gc.enable()

    def test_by_an_answer(self, client: openai.OpenAI) -> None:
        with budget():
            answer = ask(client)
        assert is_untouched()
        assert answer.id

    def test_by_a_stream(self, client: openai.OpenAI) -> None:
        with budget():
            chunks = stream(client)
        assert is_untouched()
        assert list(chunks)
        assert is_untouched()

    def test_by_a_refusal(self, client: openai.OpenAI) -> None:
        kept = []
        with budget(max_llm_calls=1):
            ask(client)
            try:
                ask(client)
            except BudgetExceededError as error:
                kept.append(error)
        assert is_untouched()
        assert kept[0].__traceback__ is not None

    def test_by_an_error_of_the_provider(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        kept = []
        provider.reply(Reply(status=400))
        with budget():
            try:
                ask(client)
            except openai.BadRequestError as error:
                kept.append(error)
        assert is_untouched()
        assert kept

    def test_by_a_task_that_has_ended(self, provider: FakeProvider) -> None:
        async def work() -> None:
            async with async_client(provider) as client, budget():
                await asyncio.gather(*(ask_async(client) for _ in range(3)))

        asyncio.run(work())
        late.flush()
        assert is_untouched()


@pytest.mark.parametrize("needs", ["a stream", "an async callback"])
def test_a_thread_of_ours_keeps_no_block(
    client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch, nothing_in_force: Settle, needs: str
) -> None:
    """It never ends, and an instrumentation of threads gives it the context in which it was started."""
    start, run = threading.Thread.start, threading.Thread.run
    given: dict[threading.Thread, otel.Context] = {}

    def started(thread: threading.Thread) -> None:
        given[thread] = otel.get_current()
        start(thread)

    def runs(thread: threading.Thread) -> None:
        otel.attach(given.pop(thread))
        run(thread)

    monkeypatch.setattr(late, "_thread", None)
    monkeypatch.setattr(deliveries, "_ours", deliveries._Thread())
    monkeypatch.setattr(threading.Thread, "start", started)
    monkeypatch.setattr(threading.Thread, "run", runs)
    with budget():
        if needs == "a stream":
            list(stream(client))
        else:
            deliveries.deliver(asyncio.sleep(0), "called on_warn")
            deliveries.drain()
    nothing_in_force()
    assert is_untouched()


class TestAfterTheBlock:
    @pytest.mark.usefixtures("nothing_in_force")
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

    def test_the_one_that_stays_is_kept(self, client: openai.OpenAI, nothing_in_force: Settle) -> None:
        short, long = budget(max_llm_calls=9), budget(max_llm_calls=2)
        first, second = self.agent(short, client, 1), self.agent(long, client, 6)
        assert next(first) == "sent"
        assert next(second) == "sent"
        assert list(first) == []
        assert list(second) == ["sent", *["refused"] * 4]
        assert long.calls_used == 2
        nothing_in_force()
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
