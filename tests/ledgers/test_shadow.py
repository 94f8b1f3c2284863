"""Shadow groups, forced admission and which line a refusal names, in every ledger."""

from __future__ import annotations

import pytest
from test_conformance import LEDGERS

from shekel.ledgers.base import Balance, Grant, Ledger, Line, Refusal


@pytest.fixture(params=LEDGERS.values(), ids=LEDGERS)
def ledger(request) -> Ledger:
    return request.param()


def shadow(meter, limit, base, rate=0, *, group="s") -> Line:
    return Line(meter, limit, base, rate, shadow=group)


class TestShadow:
    def test_never_votes_and_holds_only_what_it_would_have_admitted(self, ledger):
        assert ledger.admit("x", 0, 0, [Line("real", 100, 30), shadow("told", 29, 30)]) == Grant(0, ("s",))
        assert (ledger.read("real"), ledger.read("told")) == (Balance(0, 30, 1), Balance())
        assert ledger.admit("y", 0, 0, [Line("real", 100, 20), shadow("told", 29, 20)]) == Grant(0)
        assert (ledger.read("real"), ledger.read("told")) == (Balance(0, 50, 2), Balance(0, 20, 1))

    def test_all_lines_of_a_group_hold_or_none(self, ledger):
        lines = [shadow("usd", 100, 30), shadow("calls", 0, 1), shadow("seen", None, 5), shadow("b", 9, 9, group="t")]
        assert ledger.admit("x", 0, 0, lines) == Grant(0, ("s",))
        assert [ledger.read(meter).holds for meter in ("usd", "calls", "seen", "b")] == [0, 0, 0, 1]

    def test_holds_for_as_much_of_the_grant_as_fits(self, ledger):
        assert ledger.admit("x", 1, 50, [Line("real", 100, 0, 10), shadow("told", 59, 0, 6)]) == Grant(
            10, (), (("s", 9),)
        )
        assert (ledger.read("real"), ledger.read("told")) == (Balance(0, 100, 1), Balance(0, 54, 1))
        assert ledger.admit("y", 1, 50, [Line("real", 200, 0, 10), shadow("told", 114, 0, 6)]) == Grant(10)
        assert ledger.read("told") == Balance(0, 114, 2)

    def test_is_left_out_where_the_least_does_not_fit(self, ledger):
        assert ledger.admit("x", 3, 50, [Line("real", 100, 0, 10), shadow("told", 17, 0, 6)]) == Grant(10, ("s",))
        assert ledger.admit("y", 3, 3, [shadow("told", 18, 0, 6)]) == Grant(3)

    def test_the_tightest_line_of_a_group_says_how_much_it_holds_for(self, ledger):
        lines = [shadow("usd", 100, 10, 10), shadow("tokens", 5, 0, 1), shadow("b", 8, 0, 1, group="t")]
        assert ledger.admit("x", 1, 9, lines) == Grant(9, (), (("s", 5), ("t", 8)))
        assert [ledger.read(meter).held for meter in ("usd", "tokens", "b")] == [60, 5, 8]

    def test_never_names_the_refusal(self, ledger):
        lines = [shadow("told", 0, 1_000), Line("real", 10, 11)]
        assert ledger.admit("x", 0, 0, lines) == Refusal(lines[1], Balance(), 11)

    def test_keeps_its_present_hold_where_an_extension_does_not_fit(self, ledger):
        lines = [Line("real", 1_000, 0, 10), shadow("told", 100, 0, 10)]
        assert ledger.admit("x", 1, 5, lines) == Grant(5)
        assert ledger.extend("x", 11, 20, lines) == Grant(20, ("s",))
        assert (ledger.read("real"), ledger.read("told")) == (Balance(0, 200, 1), Balance(0, 50, 1))

    def test_a_repeated_admission_names_it_again(self, ledger):
        lines = [shadow("told", 29, 30)]
        assert [ledger.admit("x", 0, 0, lines) for _ in range(2)] == [Grant(0, ("s",))] * 2

    def test_of_a_meter_that_a_voting_line_names_too_the_first_line_counts(self, ledger):
        assert ledger.admit("x", 0, 0, [shadow("m", 10, 5), Line("m", 0, 5)]) == Grant(0)
        assert ledger.read("m") == Balance(0, 5, 1)


class TestTightest:
    def test_lacks_the_largest_share_of_its_limit_whatever_the_units(self, ledger):
        usd, calls = Line("usd", 1_000_000, 1_031_300), Line("calls", 1, 2)
        assert ledger.admit("x", 0, 0, [usd, calls]) == Refusal(calls, Balance(), 2)
        assert ledger.admit("y", 0, 0, [usd._replace(base=9_000_000), calls]).line.meter == "usd"

    def test_one_that_allows_nothing_lacks_the_most_and_of_two_the_first(self, ledger):
        lines = [Line("fits", 9, 9), Line("much", 1, 90), Line("a", 0, 1), Line("b", 0, 2)]
        assert ledger.admit("x", 0, 0, lines).line.meter == "a"
        assert ledger.admit("y", 0, 0, lines[:2]).line.meter == "much"


class TestForce:
    def test_admits_the_least_where_that_does_not_fit(self, ledger):
        assert ledger.admit("x", 3, 50, [Line("m", 10, 5, 2), Line("n", None, 1)], force=True) == Grant(3)
        assert (ledger.read("m"), ledger.read("n")) == (Balance(0, 11, 1), Balance(0, 1, 1))

    def test_admits_the_most_where_it_fits(self, ledger):
        assert ledger.admit("x", 3, 50, [Line("m", 25, 5, 2)], force=True) == Grant(10)

    def test_does_not_bring_back_a_call_that_has_ended(self, ledger):
        ledger.release("x")
        assert ledger.admit("x", 0, 0, [Line("m", 10, 5)], force=True) == Grant(0)
        assert ledger.read("m") == Balance()

    def test_of_an_admission_forces_shadow_groups_too(self, ledger):
        assert ledger.admit("x", 0, 0, [shadow("told", 3, 5)], force=True) == Grant(0)
        assert ledger.read("told") == Balance(0, 5, 1)

    def test_of_an_extension_forces_the_shadow_groups_that_took_the_call(self, ledger):
        lines = [shadow("took it", 10, 5, group="s"), shadow("refused it", 4, 5, group="t")]
        assert ledger.admit("x", 0, 0, lines) == Grant(0, ("t",))
        raised = [line._replace(base=20) for line in lines]
        assert ledger.extend("x", 0, 0, raised, force=True) == Grant(0, ("t",))
        assert (ledger.read("took it"), ledger.read("refused it")) == (Balance(0, 20, 1), Balance())
