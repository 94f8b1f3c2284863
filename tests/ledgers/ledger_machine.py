"""Any interleaving of steps, late, repeated and for calls that never were, against the oracle as time goes by.

Each decision must be the oracle's, in both directions: what fits is admitted, what does not is refused. All balances
must be its balances after each step. For sliding windows the law's two bounds are checked too, apart from the oracle's
knowledge of the 64 slots.
"""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from ledger_oracle import Oracle

from shekel.ledgers.base import Grant, Ledger, Line

DAY = 100
"""Microseconds of a calendar period."""

WINDOWS = {
    "process": (0, False),
    "calls": (0, False),
    "minute": (320, True),
    "odd": (37, True),  # no multiple of 64
    "session": (50, False),
    "day": (40, False),
}

SLOTS_OF_CALLS = range(6)

which = st.sampled_from(SLOTS_OF_CALLS)
kinds = st.sampled_from(sorted(WINDOWS))
amounts = st.integers(0, 40)
tokens = st.integers(0, 6)
groups = st.sampled_from([None, None, None, "s", "t"])
spans = st.integers(0, 12) | st.sampled_from([36, 37, 38, 39, 40, 49, 50, 60, 100]) | st.integers(318, 328)
forced = st.sampled_from([False, False, False, True])
finals = st.sampled_from([False, False, False, True])
yesterday = st.sampled_from([0, 0, 0, 1])
charges = st.dictionaries(st.tuples(kinds, yesterday), amounts, max_size=5)
edges = st.sampled_from(["edge - 1", "edge - 1", "edge + 0", "edge + 0", "edge + 20"])
limits = st.none() | st.integers(0, 400) | edges | edges | edges
asked = st.lists(st.tuples(kinds, yesterday, limits, amounts, st.integers(0, 4), groups), max_size=4)


