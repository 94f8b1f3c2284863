"""Control while in use: stop and resume, limits that change, resets; nesting; forked processes."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from typing import Any

import anthropic
import openai
import pytest

import shekel
from shekel import BudgetExceededError, budget
from shekel.call import open_calls
from shekel.runtime import the_runtime
from shekel.testing import FakeProvider, Reply

from .conftest import (
    CLAUDE,
    DEADLINE,
    HELLO,
    MODEL,
    ask,
    async_claude,
    async_client,
    billed,
    everywhere,
    nano,
    stream,
    until,
)

SLOW = Reply(output_tokens=20_000, pace=0.001)


class TestStop:
    def test_new_calls_are_refused_at_once_until_resume(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        with budget(name="switch") as b:
            ask(client)
            b.stop()
            assert b.stopped
            with pytest.raises(BudgetExceededError) as error:
                ask(client)
            b.resume()
            ask(client)
        assert (error.value.reason, error.value.budget) == ("stopped", "switch")
        assert str(error.value) == (
            f"Budget 'switch' is stopped: a call to {MODEL} was not sent. Its resume() lets calls pass again."
        )
        assert error.value.public_message == "This service is switched off for now. Please try again later."
        assert (len(provider.bill), b.calls_used) == (2, 2)

    def test_an_open_stream_is_cut_before_its_next_chunk(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        provider.default = SLOW
        with budget("$5") as b:
            opened = stream(client)
            for _ in range(50):
                next(opened)
            b.stop()
            with pytest.raises(BudgetExceededError) as cut:
                next(opened)
        assert cut.value.reason == "stopped"
        assert "it is stopped, so the stream from gpt-4o-mini was cut" in str(cut.value)
        provider.wait_idle()
        [attempt] = provider.bill
        assert attempt.outcome == "disconnected"
        assert b.held == 0
        assert b.calls_used == 1
        assert open_calls == {}

    def test_from_another_thread_all_streams_of_both_sdks(
        self, provider: FakeProvider, client: openai.OpenAI, claude: anthropic.Anthropic
    ) -> None:
        provider.default = SLOW
        b = budget("$5")
        cut: list[str] = []
        reading = threading.Barrier(5)

        def read(open_one: Any) -> None:
            try:
                opened = open_one()
                next(iter(opened))
                reading.wait()
                for _ in opened:
                    pass
            except BudgetExceededError as error:
                cut.append(error.reason)

        ways = [
            lambda: stream(client),
            lambda: client.responses.create(model=MODEL, input="Hi", stream=True),
            lambda: claude.messages.create(model=CLAUDE, max_tokens=20_000, messages=HELLO, stream=True),
            lambda: stream(client, max_tokens=300),
        ]
        threads = [threading.Thread(target=b.bind(read), args=(way,), daemon=True) for way in ways]
        for each in threads:
            each.start()
        reading.wait(DEADLINE)
        b.stop()
        for each in threads:
            each.join(DEADLINE)
        assert cut == ["stopped"] * 4
        assert b.held == 0

    async def test_async_streams_too(self, provider: FakeProvider) -> None:
        provider.default = SLOW
        async with async_client(provider) as client, async_claude(provider) as claude, budget("$5") as b:
            chat: Any = await client.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
            async with claude.messages.stream(model=CLAUDE, max_tokens=20_000, messages=HELLO) as messages:
                await anext(chat)
                await anext(aiter(messages))
                b.stop()
                for opened in (chat, messages):
                    with pytest.raises(BudgetExceededError) as cut:
                        async for _ in opened:
                            pass
                    assert cut.value.reason == "stopped"
        assert b.held == 0

    def test_a_plain_call_on_its_way_is_unharmed(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        provider.default = Reply(output_tokens=30, pace=0.01)
        b = budget("$5")
        answers: list[Any] = []
        thread = threading.Thread(target=b.bind(lambda: answers.append(ask(client))), daemon=True)
        thread.start()
        until(lambda: provider.requests)
        b.stop()
        thread.join(DEADLINE)
        assert answers[0].usage.completion_tokens == 30
        assert nano(b.spent) == billed(provider)

    def test_the_parent_stops_the_children_and_not_the_other_way_round(self, client: openai.OpenAI) -> None:
        with budget(name="parent") as parent, budget(name="child") as child:
            parent.stop()
            with pytest.raises(BudgetExceededError, match="'parent' is stopped"):
                ask(client)
            parent.resume()
            child.stop()
            with pytest.raises(BudgetExceededError, match="'child' is stopped"):
                ask(client)
        with parent:
            ask(client)

    def test_a_shadow_and_a_warning_can_be_stopped_too(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        for at_limit in ("shadow", "warn", "pause", "finish"):
            with budget("0.5", at_limit=at_limit) as b:
                b.stop()
                with pytest.raises(BudgetExceededError, match="is stopped"):
                    ask(client)
        provider.default = SLOW
        with budget("$0.00000001", at_limit="shadow") as b:
            opened = stream(client)
            next(opened)
            b.stop()
            with pytest.raises(BudgetExceededError):
                list(opened)

    def test_stopped_twice_is_stopped_once(self, client: openai.OpenAI) -> None:
        with budget() as b:
            b.stop()
            b.stop()
            b.resume()
            b.resume()
            ask(client)


class TestLimitsThatChange:
    def test_up_and_down_while_in_use(self, client: openai.OpenAI) -> None:
        with budget("1 call + $5/day") as b:
            ask(client)
            b.set_limit("2 calls")
            ask(client)
            b.set_limit("1 call")
            with pytest.raises(BudgetExceededError) as error:
                ask(client)
        assert (error.value.spent, error.value.limit) == (2, 1)
        assert b.limits()[1].remaining == 0

    def test_an_open_stream_sees_it(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        provider.default = SLOW
        with budget("$5") as b:
            opened = stream(client)
            for _ in range(300):
                next(opened)
            b.set_limit(0.00001)
            with pytest.raises(BudgetExceededError) as cut:
                list(opened)
        assert cut.value.reason == "cut"
        assert cut.value.limit == 0.00001
        assert b.held == 0

    def test_an_open_stream_sees_the_cap_of_its_part(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        provider.default = SLOW
        with budget("$5").node("step", 1) as b, budget(name="step"):
            opened = stream(client)
            for _ in range(300):
                next(opened)
            b.node("step", 0.00001)
            with pytest.raises(BudgetExceededError, match="step") as cut:
                list(opened)
        assert cut.value.reason == "cut"
        assert b.held == 0

    def test_of_a_model(self, client: openai.OpenAI) -> None:
        with budget("1 call on gpt-4o") as b:
            ask(client, model="gpt-4o")
            b.set_limit("2 calls", model="gpt-4o")
            ask(client, model="gpt-4o")
            with pytest.raises(BudgetExceededError):
                ask(client, model="gpt-4o")

    def test_one_that_the_budget_has_not_is_refused_and_lists_those_it_has(self) -> None:
        b = budget("$5/day + 3 calls")
        with pytest.raises(ValueError, match=r"no limit like '100 calls/hr' to change; it has '\$5/day', '3 calls'"):
            b.set_limit("$9/day + 100 calls/hr")
        assert b.limit == 5
        for bad in ("$5/dya", 0, -1, float("nan"), "", True, None):
            with pytest.raises(ValueError, match=r"."):
                b.set_limit(bad)  # type: ignore[arg-type]

    def test_one_of_which_the_last_call_leaves_nothing_is_refused_and_nothing_is_changed(self) -> None:
        b = budget("$1 + 3 calls", last_call=0.5)
        for bad in (0.4, 0.5, "$0.4", "9 calls + $0.4"):
            with pytest.raises(
                ValueError, match=r"^limit must be more than '\$0\.50', which last_call keeps .*'?\$0\.[45]"
            ):
                b.set_limit(bad)
        assert [each.limit for each in b.limits()] == [1, 3]
        b.set_limit(0.6)
        assert b.limit == 0.6

    def test_two_for_the_same_are_refused(self) -> None:
        b = budget("1 call on o3")
        with pytest.raises(ValueError, match="limit contradicts itself"):
            b.set_limit("2 calls on o3 + 3 calls on o1", model="o3")
        assert b.limits()[0].limit == 1

    def test_a_budget_without_a_limit_can_be_given_one(self, client: openai.OpenAI) -> None:
        with budget() as b:
            ask(client)
            b.set_limit(b.spent)
            with pytest.raises(BudgetExceededError):
                ask(client)


class TestPeriods:
    def test_a_stream_of_yesterday_is_not_in_what_today_has_spent(
        self, provider: FakeProvider, client: openai.OpenAI, before_midnight: Callable[[float], None]
    ) -> None:
        provider.default = Reply(output_tokens=200)
        with budget("$1/day") as b:
            opened = stream(client)
            for _ in range(50):
                next(opened)
            assert b.spent > 0
            before_midnight(3600)
            assert b.spent == 0
            list(opened)
            assert b.spent == 0
            assert b.summary_data()["total_spent"] > 0

    @pytest.mark.parametrize("changed", [3_600, 0], ids=["before", "after"])
    def test_a_stream_of_yesterday_sees_a_limit_that_is_changed(
        self,
        provider: FakeProvider,
        client: openai.OpenAI,
        before_midnight: Callable[[float], None],
        changed: float,
    ) -> None:
        """Whether it is changed before midnight or after: it is the limit of each day, yesterday too."""
        provider.default = Reply(output_tokens=600)
        with budget("100 output tokens/day + $1/day") as b:
            opened = stream(client)
            next(opened)
            if not changed:
                before_midnight(3_600)
            b.set_limit("1k output tokens/day")
            before_midnight(3_600)
            assert len(list(opened)) > 600
            assert b.held == 0


class TestNesting:
    def test_one_admission_over_the_whole_chain(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        parent = budget("10 calls", name="parent")
        start = threading.Barrier(24)

        def work() -> None:
            with budget("1 call"), parent, budget():
                start.wait()
                for _ in range(2):
                    try:
                        ask(client)
                    except BudgetExceededError:
                        return

        threads = [threading.Thread(target=work) for _ in range(24)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert len(provider.bill) == 10
        assert parent.limits()[0].held == 0

    def test_reentered_inside_itself_and_inside_a_child_it_counts_once(self, client: openai.OpenAI) -> None:
        with budget("5 calls") as b, budget() as child, b, child:
            ask(client)
        assert (b.calls_used, child.calls_used, b.limits()[0].used) == (1, 1, 1)


class TestReset:
    def test_open_calls_keep_their_holds(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        b = budget("$1 + 5 calls")
        with b:
            ask(client)
            opened = stream(client, max_tokens=100)
        b.reset()
        assert b.limits()[1].used == 0
        assert b.limits()[1].held == 1
        assert b.held > 0
        list(opened)
        assert [each.held for each in b.limits()] == [0, 0]
        assert b.limits()[1].used == 1
        assert nano(b.spent) == provider.bill[1].cost


FORKING = """
import os, sys, logging
logging.basicConfig(format="%(message)s", stream=sys.stdout)
import openai
from shekel import budget, BudgetExceededError
client = openai.OpenAI(max_retries=0)
def ask():
    with openai.OpenAI(max_retries=0) as client:
        client.chat.completions.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": "Hello"}], max_tokens=20)
