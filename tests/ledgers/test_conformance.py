"""What every ledger must do. A new ledger is added to `LEDGERS` and passes the same tests.

Any interleaving of steps is held against the oracle (`ledger_machine.py`); what follows says the rules one by one.
"""

from __future__ import annotations

import threading

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from ledger_machine import AnyInterleaving

from shekel.ledgers.base import Balance, Grant, Ledger, Line, Refusal
from shekel.ledgers.memory import MemoryLedger

LEDGERS = {"memory": MemoryLedger}


@pytest.fixture(params=LEDGERS.values(), ids=LEDGERS)
def make(request) -> type[Ledger]:
    return request.param


@pytest.fixture
def ledger(make) -> Ledger:
    return make()


def run_machine(make, **how):
    machine = type("Machine", (AnyInterleaving,), {"make": make})
    run_state_machine_as_test(machine, settings=settings(deadline=None, suppress_health_check=list(HealthCheck), **how))


class TestAnyInterleaving:
    def test_decides_as_the_oracle(self, make):
        run_machine(make, max_examples=200, stateful_step_count=30)

    @pytest.mark.slow
    def test_decides_as_the_oracle_thoroughly(self, make):
        run_machine(make, max_examples=2_500, stateful_step_count=60)


class TestAdmission:
    def test_admits_to_the_last_nano_dollar_and_not_one_more(self, ledger):
        assert ledger.admit("a", 0, 0, [Line("m", 100, 60)]) == Grant(0)
        assert ledger.admit("b", 0, 0, [Line("m", 100, 41)]) == Refusal(Line("m", 100, 41), Balance(0, 60, 1), 41)
        assert ledger.admit("b", 0, 0, [Line("m", 100, 40)]) == Grant(0)
        assert ledger.read("m") == Balance(0, 100, 2)

    def test_grants_the_most_tokens_that_every_meter_allows(self, ledger):
        lines = [Line("a", 100, 10, 7), Line("b", 50, 0, 6), Line("c", None, 0, 1_000), Line("d", 1, 1)]
        assert ledger.admit("x", 1, 100, lines) == Grant(8)
        assert [ledger.read(meter).held for meter in "abcd"] == [66, 48, 8_000, 1]

    def test_takes_all_holds_or_none(self, ledger):
        refusal = ledger.admit("x", 0, 0, [Line("a", 100, 5), Line("b", 4, 5)])
        assert refusal == Refusal(Line("b", 4, 5), Balance(), 5)
        assert ledger.read("a") == Balance()

    def test_names_the_tightest_meter(self, ledger):
        lines = [Line("a", 9, 10), Line("b", 5, 10), Line("c", 8, 10)]
        assert ledger.admit("x", 0, 0, lines).line.meter == "b"

    def test_counts_a_meter_named_twice_once(self, ledger):
        assert ledger.admit("x", 0, 0, [Line("a", 10, 6), Line("a", 1, 6)]) == Grant(0)
        assert ledger.read("a") == Balance(0, 6, 1)

    def test_never_refuses_on_a_meter_without_a_limit(self, ledger):
        assert ledger.admit("x", 0, 5, [Line("a", None, 10**30, 10**12)]) == Grant(5)

    def test_a_limit_lowered_while_in_use_refuses_the_next_call(self, ledger):
        ledger.admit("x", 0, 0, [Line("a", 10, 8)])
        assert isinstance(ledger.admit("y", 0, 0, [Line("a", 5, 0)]), Refusal)
        assert ledger.admit("z", 0, 0, [Line("a", 8, 0)]) == Grant(0)

    def test_a_refused_call_may_ask_again(self, ledger):
        ledger.admit("x", 0, 0, [Line("a", 5, 8)])
        assert ledger.admit("x", 0, 0, [Line("a", 5, 4)]) == Grant(0)