class AnyInterleaving(RuleBasedStateMachine):
    """Steps in any order. `make` gives a new ledger."""

    make: type[Ledger]

    @initialize()
    def begin(self):
        self.ledger, self.oracle, self.now = self.make(), Oracle(), 10 * DAY
        self.turn = dict.fromkeys(SLOTS_OF_CALLS, 0)
        self.names = {kind for kind in WINDOWS if kind != "day"}

    def name(self, kind, back):
        """The name of a meter: that of a calendar period has the period in it."""
        name = f"day {self.now // DAY - back}" if kind == "day" else kind
        self.names.add(name)
        return name

    def lines(self, which, need, asked):
        """The lines, with limits that are a given number or lie at the very edge of what fits."""
        made = []
        for kind, back, limit, base, rate, group in asked:
            meter = self.name(kind, back)
            if isinstance(limit, str):
                balance = self.oracle.balance(meter, self.now, without=self.call(which))
                slack = int(limit.removeprefix("edge").replace(" ", ""))
                limit = max(0, balance.settled + balance.held + base + need * rate + slack)
            until = (self.now // DAY - back + 1) * DAY if kind == "day" else 0
            made.append(Line(meter, limit, base, rate, *WINDOWS[kind], group, until))
        return made

    def call(self, which):
        return f"call {which}.{self.turn[which]}"

    def hold(self, step, which, need, more, lines, force):
        call = self.call(which)
        new = call not in self.oracle.settled and call not in self.oracle.released
        new = new and (call in self.oracle.holds) == (step == "extend")
        sliding = {line.meter: [self.oracle.exact(line.meter, self.now, parts) for parts in (64, 65)] for line in lines}
        held = {line.meter: self.oracle.balance(line.meter, self.now, without=call).held for line in lines}
        expected = getattr(self.oracle, step)(call, need, need + more, lines, self.now, force=force)
        answer = getattr(self.ledger, step)(call, need, need + more, lines, self.now, force=force)
        assert answer == expected, (step, call, need, more, lines, self.now, force)
        if not new or force:
            return
        if isinstance(answer, Grant):
            for line in {line.meter: line for line in reversed(lines)}.values():
                narrow = sliding[line.meter][0]
                if narrow is not None and line.limit is not None and line.shadow is None:
                    assert narrow + held[line.meter] + line.base + answer.tokens * line.rate <= line.limit
        elif sliding[answer.line.meter][1] is not None:
            assert sliding[answer.line.meter][1] + held[answer.line.meter] + answer.asked > answer.line.limit

    def has_ended(self, which):
        return self.call(which) in self.oracle.settled or self.call(which) in self.oracle.released

    @rule(which=which, need=tokens, more=tokens, asked=asked, force=forced)
    def admit(self, which, need, more, asked, force):
        if self.has_ended(which):
            self.turn[which] += 1
        self.hold("admit", which, need, more, self.lines(which, need, asked), force)

    @rule(which=which, need=tokens, more=tokens, asked=asked, force=forced)
    def admit_late_or_again(self, which, need, more, asked, force):
        self.hold("admit", which, need, more, self.lines(which, need, asked), force)

    @precondition(lambda self: self.oracle.holds)
    @rule(which=which, need=tokens, more=tokens, asked=asked, force=forced)
    def extend(self, which, need, more, asked, force):
        self.hold("extend", which, need, more, self.lines(which, need, asked), force)

    @rule(which=which, asked=asked, amount=amounts, span=spans)
    def lead_a_whole_life(self, which, asked, amount, span):
        if self.has_ended(which):
            self.turn[which] += 1
        if self.call(which) not in self.oracle.holds:
            self.hold("admit", which, 0, 0, self.lines(which, 0, asked), True)
        self.settle_or_correct(which, {}, amount)
        self.now += span

    @rule(which=which, charges=charges, default=amounts, final=finals)
    def settle_or_correct_some(self, which, charges, default, final):
        self.settle_or_correct(which, charges, default, final)

    @rule(which=which, charges=charges, turns=st.integers(0, 2))
    def correct_only(self, which, charges, turns):
        call = f"call {which}.{max(0, self.turn[which] - turns)}"
        amounts = {self.name(kind, back): amount for (kind, back), amount in charges.items()}
        assert self.ledger.correct(call, amounts, self.now) == self.oracle.correct(call, amounts, self.now)

    def settle_or_correct(self, which, charges, default, final=False):
        call = self.call(which)
        amounts = {self.name(kind, back): amount for (kind, back), amount in charges.items()}
        for meter in self.oracle.has_held(call) - set(amounts):
            if default:
                amounts[meter] = default
        # A meter with a window is charged where the call has held: that is how such a meter is charged at all.
        named = {m: n for m, n in amounts.items() if m in ("process", "calls") or m in self.oracle.has_held(call)}
        self.oracle.settle(call, named, self.now, final=final)
        self.ledger.settle(call, named, self.now, final=final)

    @rule(which=which)
    def release(self, which):
        self.oracle.release(self.call(which), self.now)
        self.ledger.release(self.call(which), self.now)

    @rule(kind=kinds, back=yesterday)
    def reset(self, kind, back):
        self.oracle.reset(self.name(kind, back))
        self.ledger.reset(self.name(kind, back))

    @rule(kind=kinds, back=yesterday)
    def forget(self, kind, back):
        self.oracle.forget(self.name(kind, back))
        self.ledger.forget(self.name(kind, back))

    @rule(span=spans)
    def time_passes(self, span):
        self.now += span

    @invariant()
    def shows_the_same_balances(self):
        if hasattr(self, "ledger"):
            for meter in self.names:
                balance = self.oracle.balance(meter, self.now)
                assert self.ledger.read(meter, self.now) == balance, meter
                narrow, wide = (self.oracle.exact(meter, self.now, parts) for parts in (64, 65))
                assert narrow is None or narrow <= balance.settled <= wide, meter
            assert self.ledger.dropped == self.oracle.dropped

    def teardown(self):
        if hasattr(self, "ledger"):
            for which in SLOTS_OF_CALLS:
                self.ledger.release(self.call(which), self.now)
            for meter in self.names:
                balance = self.ledger.read(meter, self.now)
                assert (balance.held, balance.holds) == (0, 0), meter