b = budget("3 calls + $5", name="workers")
with b:
    ask()
    opened = client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": "Hello"}], max_tokens=20, stream=True)
"""


class TestForks:
    """The memory ledger in pre-forked workers, as those of gunicorn."""

    def run(self, provider: FakeProvider, code: str) -> str:
        environment = {**os.environ, "OPENAI_BASE_URL": provider.openai_url, "OPENAI_API_KEY": "test"}
        code = FORKING + textwrap.dedent(code)
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def test_each_worker_warns_once_and_has_a_limit_of_its_own(self, provider: FakeProvider) -> None:
        out = self.run(
            provider,
            """
            sys.stdout.flush()
            workers = []
            for number in range(3):
                child = os.fork()
                if child == 0:
                    assert b.held == 0 and b.limits()[1].held == 0, "the parent's holds are not the child's"
                    assert b.limits()[1].used == 1
                    with b:
                        ask()
                        ask()
                        try:
                            ask()
                        except BudgetExceededError as error:
                            os.write(1, b"refused %d\\n" % error.spent)  # in one piece
                    os._exit(0)
                workers.append(child)
            for each in workers:
                assert os.waitpid(each, 0)[1] == 0
            assert b.limits()[1].held == 1, "the parent's own holds are still there"
            list(opened)
            with b:
                ask()
            print("parent", b.calls_used)
            """,
        )
        assert out.count("This process was forked") == 3
        assert out.count("refused 3") == 3
        assert out.endswith("parent 3\n")
        assert len(provider.bill) == 2 + 3 * 2 + 1

    def test_a_fork_in_the_middle_of_the_work_of_other_threads(self, provider: FakeProvider) -> None:
        out = self.run(
            provider,
            """
            import threading
            stop = threading.Event()
            def busy():
                while not stop.is_set():
                    b.spent, b.limits(), b.exposure, budget("$1").run(b.summary_data)
            threads = [threading.Thread(target=busy, daemon=True) for _ in range(4)]
            for each in threads: each.start()
            for number in range(10):
                child = os.fork()
                if child == 0:
                    with budget("$1"):
                        ask()
                    os._exit(0)
                assert os.waitpid(child, 0)[1] == 0
            stop.set()
            for each in threads: each.join()
            list(opened)
            print("done")
            """,
        )
        assert out.endswith("done\n")

    def test_who_waits_in_the_parent_stands_in_no_queue_of_the_child(self, provider: FakeProvider) -> None:
        out = self.run(
            provider,
            """
            import threading, time
            list(opened)
            b = budget("1 call", at_limit="pause", max_wait=30)
            b.run(ask)
            waiting = [threading.Thread(target=b.bind(ask), daemon=True) for _ in range(3)]
            for each in waiting: each.start()
            while len(b.queue) < 3: time.sleep(0.01)
            child = os.fork()
            if child == 0:
                assert len(b.queue) == 0
                b.set_limit("100 calls")
                start = time.monotonic()
                b.run(ask)
                b.run(ask)
                assert time.monotonic() - start < 15
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            assert len(b.queue) == 3, "the parent's own stay"
            b.set_limit("4 calls")
            for each in waiting: each.join(15)
            print("parent", b.calls_used)
            """,
        )
        assert out.endswith("parent 4\n")

    def test_a_fork_while_other_threads_stand_in_queues_and_leave_them(self, provider: FakeProvider) -> None:
        out = self.run(
            provider,
            """
            import threading
            list(opened)
            b = budget("1 call", at_limit="pause")
            stop = threading.Event()
            def busy():
                while not stop.is_set():
                    b.queue.leave(b.queue.join(lambda: None))
            threads = [threading.Thread(target=busy, daemon=True) for _ in range(4)]
            for each in threads: each.start()
            for number in range(10):
                child = os.fork()
                if child == 0:
                    with b:
                        ask()
                    os._exit(0)
                assert os.waitpid(child, 0)[1] == 0
            stop.set()
            for each in threads: each.join()
            print("done")
            """,
        )
        assert out.endswith("done\n")

    def test_without_a_limit_nobody_is_warned(self, provider: FakeProvider) -> None:
        out = self.run(
            provider,
            """
            list(opened)
            sys.stdout.flush()
            child = os.fork()
            if child == 0:
                with budget(name="counts"):
                    ask()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            """,
        )
        assert "forked" not in out

    @pytest.mark.parametrize("method", ["spawn", "forkserver"])
    def test_processes_that_are_not_forked_know_nothing(self, method: str, provider: FakeProvider) -> None:
        process = multiprocessing.get_context(method).Process(target=_elsewhere, args=(provider.openai_url,))
        with budget("1 call", name="here"):
            process.start()
            process.join(DEADLINE * 4)
        assert process.exitcode == 0
        assert len(provider.bill) == 2


def _elsewhere(url: str) -> None:
    with openai.OpenAI(base_url=url, api_key="t", max_retries=0) as client:
        b = budget("2 calls")
        with b:
            ask(client)
            ask(client)
        assert b.calls_used == 2


class TestRaces:
    def test_stop_and_resume_while_calls_and_streams_run(self, provider: FakeProvider, client: openai.OpenAI) -> None:
        provider.default = Reply(output_tokens=30)
        b = budget("$5 + 100k calls")
        ended = threading.Event()
        faults: list[BaseException] = []

        def work() -> None:
            while not ended.is_set():
                try:
                    ask(client, max_tokens=30)
                    list(stream(client, max_tokens=30))
                except BudgetExceededError as error:
                    if error.reason != "stopped":
                        faults.append(error)

        threads = [threading.Thread(target=b.bind(work)) for _ in range(6)]
        for each in threads:
            each.start()
        until(lambda: b.calls_used > 5)
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline:
            b.stop()
            b.set_limit(4)
            b.resume()
            b.set_limit(5)
        b.resume()
        ended.set()
        for each in threads:
            each.join(DEADLINE)
        assert faults == []
        assert [each.held for each in b.limits()] == [0, 0]
        assert open_calls == {}

    async def test_configure_while_tasks_run(self, provider: FakeProvider) -> None:
        async with async_client(provider) as client:
            with everywhere(budget(name="first")) as first:
                opened: Any = await client.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
                await anext(opened)
                shekel.configure(budget=None)
                async for _ in opened:
                    pass
            assert first.calls_used == 1
        await asyncio.to_thread(provider.wait_idle)
        assert nano(first.spent) == provider.bill.total
        assert the_runtime().gate.forked is False