class TestTakingOver:
    def test_the_room_of_the_other_is_free_for_this_one(self, ledger):
        ledger.admit("span", 0, 0, [Line("m", 100, 90)])
        assert ledger.admit("door", 0, 0, [Line("m", 100, 60)], instead_of="span") == Grant(0)
        assert ledger.read("m") == Balance(0, 60, 1)
        ledger.settle("span", {})
        ledger.settle("door", {"m": 50})
        assert ledger.read("m") == Balance(50, 0, 0)

    def test_the_other_is_released_also_where_this_one_is_refused(self, ledger):
        ledger.admit("span", 0, 0, [Line("m", 100, 90)])
        refusal = ledger.admit("door", 0, 0, [Line("m", 100, 101)], instead_of="span")
        assert refusal == Refusal(Line("m", 100, 101), Balance(), 101)
        assert ledger.read("m") == Balance()

    def test_one_that_nobody_knows_changes_nothing_and_cannot_come_later(self, ledger):
        assert ledger.admit("door", 0, 0, [Line("m", 100, 60)], instead_of="span") == Grant(0)
        assert ledger.admit("span", 0, 0, [Line("m", 100, 40)]) == Grant(0)
        assert ledger.read("m") == Balance(0, 60, 1)

    def test_nobody_gets_in_between(self, ledger):
        """Others ask for the same last room all the time; who holds it passes it on."""
        done = threading.Event()

        def others(name: str) -> None:
            number = 0
            while not done.is_set():
                number += 1
                if isinstance(ledger.admit(f"{name}-{number}", 0, 0, [Line("m", 1, 1)]), Grant):
                    taken.append(name)

        taken: list[str] = []
        assert ledger.admit("0", 0, 0, [Line("m", 1, 1)]) == Grant(0)
        threads = [threading.Thread(target=others, args=(name,)) for name in "ab"]
        for thread in threads:
            thread.start()
        for number in range(1, 3_000):
            assert ledger.admit(str(number), 0, 0, [Line("m", 1, 1)], instead_of=str(number - 1)) == Grant(0)
        done.set()
        for thread in threads:
            thread.join()
        assert taken == []


class TestRepetition:
    LINES = (Line("a", 100, 10, 1),)

    def test_of_an_admission_gives_the_old_grant(self, ledger):
        assert ledger.admit("x", 1, 20, self.LINES) == Grant(20)
        assert ledger.admit("x", 1, 90, self.LINES) == Grant(20)
        assert ledger.read("a") == Balance(0, 30, 1)

    def test_of_an_extension_changes_nothing(self, ledger):
        ledger.admit("x", 1, 20, self.LINES)
        for _ in range(3):
            assert ledger.extend("x", 21, 40, self.LINES) == Grant(40)
            assert ledger.read("a") == Balance(0, 50, 1)

    def test_of_a_forced_extension_changes_nothing(self, ledger):
        ledger.admit("x", 1, 20, self.LINES)
        for _ in range(3):
            assert ledger.extend("x", 200, 300, self.LINES, force=True) == Grant(200)
            assert ledger.read("a") == Balance(0, 210, 1)

    def test_of_a_settlement_changes_nothing(self, ledger):
        ledger.admit("x", 1, 20, self.LINES)
        for _ in range(3):
            ledger.settle("x", {"a": 7})
            assert ledger.read("a") == Balance(7, 0, 0)

    def test_of_a_release_changes_nothing(self, ledger):
        ledger.admit("x", 1, 20, self.LINES)
        for _ in range(3):
            ledger.release("x")
            assert ledger.read("a") == Balance()


