"""`at_limit="pause"` and `on_exceed`: calls that wait for room, first in, first out, and questions that grant more."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import openai
import pytest

from holds.table import forget_what_was_learnt
from shekel import Allowance, Budget, BudgetExceededError, BudgetPausedError, Exceeded, budget, faults
from shekel.call import open_calls
from shekel.testing import FakeProvider, Reply

from .conftest import DEADLINE, MODEL, ask, ask_async, async_client, billed, everywhere, stream, until
from .test_at_limit import Told, told

__all__ = ["told"]


class Caller(threading.Thread):
    """A thread that makes one call, and what became of it."""

    def __init__(self, b: Budget, client: openai.OpenAI) -> None:
        super().__init__(daemon=True)
        self.work = b.bind(ask)
        self.client = client
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.work(self.client)
        except BaseException as error:
            self.error = error

    def done(self) -> BaseException | None:
        self.join(DEADLINE)
        assert not self.is_alive()
        return self.error


def nothing_left(b: Budget) -> None:
    assert len(b.queue) == 0
    assert all(each.held == 0 for each in b.limits())
    assert open_calls == {}


class TestPause:
    def test_it_waits_no_longer_than_max_wait(self, provider: FakeProvider, client: openai.OpenAI, told: Told) -> None:
        with budget("1 call", at_limit="pause", max_wait=0.15, name="slow") as b:
            ask(client)
            start = time.monotonic()
            with pytest.raises(BudgetPausedError) as error:
                ask(client)
            assert time.monotonic() - start >= 0.15
        assert (error.value.reason, error.value.exceeded_counter, error.value.spent) == ("paused", "llm_calls", 1)
        assert str(error.value) == (
            f"Budget 'slow' has 1 of 1 calls used: a call to {MODEL} waited for room, got none in time and was not "
            "sent."
        )
        assert len(provider.bill) == 1
        assert told.decisions("slow") == {"admitted": 1, "refused": 1}
        nothing_left(b)

    async def test_async_too_without_blocking_the_loop(self, provider: FakeProvider) -> None:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.005)
                ticks += 1

        async with async_client(provider) as client:
            async with budget("1 call", at_limit="pause", max_wait=0.3) as b:
                await ask_async(client)
                ticking = asyncio.create_task(tick())
                with pytest.raises(BudgetPausedError):
                    await ask_async(client)
                ticking.cancel()
        assert ticks >= 5
        nothing_left(b)

    def test_a_window_that_slides_lets_it_through_in_time(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        with budget("2 calls/1s", at_limit="pause", max_wait=DEADLINE) as b:
            start = time.monotonic()
            for _ in range(6):
                ask(client)
            took = time.monotonic() - start
        assert len(provider.bill) == 6
        assert took >= 2.0  # two, a second, two, a second, two
        nothing_left(b)

    def test_a_session_that_ends_while_idle(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        with budget("1 call/session idle=0.4s", at_limit="pause", max_wait=DEADLINE) as b:
            ask(client)
            ask(client)
        assert len(provider.bill) == 2
        nothing_left(b)

    WAKE: tuple[tuple[str, Callable[[Budget, Any], object]], ...] = (
        ("a settlement", lambda b, opened: list(opened)),
        ("a stream that is dropped", lambda b, opened: opened.close()),
        ("a higher limit", lambda b, opened: b.set_limit("$1")),
        ("an allowance", lambda b, opened: b.allow(b.claims(time.time())[0], Allowance(1.0, "ada"))),
    )

    @pytest.mark.parametrize(("what", "wake"), WAKE, ids=[what for what, _ in WAKE])
    def test_it_is_woken_by(
        self, provider: FakeProvider, client: openai.OpenAI, what: str, wake: Callable[[Budget, Any], object]
    ) -> None:
        provider.default = Reply(output_tokens=20, pace=0.001)
        b = budget("$0.00065", at_limit="pause", max_wait=DEADLINE)
        with b:
            opened = stream(client, max_tokens=1000, n=1)  # holds most of it in slices
            while b.remaining is not None and b.remaining > 0.00002:
                b.set_limit(b.held + b.spent + 0.00001)
            waiting = Caller(b, client)
            until(lambda: len(b.queue) == 1)
            assert waiting.is_alive()
            assert b.limits()[0].held == b.held  # who waits holds nothing
            wake(b, opened)
            assert waiting.done() is None or what in ("a settlement", "a stream that is dropped")
            opened.close()
        waiting.join()
        assert len(b.queue) == 0

    def test_it_is_woken_by_a_reset(self, client: openai.OpenAI) -> None:
        with everywhere(budget("1 call", at_limit="pause", max_wait=DEADLINE)) as b:
            ask(client)
            waiting = threading.Thread(target=ask, args=(client,), daemon=True)
            waiting.start()
            until(lambda: len(b.queue) == 1)
            b.reset()
            waiting.join(DEADLINE)
            assert not waiting.is_alive()
            assert b.calls_used == 1
        nothing_left(b)

    def test_a_stop_refuses_who_waits_at_once(self, client: openai.OpenAI) -> None:
        b = budget("1 call", at_limit="pause", max_wait=DEADLINE)
        b.run(ask, client)
        waiting = Caller(b, client)
        until(lambda: len(b.queue) == 1)
        b.stop()
        error = waiting.done()
        assert isinstance(error, BudgetExceededError)
        assert error.reason == "stopped"
        nothing_left(b)

    def test_first_in_first_out(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        b = budget("1 call", at_limit="pause", max_wait=DEADLINE)
        b.run(ask, client)
        order: list[int] = []
        callers = []
        for number in range(8):

            def work(number: int = number) -> None:
                ask(client)
                order.append(number)

            thread = threading.Thread(target=b.bind(work), daemon=True)
            thread.start()
            until(lambda number=number: len(b.queue) == number + 1)
            callers.append(thread)
        for more in range(8):
            b.set_limit(f"{more + 2} calls")
            until(lambda more=more: len(order) == more + 1)
        assert order == list(range(8))
        for each in callers:
            each.join()
        nothing_left(b)

    def test_who_comes_while_others_wait_stands_behind_them(
        self, provider: FakeProvider, client: openai.OpenAI
    ) -> None:
        b = budget("$0.00005", at_limit="pause", max_wait=DEADLINE)
        order: list[str] = []

        def work(name: str, most: int) -> None:
            ask(client, max_tokens=most)
            order.append(name)

        large = threading.Thread(target=b.bind(work), args=("large", 2000), daemon=True)
        large.start()
        until(lambda: len(b.queue) == 1)
        small = threading.Thread(target=b.bind(work), args=("small", 5), daemon=True)  # it would fit
        small.start()
        until(lambda: len(b.queue) == 2)
        assert order == []
        b.set_limit(1)
        large.join(DEADLINE)
        small.join(DEADLINE)
        assert sorted(order) == ["large", "small"]
        nothing_left(b)

    async def test_tasks_are_served_in_their_order_too(self, provider: FakeProvider) -> None:
        order: list[int] = []
        b = budget("1 call", at_limit="pause", max_wait=DEADLINE)
        async with async_client(provider) as client, b:
            await ask_async(client)

            async def work(number: int) -> None:
                await ask_async(client)
                order.append(number)

            tasks = []
            for number in range(5):
                tasks.append(asyncio.create_task(work(number)))
                while len(b.queue) <= number:
                    await asyncio.sleep(0)
            for more in range(5):
                b.set_limit(f"{more + 2} calls")
                await asyncio.wait_for(tasks[more], DEADLINE)
        assert order == list(range(5))
        nothing_left(b)

    async def test_a_cancelled_task_leaves_no_ticket_and_no_hold(self, provider: FakeProvider) -> None:
        b = budget("1 call", at_limit="pause", max_wait=DEADLINE)
        async with async_client(provider) as client, b:
            await ask_async(client)
            tasks = [asyncio.create_task(ask_async(client)) for _ in range(3)]
            while len(b.queue) < 3:
                await asyncio.sleep(0)
            tasks[0].cancel()
            tasks[1].cancel()
            await asyncio.wait(tasks[:2])
            assert all(each.cancelled() for each in tasks[:2])
            assert len(b.queue) == 1
            b.set_limit("2 calls")
            await asyncio.wait_for(tasks[2], DEADLINE)
        assert len(provider.bill) == 2
        nothing_left(b)

    def test_a_last_call_does_not_stand_behind_those_that_wait_for_the_rest(
        self, provider: FakeProvider, client: openai.OpenAI
    ) -> None:
        b = budget("$0.001", last_call=0.0005, at_limit="pause", max_wait=DEADLINE)
        large = threading.Thread(target=b.bind(ask), args=(client,), kwargs={"max_tokens": 2000}, daemon=True)
        large.start()
        until(lambda: len(b.queue) == 1)
        start = time.monotonic()
        with b, b.last_call():
            ask(client)
        assert time.monotonic() - start < DEADLINE / 2
        b.set_limit(1)
        large.join(DEADLINE)
        assert not large.is_alive()
        nothing_left(b)

    def test_a_waiting_call_holds_nothing_on_budgets_around_it(
        self, provider: FakeProvider, client: openai.OpenAI
    ) -> None:
        inner = budget("1 call", at_limit="pause", max_wait=DEADLINE)
        with budget("2 calls") as outer:
            inner.run(ask, client)
            waiting = Caller(inner, client)
            until(lambda: len(inner.queue) == 1)
            assert outer.limits()[0].held == 0
            ask(client)  # takes the last call of the outer one
            inner.set_limit("5 calls")
            error = waiting.done()
        assert isinstance(error, BudgetExceededError)
        assert not isinstance(error, BudgetPausedError)
        assert error.limit == 2
        nothing_left(inner)

    def test_a_limit_that_does_not_wait_refuses_at_once(self, client: openai.OpenAI) -> None:
        with budget("5 calls", at_limit="pause", max_wait=DEADLINE), budget("1 call"):
            ask(client)
            start = time.monotonic()
            with pytest.raises(BudgetExceededError) as error:
                ask(client)
        assert time.monotonic() - start < DEADLINE / 2
        assert not isinstance(error.value, BudgetPausedError)

    def test_the_wait_is_no_part_of_the_duration_of_the_call(self, client: openai.OpenAI, told: Told) -> None:
        with budget("1 call/1s", at_limit="pause", max_wait=DEADLINE):
            ask(client)
            ask(client)
        spans = told.exporter.get_finished_spans()
        assert len(spans) == 2
        data: Any = told.reader.get_metrics_data()
        [duration] = [
            point
            for resource in data.resource_metrics
            for each in resource.scope_metrics
            for metric in each.metrics
            if metric.name == "gen_ai.client.operation.duration"
            for point in metric.data.data_points
        ]
        assert duration.count == 2
        assert duration.max < 0.9

    def test_many_threads_share_what_comes_free(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        b = budget("8 calls/1s", at_limit="pause", max_wait=DEADLINE)
        callers = [Caller(b, client) for _ in range(24)]
        assert [each.done() for each in callers] == [None] * 24
        assert len(provider.bill) == 24
        nothing_left(b)

    @pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "x", True, None, 1e9])
    def test_a_max_wait_that_makes_no_sense_is_refused_at_once(self, value: Any) -> None:
        with pytest.raises(ValueError, match="max_wait must be seconds"):
            Budget(1, at_limit="pause", max_wait=value)


class TestAsking:
    def test_the_question_says_what_is_lacking_and_true_grants_it(
        self, provider: FakeProvider, client: openai.OpenAI
    ) -> None:
        asked: list[Exceeded] = []

        def yes(question: Exceeded) -> bool:
            asked.append(question)
            return True

        forget_what_was_learnt()  # by shorter prompts of other tests
        with budget("$0.00001", on_exceed=yes, name="b") as b:
            ask(client)
        [question] = asked
        assert question.budget is b
        assert (question.unit, question.limit, question.spent, question.held, question.model) == (
            "usd", 0.00001, 0, 0, MODEL,
        )  # fmt: skip
        assert question.lacking == pytest.approx(question.needed - 0.00001)
        [allowance] = b.allowances
        assert allowance.amount == question.lacking
        assert b.limit == pytest.approx(question.needed)
        assert billed(provider) <= question.needed * 1e9

    @pytest.mark.parametrize("count", [1, 2, 3, 7, 50])
    def test_what_is_lacking_is_enough_to_the_nano_dollar(self, client: openai.OpenAI, count: int) -> None:
        with budget(0.000000001 * count, on_exceed=lambda question: True) as b:
            ask(client, max_tokens=50 + count)
        assert len(b.allowances) == 1

    def test_a_number_is_an_amount_and_an_allowance_says_who_and_why(self, client: openai.OpenAI, told: Told) -> None:
        before = time.time()
        answers: list[Any] = [2, Allowance(1, by="grace", why="demo day")]
        with budget("1 call", on_exceed=lambda question: answers.pop(0)) as b:
            for _ in range(4):
                ask(client)
            ask(client) if answers else None
        assert [(each.amount, each.by, each.why) for each in b.allowances] == [(2, "", ""), (1, "grace", "demo day")]
        assert all(before <= (each.at or 0) <= time.time() for each in b.allowances)
        assert b.limits()[0].limit == 4
        granted = [attributes for name, attributes in told.events if name == "shekel.budget.allowance"]
        assert [each["shekel.allowance.by"] for each in granted] == ["", "grace"]
        assert granted[1]["shekel.allowance.why"] == "demo day"

    @pytest.mark.parametrize(
        "answer", [None, False, 0, -5, float("nan"), "much", "5", object(), Allowance(-1), Allowance("5")]
    )
    def test_anything_else_is_a_no(self, provider: FakeProvider, client: openai.OpenAI, answer: Any) -> None:
        with budget("$0.00001", on_exceed=lambda question: answer) as b, pytest.raises(BudgetExceededError):
            ask(client)
        assert (provider.requests, b.allowances, b.limit) == ([], [], 0.00001)

    @pytest.mark.parametrize("answer", ["much", "5", Allowance("5")])
    def test_a_text_is_said_to_be_no_amount_and_nothing_else_fails(self, client: openai.OpenAI, answer: Any) -> None:
        before = faults.counted.copy()
        with budget("$0.00001", on_exceed=lambda question: answer), pytest.raises(BudgetExceededError):
            ask(client)
        assert faults.counted - before == {"read what on_exceed granted": 1}

    def test_too_little_is_a_refusal_and_is_asked_once_per_call(self, client: openai.OpenAI) -> None:
        asked: list[Exceeded] = []

        def little(question: Exceeded) -> float:
            asked.append(question)
            return 0.000001

        with budget("$0.000001", on_exceed=little) as b:
            for _ in range(2):
                with pytest.raises(BudgetExceededError):
                    ask(client)
        assert len(asked) == 2
        assert b.limit == pytest.approx(0.000003)

    def test_an_error_of_it_is_a_no(self, client: openai.OpenAI) -> None:
        def broken(question: Exceeded) -> None:
            raise RuntimeError("no")

        with budget("$0.00001", on_exceed=broken), pytest.raises(BudgetExceededError):
            ask(client)

    async def test_an_async_client_awaits_it(self, provider: FakeProvider) -> None:
        async def person(question: Exceeded) -> Allowance:
            await asyncio.sleep(0.01)
            return Allowance(question.lacking, by="grace")

        async with async_client(provider) as client, budget("$0.00001", on_exceed=person) as b:
            await ask_async(client)
        assert [each.by for each in b.allowances] == ["grace"]

    def test_a_sync_client_cannot_and_says_so(
        self, client: openai.OpenAI, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from shekel import faults

        monkeypatch.setattr(faults, "_said", set())

        async def person(question: Exceeded) -> bool:
            return True

        with budget("$0.00001", on_exceed=person) as b, pytest.raises(BudgetExceededError):
            ask(client)
        assert b.allowances == []
        assert "on_exceed is async, and the call is sync" in caplog.text

    def test_it_may_make_calls_of_its_own_and_read_the_budget(self, client: openai.OpenAI) -> None:
        """It runs outside any lock; a call of its own, in a budget that is used up, is refused without a question."""
        deep: list[int] = []

        def rule(question: Exceeded) -> bool:
            assert question.budget.spent == 0
            deep.append(1)
            with pytest.raises(BudgetExceededError):
                ask(client)
            return True

        with budget("$0.00001", on_exceed=rule):
            ask(client)
        assert len(deep) == 1

    def test_a_call_that_it_makes_itself_does_not_wait_for_the_one_that_asks(
        self, provider: FakeProvider, client: openai.OpenAI
    ) -> None:
        b = budget("1 call", at_limit="pause", max_wait=DEADLINE)
        refused: list[str] = []

        def judge(question: Exceeded) -> bool:
            with pytest.raises(BudgetExceededError) as caught:
                ask(client)
            refused.append(caught.value.reason)
            return True

        b.run(ask, client)
        first = Caller(b, client)
        until(lambda: len(b.queue) == 1)
        b.on_exceed = judge
        start = time.monotonic()
        second = Caller(b, client)
        until(lambda: len(b.queue) == 2)
        b.set_limit("2 calls")  # the first goes; the second asks where it stands, before all that come
        assert (first.done(), second.done()) == (None, None)
        assert time.monotonic() - start < DEADLINE / 2
        assert refused == ["exceeded"]
        nothing_left(b)

    def test_it_is_asked_before_it_waits(self, client: openai.OpenAI) -> None:
        with budget("1 call", at_limit="pause", max_wait=DEADLINE, on_exceed=lambda question: 1):
            start = time.monotonic()
            ask(client)
            ask(client)
        assert time.monotonic() - start < DEADLINE / 2

    def test_an_allowance_is_for_its_window(self, client: openai.OpenAI) -> None:
        b = budget("1 call/day", on_exceed=lambda question: 2)
        with b:
            ask(client)
            ask(client)
        assert b.limits()[0].limit == 3
        tomorrow = b._slots[-1].amount(time.time() + 86_400)
        assert tomorrow == 1
        b.reset()
        assert b.limits()[0].limit == 1
