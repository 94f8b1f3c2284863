"""What meters with a window must do, in every ledger: they slide, or start anew when idle."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_conformance import LEDGERS

from shekel.ledgers.base import Balance, Grant, Ledger, Line, Refusal

SECOND = 1_000_000
BEGIN = 1_800_000_000 * SECOND
WINDOW = 640
"""Microseconds; a slot takes ten of them, and BEGIN is the first of one."""


@pytest.fixture(params=LEDGERS.values(), ids=LEDGERS)
def ledger(request) -> Ledger:
    return request.param()


def sliding(limit=100, base=0, rate=0, *, meter="m", window=WINDOW, **more) -> Line:
    return Line(meter, limit, base, rate, window, True, **more)


def session(limit=100, base=0, *, meter="m", until=0) -> Line:
    return Line(meter, limit, base, 0, WINDOW, False, None, until)


def charge(ledger, call, line, amount, now, *, ended=None):
    """One call that costs so much, whatever it held."""
    assert isinstance(ledger.admit(call, 0, 0, [line], now, force=True), Grant)
    ledger.settle(call, {line.meter: amount}, now if ended is None else ended)


def fits(ledger, line, now) -> bool:
    answer = ledger.admit("try", 0, 0, [line], now)
    assert isinstance(answer, Grant | Refusal)
    if isinstance(answer, Refusal):
        return False
    # Take it back, and end in the state before: the id is used once.
    ledger.release("try", now)
    return True


class TestSliding:
    def test_counts_for_the_window_and_at_most_a_slot_longer(self, ledger):
        charge(ledger, "a", sliding(), 30, BEGIN)
        assert [ledger.read("m", BEGIN + after).settled for after in (0, WINDOW, WINDOW + 9)] == [30, 30, 30]
        assert ledger.read("m", BEGIN + WINDOW + 10) == Balance()

    def test_goes_by_amounts_and_not_all_at_once(self, ledger):
        for n in range(8):
            charge(ledger, f"call {n}", sliding(), 10, BEGIN + 80 * n)
        shown = [ledger.read("m", BEGIN + WINDOW + 10 + 80 * n).settled for n in range(8)]
        assert shown == [70, 60, 50, 40, 30, 20, 10, 0]

    def test_looking_changes_nothing(self, ledger):
        charge(ledger, "a", sliding(), 30, BEGIN)
        assert ledger.read("m", BEGIN + 10 * WINDOW) == Balance()
        assert ledger.read("m", BEGIN) == Balance(30)

    def test_open_holds_count_however_old(self, ledger):
        ledger.admit("open", 0, 0, [sliding(100, 60)], BEGIN)
        assert isinstance(ledger.admit("x", 0, 0, [sliding(100, 41)], BEGIN + 100 * WINDOW), Refusal)
        assert ledger.admit("y", 0, 0, [sliding(100, 40)], BEGIN + 100 * WINDOW) == Grant(0)

    def test_a_charge_is_stamped_when_it_settles(self, ledger):
        charge(ledger, "a", sliding(), 30, BEGIN, ended=BEGIN + 5 * WINDOW)
        assert ledger.read("m", BEGIN + 6 * WINDOW) == Balance(30)

    def test_a_correction_keeps_the_stamp(self, ledger):
        charge(ledger, "a", sliding(), 30, BEGIN)
        charge(ledger, "b", sliding(), 5, BEGIN + 300)
        ledger.settle("a", {"m": 50}, BEGIN + 400)
        assert ledger.read("m", BEGIN + 400) == Balance(55)
        assert ledger.read("m", BEGIN + WINDOW + 10) == Balance(5)

    def test_a_correction_upwards_from_zero_keeps_the_stamp(self, ledger):
        charge(ledger, "a", sliding(), 0, BEGIN)
        charge(ledger, "b", sliding(), 5, BEGIN + 300)
        ledger.settle("a", {"m": 50}, BEGIN + 400)
        assert ledger.read("m", BEGIN + 400) == Balance(55)
        assert ledger.read("m", BEGIN + WINDOW + 10) == Balance(5)

    def test_a_correction_of_what_has_slid_out_changes_nothing(self, ledger):
        charge(ledger, "a", sliding(), 30, BEGIN)
        charge(ledger, "b", sliding(), 5, BEGIN + WINDOW)
        ledger.settle("a", {"m": 90}, BEGIN + WINDOW + 10)
        assert ledger.read("m", BEGIN + WINDOW + 10) == Balance(5)
        assert ledger.dropped == 0

    def test_a_reset_zeroes_it_and_keeps_holds(self, ledger):
        charge(ledger, "a", sliding(), 30, BEGIN)
        charge(ledger, "b", sliding(), 30, BEGIN + 100)
        ledger.admit("open", 0, 0, [sliding(100, 20)], BEGIN + 100)
        ledger.reset("m")
        ledger.settle("a", {"m": 99}, BEGIN + 110)
        assert ledger.read("m", BEGIN + 110) == Balance(0, 20, 1)
        ledger.settle("open", {"m": 7}, BEGIN + 120)
        assert ledger.read("m", BEGIN + 120) == Balance(7)

    def test_time_that_goes_back_counts_as_that_of_the_last_step(self, ledger):
        charge(ledger, "a", sliding(), 30, BEGIN)
        charge(ledger, "b", sliding(), 5, BEGIN - 10 * WINDOW)
        assert ledger.read("m", BEGIN - 10 * WINDOW) == Balance(35)
        assert ledger.read("m", BEGIN + WINDOW) == Balance(35)
        assert ledger.read("m", BEGIN + WINDOW + 10) == Balance()

    @given(
        window=st.sampled_from([1, 63, 64, 65, 1_000, 30 * SECOND, 3_600 * SECOND, 86_400 * SECOND]),
        charges=st.lists(st.tuples(st.integers(0, 2_000), st.integers(0, 50)), max_size=30),
        wait=st.integers(0, 2_000),
        hold=st.integers(0, 50),
    )
    @pytest.mark.parametrize("make", LEDGERS.values(), ids=LEDGERS)
    def test_lies_between_the_exact_window_and_one_of_65_64_of_it(self, make, window, charges, wait, hold):
        """Brute force: whatever the exact window refuses is refused, whatever the longer one admits is admitted."""
        ledger, now, settled = make(), BEGIN, []
        for n, (gap, amount) in enumerate(charges):
            now += gap * window // 1_000
            charge(ledger, f"call {n}", sliding(window=window), amount, now)
            settled.append((now, amount))
        now += wait * window // 1_000
        exact = sum(amount for stamp, amount in settled if now - stamp <= window)
        longer = sum(amount for stamp, amount in settled if 64 * (now - stamp) <= 65 * window)
        assert exact <= ledger.read("m", now).settled <= longer
        assert not fits(ledger, sliding(exact + hold - 1, hold, window=window), now)
        assert fits(ledger, sliding(longer + hold, hold, window=window), now)


class TestWhenItFrees:
    """`frees_at` is exact for the window as it is counted: not a microsecond earlier would do."""

    def refusal(self, ledger, line, now) -> Refusal:
        answer = ledger.admit("refused", 0, 0, [line], now)
        assert isinstance(answer, Refusal)
        return answer

    def test_names_the_first_microsecond_at_which_it_fits(self, ledger):
        for n in range(10):
            charge(ledger, f"call {n}", sliding(), 10, BEGIN + 37 * n)
        frees_at = self.refusal(ledger, sliding(100, 25), BEGIN + 400).frees_at
        assert BEGIN + 37 * 2 + WINDOW < frees_at <= BEGIN + 37 * 2 + WINDOW * 65 // 64
        assert not fits(ledger, sliding(100, 25), frees_at - 1)
        assert fits(ledger, sliding(100, 25), frees_at)

    def test_does_not_count_what_has_slid_out_already(self, ledger):
        charge(ledger, "a", sliding(), 50, BEGIN)
        charge(ledger, "b", sliding(), 50, BEGIN + 300)
        assert self.refusal(ledger, sliding(100, 60), BEGIN + 700).frees_at == BEGIN + 300 + WINDOW + 10

    def test_waits_for_open_calls_as_if_they_settled_now(self, ledger):
        ledger.admit("open", 0, 0, [sliding(100, 80)], BEGIN)
        frees_at = self.refusal(ledger, sliding(100, 25), BEGIN).frees_at
        assert frees_at == BEGIN + WINDOW + 10
        ledger.settle("open", {"m": 80}, BEGIN)
        assert not fits(ledger, sliding(100, 25), frees_at - 1)
        assert fits(ledger, sliding(100, 25), frees_at)

    def test_is_none_where_waiting_does_not_help(self, ledger):
        charge(ledger, "a", sliding(), 10, BEGIN)
        assert self.refusal(ledger, sliding(100, 101), BEGIN).frees_at is None

    @pytest.mark.parametrize("line", [Line("m", 100, 60), session(100, 60)])
    def test_is_none_where_nothing_slides(self, ledger, line):
        charge(ledger, "a", line, 60, BEGIN)
        assert self.refusal(ledger, line, BEGIN).frees_at is None

    def test_leaves_the_calls_own_hold_out(self, ledger):
        charge(ledger, "a", sliding(), 50, BEGIN)
        ledger.admit("x", 0, 0, [sliding(100, 40)], BEGIN + 100)
        answer = ledger.extend("x", 0, 0, [sliding(100, 60)], BEGIN + 100)
        assert answer == Refusal(sliding(100, 60), Balance(50, 0, 0), 60, BEGIN + WINDOW + 10)


class TestIdle:
    def test_starts_anew_once_idle_for_its_window(self, ledger):
        charge(ledger, "a", session(), 30, BEGIN)
        assert ledger.read("m", BEGIN + WINDOW - 1) == Balance(30)
        assert ledger.read("m", BEGIN + WINDOW) == Balance()
        assert fits(ledger, session(100, 100), BEGIN + WINDOW)

    def test_lasts_as_long_as_calls_come(self, ledger):
        for n in range(5):
            charge(ledger, f"call {n}", session(), 10, BEGIN + n * (WINDOW - 1))
        assert ledger.read("m", BEGIN + 5 * (WINDOW - 1)) == Balance(50)

    def test_lasts_while_a_call_is_open_and_its_window_after_its_end(self, ledger):
        charge(ledger, "a", session(), 30, BEGIN)
        ledger.admit("open", 0, 0, [session(100, 5)], BEGIN)
        assert ledger.read("m", BEGIN + 10 * WINDOW) == Balance(30, 5, 1)
        ledger.release("open", BEGIN + 10 * WINDOW)
        assert ledger.read("m", BEGIN + 11 * WINDOW - 1) == Balance(30)
        assert ledger.read("m", BEGIN + 11 * WINDOW) == Balance()

    def test_refused_calls_and_corrections_do_not_prolong_it(self, ledger):
        charge(ledger, "a", session(), 30, BEGIN)
        assert not fits(ledger, session(100, 71), BEGIN + 600)
        ledger.settle("a", {"m": 40}, BEGIN + 600)
        assert ledger.read("m", BEGIN + WINDOW) == Balance()

    def test_a_month_in_which_nobody_calls_for_long_is_still_the_same_month(self, ledger):
        month = session(until=BEGIN + 20 * WINDOW)
        charge(ledger, "a", month, 30, BEGIN)
        assert ledger.read("m", BEGIN + 20 * WINDOW - 1) == Balance(30)
        assert ledger.read("m", BEGIN + 20 * WINDOW) == Balance()

    def test_a_period_that_is_past_is_kept_for_its_window_after_its_last_hold(self, ledger):
        period = session(100, 30, until=BEGIN + 10)
        ledger.admit("a", 0, 0, [period], BEGIN)
        ledger.settle("a", {"m": 30}, BEGIN + 2 * WINDOW)
        ledger.settle("a", {"m": 20}, BEGIN + 3 * WINDOW - 1)
        assert ledger.read("m", BEGIN + 3 * WINDOW - 1) == Balance(20)
        assert ledger.dropped == 0

    def test_later_corrections_are_dropped_and_counted_once_each(self, ledger):
        charge(ledger, "a", session(), 30, BEGIN)
        for _ in range(3):
            ledger.settle("a", {"m": 20}, BEGIN + WINDOW)
        assert (ledger.read("m", BEGIN + WINDOW), ledger.dropped) == (Balance(), 1)
        charge(ledger, "b", session(), 7, BEGIN + WINDOW)
        ledger.settle("a", {"m": 90}, BEGIN + WINDOW)
        assert (ledger.read("m", BEGIN + WINDOW), ledger.dropped) == (Balance(7), 2)

    def test_a_correction_that_corrects_nothing_is_not_counted(self, ledger):
        charge(ledger, "a", session(), 30, BEGIN)
        ledger.settle("a", {"m": 30}, BEGIN + WINDOW)
        assert ledger.dropped == 0

    def test_a_late_charge_of_a_released_call_goes_where_the_call_held(self, ledger):
        for call in ("soon", "late"):
            ledger.admit(call, 0, 0, [session(100, 30)], BEGIN)
            ledger.release(call, BEGIN)
        ledger.settle("soon", {"m": 5}, BEGIN + WINDOW - 1)
        assert (ledger.read("m", BEGIN + WINDOW), ledger.dropped) == (Balance(5), 0)
        ledger.settle("late", {"m": 5}, BEGIN + 3 * WINDOW)
        assert (ledger.read("m", BEGIN + 3 * WINDOW), ledger.dropped) == (Balance(), 1)

    def test_a_late_charge_of_a_released_call_slides_where_its_meter_did(self, ledger):
        ledger.admit("late", 0, 0, [sliding(100, 30)], BEGIN)
        ledger.release("late", BEGIN)
        for n in range(5):  # calls on other meters, so that the idle one goes
            charge(ledger, f"other {n}", Line("other", None, 0), 0, BEGIN + 10 * WINDOW)
        ledger.settle("late", {"m": 5}, BEGIN + 10 * WINDOW)
        assert ledger.read("m", BEGIN + 11 * WINDOW) == Balance(5)
        assert ledger.read("m", BEGIN + 11 * WINDOW + 10) == Balance()

    def test_a_charge_without_a_hold_does_not_bring_back_what_is_over(self, ledger):
        charge(ledger, "a", session(), 30, BEGIN)
        ledger.settle("bare", {"m": 5}, BEGIN + WINDOW)
        assert ledger.read("m", BEGIN + WINDOW) == Balance(5)


class TestFirstSight:
    def test_the_first_line_that_names_a_meter_gives_it_its_window(self, ledger):
        charge(ledger, "a", sliding(), 30, BEGIN)
        charge(ledger, "b", Line("m", 100, 0), 5, BEGIN)
        charge(ledger, "c", session(), 5, BEGIN)
        assert ledger.read("m", BEGIN + WINDOW + 9) == Balance(40)
        assert ledger.read("m", BEGIN + WINDOW + 10) == Balance()

    def test_a_meter_that_has_started_anew_is_seen_for_the_first_time(self, ledger):
        charge(ledger, "a", sliding(), 30, BEGIN)
        charge(ledger, "b", Line("m", 100, 0), 5, BEGIN + 2 * WINDOW)
        assert ledger.read("m", BEGIN + 100 * WINDOW) == Balance(5)

    def test_what_was_charged_before_counts_as_settled_at_the_last_of_it(self, ledger):
        ledger.settle("a", {"m": 30}, BEGIN - 600)
        ledger.settle("b", {"m": 5}, BEGIN)
        assert ledger.read("m", BEGIN + 100 * WINDOW) == Balance(35)
        assert not fits(ledger, sliding(100, 66), BEGIN + 100)
        assert ledger.read("m", BEGIN + WINDOW + 9) == Balance(35)
        ledger.settle("a", {"m": 20}, BEGIN + 100)
        assert ledger.read("m", BEGIN + WINDOW + 9) == Balance(25)
        assert ledger.read("m", BEGIN + WINDOW + 10) == Balance()

    def test_a_session_that_was_only_charged_may_be_over_when_a_line_names_it(self, ledger):
        ledger.settle("a", {"m": 30}, BEGIN)
        assert fits(ledger, session(100, 100), BEGIN + WINDOW)

    def test_a_forgotten_meter_may_come_back_with_another_window(self, ledger):
        charge(ledger, "a", sliding(), 30, BEGIN)
        ledger.forget("m")
        charge(ledger, "b", Line("m", 100, 0), 5, BEGIN)
        assert ledger.read("m", BEGIN + 100 * WINDOW) == Balance(5)