class TestEnds:
    def test_a_late_admission_meets_the_tombstone(self, ledger):
        ledger.release("x")
        assert ledger.admit("x", 5, 9, [Line("a", 100, 10, 1)]) == Grant(0)
        assert ledger.read("a") == Balance()

    def test_a_release_after_the_settlement_takes_nothing_back(self, ledger):
        ledger.settle("x", {"a": 7})
        ledger.release("x")
        assert ledger.read("a") == Balance(7)

    def test_a_correction_replaces_what_was_charged(self, ledger):
        ledger.admit("x", 0, 0, [Line("a", 100, 50), Line("b", 100, 50)])
        ledger.settle("x", {"a": 7, "b": 3})
        ledger.settle("x", {"a": 9})
        assert (ledger.read("a"), ledger.read("b")) == (Balance(9), Balance(0))

    def test_a_correction_upwards_from_zero_counts(self, ledger):
        ledger.admit("x", 0, 0, [Line("a", 100, 50)])
        ledger.settle("x", {})
        ledger.settle("x", {"a": 9})
        assert ledger.read("a") == Balance(9)

    def test_a_released_call_can_still_be_charged(self, ledger):
        ledger.release("x")
        ledger.settle("x", {"a": 5})
        assert ledger.read("a") == Balance(5)

    def test_a_reset_keeps_holds_and_drops_corrections_to_what_it_zeroed(self, ledger):
        ledger.admit("open", 0, 0, [Line("a", 100, 20)])
        ledger.settle("done", {"a": 30})
        ledger.reset("a")
        ledger.settle("done", {"a": 99})
        assert ledger.read("a") == Balance(0, 20, 1)
        ledger.settle("open", {"a": 15})
        assert ledger.read("a") == Balance(15)

    def test_a_forgotten_meter_goes_when_its_holds_end(self, ledger):
        ledger.admit("open", 0, 0, [Line("a", 100, 20)])
        ledger.forget("a")
        assert ledger.read("a") == Balance(0, 20, 1)
        ledger.settle("open", {"a": 15})
        assert ledger.read("a") == Balance()
        ledger.settle("open", {"a": 1})
        assert ledger.read("a") == Balance()


class TestCorrections:
    def test_say_by_how_much_each_meter_has_changed(self, ledger):
        ledger.settle("x", {"a": 7, "b": 3, "c": 5})
        assert ledger.correct("x", {"a": 9, "c": 5}) == {"a": 2, "b": -3}
        assert [ledger.read(meter).settled for meter in "abc"] == [9, 0, 5]
        assert ledger.correct("x", {"a": 9, "c": 5}) == {}

    @pytest.mark.parametrize("end", [None, "admit", "release", "final"])
    def test_of_what_is_not_settled_are_no_charge(self, ledger, end):
        if end == "admit":
            ledger.admit("x", 0, 0, [Line("a", None, 5)])
        elif end == "release":
            ledger.release("x")
        elif end == "final":
            ledger.settle("x", {"a": 0}, final=True)
        before = ledger.read("a")
        assert ledger.correct("x", {"a": 9}) is None
        assert ledger.read("a") == before

    def test_charge_no_other_meter(self, ledger):
        ledger.settle("x", {"a": 7})
        assert ledger.correct("x", {"a": 8, "b": 8}) == {"a": 1}
        assert ledger.read("b") == Balance()

    def test_after_a_reset_and_after_the_window_change_nothing(self, ledger):
        for line in (Line("slides", 99, 5, 0, 640, True), Line("idle", 99, 5, 0, 640), Line("reset", 99, 5)):
            ledger.admit("x " + line.meter, 0, 0, [line], 1_000)
            ledger.settle("x " + line.meter, {line.meter: 5}, 1_000)
        ledger.reset("reset")
        for meter in ("slides", "idle", "reset"):
            assert ledger.correct("x " + meter, {meter: 9}, 9_000) == {}
            assert ledger.read(meter, 9_000) == Balance()


class TestForGood:
    def test_it_is_charged_once_and_never_corrected(self, ledger):
        ledger.admit("x", 0, 0, [Line("a", 100, 10)])
        for amount in (7, 7, 8):
            ledger.settle("x", {"a": amount}, final=True)
            ledger.settle("x", {"a": amount})
            ledger.release("x")
            assert ledger.admit("x", 0, 0, [Line("a", 100, 10)]) == Grant(0)
            assert ledger.read("a") == Balance(7)

    def test_a_call_that_was_settled_before_can_still_be_corrected(self, ledger):
        ledger.settle("x", {"a": 7})
        ledger.settle("x", {"a": 8}, final=True)
        assert ledger.correct("x", {"a": 9}) == {"a": 1}


