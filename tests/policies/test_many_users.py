"""Many users under one policy: totals exact, and memory and time per call that do not depend on how many there are.

Calls go through the real gate, from admission to settlement, without HTTP, which would be all that is measured.
"""

from __future__ import annotations

import gc
import random
import statistics
import threading
import time
import tracemalloc

import openai
import pytest

import shekel
from budgets.conftest import HELLO, MODEL, until
from shekel import BudgetExceededError, per, scope
from shekel.budgets import corrections
from shekel.budgets.corrections import REMEMBERED
from shekel.runtime import the_runtime
from shekel.testing import FakeProvider

from .desk import OUT, Desk

THREADS = 64
CALLS = 10
FEW = 10


def call_all(desk: Desk, users: int) -> dict[str, int]:
    """Ten calls of each user, in any order, from 64 threads; what each has spent by the calls' own costs."""
    jobs = [f"user {number}" for number in range(users) for _ in range(CALLS)]
    random.Random(4).shuffle(jobs)
    sums: list[dict[str, int]] = [{} for _ in range(THREADS)]
    raised: list[BaseException] = []

    def work(number: int) -> None:
        mine = sums[number]
        try:
            for at in range(number, len(jobs), THREADS):
                user = jobs[at]
                mine[user] = mine.get(user, 0) + desk.ask({"user_id": user}, tokens=1 + at % 997)
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert raised == []
    total: dict[str, int] = {}
    for mine in sums:
        for user, amount in mine.items():
            total[user] = total.get(user, 0) + amount
    return total


def check_totals(desk: Desk, users: int) -> None:
    spent = call_all(desk, users)
    assert len(spent) == users
    for user, amount in spent.items():
        assert desk.spent({"user_id": user}) == [amount, CALLS]
    with pytest.raises(BudgetExceededError, match="10 of 10 calls used"):
        desk.ask({"user_id": "user 0"})


def limited() -> Desk:
    return Desk(per("user.id", "$5/day + 10 calls/day"))


def grown(users: int, calls: int = REMEMBERED + 100) -> Desk:
    """A desk with so many live users after so many calls at least: by itself, with the bounded tables full of what is
    remembered of the last calls."""
    desk = Desk(per("user.id", "$5/day"))
    for number in range(max(users, calls)):
        desk.ask({"user_id": f"user {number % users}"})
    return desk


def per_call_ratio(many: Desk, users: int, few: Desk, *, turns: int = 15, calls: int = 400) -> float:
    """How much longer a call takes among many users than among a hundred, in processor time, measured in turn."""
    rng = random.Random(5)
    ratios = []
    for _ in range(turns):
        seconds = []
        for desk, among in ((many, users), (few, 100)):
            names = [{"user_id": f"user {rng.randrange(among)}"} for _ in range(calls)]
            start = time.thread_time()
            for who in names:
                desk.ask(who)
            seconds.append(time.thread_time() - start)
        ratios.append(seconds[0] / seconds[1])
    return statistics.median(ratios)


def bytes_per_user(users: int) -> float:
    """What a live user takes, beside the tables of the last calls: those are bounded, and kept short here."""
    tracemalloc.start()
    try:
        desk = Desk(per("user.id", "$5/day"), remember=FEW)
        for number in range(10 * FEW):
            desk.ask({"user_id": f"first {number % FEW}"})
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for number in range(users):
            desk.ask({"user_id": f"user {number:07}"})
        gc.collect()
        assert len(desk.ledger) == users + FEW
        return (tracemalloc.get_traced_memory()[0] - before) / users
    finally:
        tracemalloc.stop()


@pytest.fixture
def short_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corrections, "REMEMBERED", FEW)


class TestSome:
    def test_totals_are_exact(self) -> None:
        check_totals(limited(), 300)

    def test_a_call_takes_as_long_among_many(self) -> None:
        """What grew with the users would be thirty times as long."""
        assert per_call_ratio(grown(3_000, 3_000), 3_000, grown(100, 3_000), turns=9, calls=50) < 2

    @pytest.mark.usefixtures("short_tables")
    def test_a_user_takes_as_much_memory_among_many(self) -> None:
        few, many = bytes_per_user(1_000), bytes_per_user(3_000)
        assert max(few, many) < 1.2 * min(few, many)

    def test_users_whose_window_is_over_leave_nothing(self) -> None:
        desk = Desk(per("user.id", "$5/hr"))
        for _ in range(20):
            for number in range(200):
                desk.ask({"user_id": f"{desk.clock()} {number}"})
            desk.clock.advance(2 * 3600)
        assert len(desk.ledger) < 3 * 200


@pytest.mark.slow
class TestAHundredThousand:
    def test_totals_are_exact(self) -> None:
        check_totals(limited(), 100_000)

    def test_time_is_flat_within_a_fifth(self, capsys: pytest.CaptureFixture[str]) -> None:
        few = grown(100)
        sizes = {}
        for users in (1_000, 10_000, 100_000):
            many = grown(users)
            sizes[users] = per_call_ratio(many, users, few, turns=25)
        with capsys.disabled():
            print(f"\ntime per call beside 100 users: {sizes}")
        assert max(sizes.values()) < 1.2

    @pytest.mark.usefixtures("short_tables")
    def test_memory_is_flat_within_a_fifth(self, capsys: pytest.CaptureFixture[str]) -> None:
        memory = {users: bytes_per_user(users) for users in (100, 1_000, 10_000, 100_000)}
        with capsys.disabled():
            print(f"\nbytes per user: {memory}")
        assert max(memory.values()) < 1.2 * min(memory.values())


class TestStreams:
    def test_fifty_at_once_of_one_user_hold_his_limit_and_add_up(self) -> None:
        """A limit that buys a third of what they would generate: what is settled is the sum of what they cost."""
        limit = 0.004
        shekel.configure(policies=[per("user.id", f"${limit}", name="streams")])
        ended: list[tuple[str, shekel.Receipt | None]] = []
        gate = threading.Barrier(50)

        def work() -> None:
            receipt = None
            with openai.OpenAI(base_url=provider.openai_url, api_key="test", max_retries=0) as client:
                gate.wait()
                try:
                    with scope(user_id="ada"):
                        stream = client.chat.completions.create(
                            model=MODEL, messages=HELLO, stream=True, max_tokens=600
                        )
                    receipt = shekel.call_of(stream)
                    for _ in stream:
                        pass
                    ended.append(("complete", receipt))
                except BudgetExceededError as error:
                    ended.append((error.reason, receipt))

        with FakeProvider(output_tokens=400, pace=0.004) as provider:
            threads = [threading.Thread(target=work) for _ in range(50)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            provider.wait_idle()
        try:
            assert len(ended) == 50
            runtime = the_runtime()
            [row] = runtime.policies._rows.values()
            meter = (row, "ada", None)
            until(lambda: runtime.ledger.read(meter).held == 0)
            settled = runtime.ledger.read(meter).settled
            costs = [receipt.cost for _, receipt in ended if receipt is not None]
            assert None not in costs
            assert settled == sum(round(cost * 1e9) for cost in costs if cost is not None)
            # Each may have a few tokens under way when it is cut: a quarter of a slice is more than those.
            assert limit * 1e9 / 2 < settled <= limit * 1e9 + 50 * OUT * 64
            # What the provider generated and nobody had read yet is inside the interval that each call states.
            stated = [receipt._cost.committed for _, receipt in ended if receipt is not None and receipt._cost]
            assert provider.bill.total <= sum(each or 0 for each in stated)
            assert "cut" in {reason for reason, _ in ended}
        finally:
            shekel.configure(policies=[])