class TestThreads:
    THREADS = 32

    def together(self, work):
        """Run `work(n)` in many threads that start at once; whatever one raises is raised here."""
        barrier, errors = threading.Barrier(self.THREADS), []

        def body(n):
            try:
                barrier.wait()
                work(n)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=body, args=(n,)) for n in range(self.THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []

    def test_exactly_as_many_are_admitted_as_fit(self, ledger):
        limit, hold, admitted = 1_000, 7, []

        def work(n):
            for k in range(20):
                if isinstance(ledger.admit(f"{n}/{k}", 0, 0, [Line("m", limit, hold)]), Grant):
                    admitted.append((n, k))
                assert ledger.read("m").held <= limit

        self.together(work)
        assert len(admitted) == limit // hold
        assert ledger.read("m") == Balance(0, limit // hold * hold, limit // hold)

    def test_several_meters_are_taken_in_one_step_whatever_their_order(self, ledger):
        lines = [Line("a", 500, 5), Line("b", 300, 4), Line("c", 10**9, 3)]
        admitted = []

        def work(n):
            mine = lines if n % 2 else lines[::-1]
            grants = [ledger.admit(f"{n}/{k}", 0, 0, mine) for k in range(10)]
            admitted.extend(grant for grant in grants if isinstance(grant, Grant))

        self.together(work)
        assert len(admitted) == 75
        assert [ledger.read(meter) for meter in "abc"] == [Balance(0, 75 * cost, 75) for cost in (5, 4, 3)]

    def test_a_call_that_everyone_ends_is_charged_once(self, ledger):
        ledger.admit("x", 0, 0, [Line("a", 100, 50)])
        self.together(lambda n: ledger.settle("x", {"a": 9}) if n % 2 else ledger.release("x"))
        assert ledger.read("a").held == 0
        assert ledger.read("a").settled == 9

    def test_nothing_is_left_after_many_whole_lives(self, ledger):
        def work(n):
            for k in range(100):
                call = f"{n}/{k}"
                grant = ledger.admit(call, 1, 10, [Line("a", 50, 1, 1), Line(n, None, 2)])
                if isinstance(grant, Grant):
                    ledger.extend(call, 11, 20, [Line("a", 50, 1, 1)])
                    assert ledger.read("a").settled + ledger.read("a").held <= 50
                    ledger.release(call)

        self.together(work)
        assert ledger.read("a") == Balance()

    def test_sums_are_exact_over_windows_of_every_kind(self, ledger):
        """Sliding meters are pressed to their limit while time passes; nothing is lost, added or charged twice."""
        window, begin, calls = 10**12, 10**15, 60
        lines = [
            Line("slide", 3_000, 3, 1, window, True),
            Line("idle", 10**9, 3, 1, window),
            Line("total", None, 3),
            Line("told", 700, 3, 0, window, True, "group"),
        ]
        spent, told = [], []

        def work(n):
            for k in range(calls):
                call, now = f"{n}/{k}", begin + k * window // 64 // calls
                grant = ledger.admit(call, 1, 9, lines, now)
                for meter, limit in (("slide", 3_000), ("told", 700)):
                    shown = ledger.read(meter, now)
                    assert shown.settled + shown.held <= limit
                if isinstance(grant, Grant):
                    if k % 3 == 0:
                        ledger.extend(call, 10, 20, lines[:1], now)
                    meters = [line.meter for line in lines if line.shadow is None or line.shadow not in grant.left_out]
                    ledger.settle(call, dict.fromkeys(meters, 3), now)
                    ledger.settle(call, dict.fromkeys(meters, 1), now)
                    spent.append(1)
                    told.append(len(grant.left_out) == 0)

        self.together(work)
        shown = [ledger.read(meter, begin + window // 2) for meter in ("slide", "idle", "total", "told")]
        assert shown == [Balance(sum(spent))] * 3 + [Balance(sum(told))]
        assert 0 < sum(told) <= 700
        assert ledger.read("slide", begin + 2 * window) == Balance()
        assert ledger.read("total", begin + 2 * window) == Balance(sum(spent))
