"""The gate against the law, further: attempts that fail before the last, tools, limits of one model and of one day.

The same machine as in `test_gate_model`, in which a call may also be tried again, a tool may run, and days go by; what
a call is charged is worked out from the rows of the law, attempt by attempt.
"""

from __future__ import annotations

import time
import warnings
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule
from opentelemetry.context import Context

from shekel import context
from shekel.budgets import budget as budgets
from shekel.budgets.limits import Limit, Unit
from shekel.budgets.part_errors import ToolBudgetExceededError
from shekel.budgets.windows import Calendar
from shekel.call import Call
from shekel.providers.base import Answer
from shekel.settlement import Billing, Failure, Outcome

from .gate_oracle import Facts, Meter, charge
from .test_gate_model import AnyCalls, amounts, modes, requests, stacks

DAY = 86_400
KEPT = 4
"""Past days whose meters a reset still reaches, that of today included."""

every = {**amounts, Unit.TOOL_CALLS: st.integers(1, 4)}
limits = st.sampled_from(sorted(every)).flatmap(
    lambda unit: st.builds(
        Limit,
        every[Unit(unit)],
        st.just(Unit(unit)),
        st.sampled_from([None, None, Calendar("day")]),
        st.none() if unit == Unit.TOOL_CALLS else st.sampled_from([None, None, "gpt-4o"]),
    )
)
several = st.lists(limits, min_size=1, max_size=4, unique_by=lambda limit: (limit.unit, limit.window, limit.model))
makings = st.tuples(several, modes, st.sampled_from(["raise", "raise", "raise", "warn"]))
tried = requests.map(lambda asked: {**asked, "attempts": 3})
billings = st.sampled_from(sorted(Billing))


class AnyCallsAndTools(AnyCalls):
    @initialize(made=st.lists(makings, min_size=3, max_size=3))
    def begin(self, made: list[tuple[list[Limit], str, str]]) -> None:
        self.time = time.time
        super().begin([([], mode, at) for _, mode, at in made])
        time.time = self.clock
        self.gate.clock = lambda: int(self.clock() * 1_000_000)
        self.budgets = [budgets.Budget(limits=limits, mode=mode, at_limit=at) for limits, mode, at in made]
        self.meters = [[] for _ in made]
        self.days: list[list[list[tuple[Any, Meter]]]] = [[] for _ in made]
        self.past: list[tuple[Any, Meter]] = []
        self.touched: dict[int, float] = {}
        self.model = ""
        self.failed: dict[str, list[str]] = {}
        self.first_hold: dict[str, list[int]] = {}
        self.made = made
        self.today()

    def today(self) -> None:
        """The meters of this day: those without a window go on, the others are new."""
        for which, (budget, (_, mode, at)) in enumerate(zip(self.budgets, self.made, strict=True)):
            known = {id(name): (name, meter) for name, meter in self.meters[which]}
            self.meters[which] = []
            for claim in budget.claims(self.clock()):
                window = Calendar("day") if claim.window else None
                new = Meter(claim.unit.value, claim.limit, mode, at == "raise", window, claim.model)
                self.meters[which].append(known.get(id(claim.meter), (claim.meter, new)))
            self.past += [pair for pair in known.values() if pair not in self.meters[which]]
            days = self.days[which]
            if not days or any(pair not in days[-1] for pair in self.meters[which]):
                self.days[which] = [*days, self.meters[which]][-KEPT:]

    def on(self, stack: list[int]) -> list[tuple[Any, Meter]]:
        """What a call of the model that is asked for now is charged to."""
        return [
            (name, meter)
            for name, meter in super().on(stack)
            if meter.unit != "tool_calls" and meter.model in (None, self.model)
        ]

    def call(self, asked: dict[str, Any]) -> tuple[Call, Facts]:
        self.model = asked["model"]
        return super().call(asked)

    @rule(stack=stacks, asked=tried)
    def admit(self, stack: list[int], asked: dict[str, Any]) -> None:
        before = set(self.open)
        super().admit(stack, asked)
        for name in set(self.open) - before:
            self.failed[name] = []
            self.first_hold[name] = [meter.held[name] for _, meter in self.open[name][2]]
            self.touch(self.open[name][2])

    # Attempts

    @precondition(lambda self: self.before_the_last())
    @rule(which=st.integers(0, 50), billing=billings)
    def try_again(self, which: int, billing: Billing) -> None:
        """An attempt fails, and another follows: what it has probably cost is held beside the hold, by force."""
        names = self.before_the_last()
        name = names[which % len(names)]
        call, facts, pairs, _ = self.open[name]
        call.attempt_failed(Failure("failed", billing))
        self.gate.retrying(call)
        self.touch(pairs if billing is Billing.PROBABLY or "probably" in self.failed[name] else [])
        self.failed[name].append(billing.value)
        if billing is Billing.PROBABLY:
            for _, meter in pairs:
                if meter.mode != "strict" and meter.unit != "calls":
                    base, rate = facts.parts(meter.unit)
                    meter.held[name] += base + facts.likely * rate

    def before_the_last(self) -> list[str]:
        return [
            n for n, (call, facts, _, _) in self.open.items() if call.tries < facts.attempts and not call.first_chunk
        ]

    @precondition(lambda self: any(facts.stream and not self.failed[n] for n, (_, facts, _, _) in self.open.items()))
    @rule(which=st.integers(0, 50), more=st.integers(1, 300))
    def stream_on(self, which: int, more: int) -> None:
        """Of streams whose first attempt was answered."""
        tried = {name: each for name, each in self.open.items() if self.failed[name]}
        self.open = {name: each for name, each in self.open.items() if name not in tried}
        super().stream_on(which, more)
        self.open |= tried
        for _, _, pairs, _ in self.open.values():
            self.touch(pairs)  # nothing that is held on is forgotten, whenever it was touched last

    # Ends

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 50), billing=billings)
    def fail(self, which: int, billing: Billing) -> None:
        self.end(self.pick(which), Outcome.FAILED, None, Failure("failed", billing))

    def end(self, name: str, outcome: Outcome, answer: Answer | None, failure: Failure | None = None) -> None:
        call, facts, pairs, _ = self.open.pop(name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert call.finish(outcome, answer=answer, failure=failure)
        usage = None if answer is None or answer.usage is None else (answer.usage.input, answer.usage.output)
        billed = [*self.failed[name], *([] if failure is None else [failure.billing.value])]
        for (_, meter), held in zip(pairs, self.first_hold[name], strict=True):
            now_held = meter.held.pop(name)
            strict = meter.mode == "strict" and meter.votes and meter.limit is not None
            if call.first_chunk is not None and usage is None:  # a stream that broke off: an estimate of what came
                assert call.cost is not None
                if strict:
                    may_have_cost = 1 + sum(how != "nothing" for how in self.failed[name])
                    now_held = now_held // facts.attempts * may_have_cost
                meter.settled[name] = self.charge(meter, call.cost, strict, outcome, now_held, True)
            elif meter.unit == "calls":
                counts = outcome is not Outcome.FAILED or usage is not None or "probably" in billed
                meter.settled[name] = int(counts or (strict and "perhaps" in billed))
            else:
                last = None if failure is None else failure.billing.value
                meter.settled[name] = charge(meter, facts, self.failed[name], last, usage, held)
        self.ended[name] = pairs
        self.touch(pairs)

    # Tools

    @rule(stack=stacks, price=st.sampled_from([0, 0, 1_000, 500_000]))
    def run_a_tool(self, stack: list[int], price: int) -> None:
        here = Context({context.BUDGETS: tuple(self.budgets[index] for index in stack)})
        pairs = [
            (name, meter)
            for name, meter in super().on(stack)
            if meter.unit == "tool_calls" or (meter.unit == "usd" and meter.model is None and price)
        ]
        asks = [1 if meter.unit == "tool_calls" else price for _, meter in pairs]
        fits = all(
            ask <= meter.room()
            for ask, (_, meter) in zip(asks, pairs, strict=True)
            if meter.votes and meter.limit is not None
        )
        fits = fits and not any(self.budgets[index].stopped for index in stack)
        try:
            self.gate.admit_tool("tool", lambda budget: price, here)
        except ToolBudgetExceededError:
            assert not fits, pairs
            return
        assert fits, pairs
        self.runs = getattr(self, "runs", 0) + 1
        for ask, (_, meter) in zip(asks, pairs, strict=True):
            meter.settled[f"run {self.runs}"] = ask
        self.touch(pairs)

    # Days

    @rule(hours=st.sampled_from([1, 5, 23, 24, 30]))
    def time_passes(self, hours: int) -> None:
        self.clock.advance(hours * 3_600)
        self.today()
        for _, meter in self.past:
            if not meter.held and self.clock() >= self.touched.get(id(meter), 0) + 2 * DAY:
                meter.settled.clear()  # and what is corrected later is dropped

    def touch(self, pairs: list[tuple[Any, Meter]]) -> None:
        self.touched.update({id(meter): self.clock() for _, meter in pairs})

    @precondition(lambda self: any(meter.settled for pairs in self.meters for _, meter in pairs))
    @rule(which=st.integers(0, 2))
    def reset(self, which: int) -> None:
        self.budgets[which].reset()
        for pairs in self.days[which]:
            for _, meter in pairs:
                meter.settled.clear()

    @invariant()
    def every_meter_shows_what_was_added(self) -> None:
        now = int(self.clock() * 1_000_000) if hasattr(self, "clock") else 0
        for pairs in (*getattr(self, "meters", ()), getattr(self, "past", ())):
            for name, meter in pairs:
                balance = self.ledger.read(name, now)
                assert balance.settled == sum(meter.settled.values()), meter
                assert balance.held == sum(meter.held.values()), meter
                assert balance.holds == len(meter.held), meter

    @rule(which=st.integers(0, 2), number=st.integers(0, 5), data=st.data())
    def change_a_limit(self, which: int, number: int, data: st.DataObject) -> None:
        limited = [meter for _, meter in self.meters[which] if meter.limit is not None]
        if limited:
            meter = limited[number % len(limited)]
            self.set_limit(which, meter, data.draw(every[Unit(meter.unit)]))

    @rule(stack=stacks, asked=tried)
    def admit_where_there_is_room(self, stack: list[int], asked: dict[str, Any]) -> None:
        for which in set(stack):
            self.make_room(which)
        self.admit(stack, asked)

    def make_room(self, which: int) -> None:
        self.budgets[which].resume()
        room = {"usd": 500_000_000, "calls": 10, "tool_calls": 10}
        for _, meter in self.meters[which]:
            if meter.limit is not None:
                self.set_limit(which, meter, meter.used + room.get(meter.unit, 200_000))

    def set_limit(self, which: int, meter: Meter, amount: int) -> None:
        """It is the limit of each day, for the streams of yesterday too."""
        super().set_limit(which, meter, amount)
        for pairs in self.days[which]:
            for _, other in pairs:
                if (other.unit, other.window, other.model) == (meter.unit, meter.window, meter.model):
                    other.limit = amount

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            time.time = getattr(self, "time", time.time)


_SETTINGS = settings(deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)


class TestTheGateDecidesAsTheLaw(AnyCallsAndTools.TestCase):
    settings = settings(_SETTINGS, max_examples=100, stateful_step_count=30)


@pytest.mark.slow
class TestTheGateDecidesAsTheLawForLong(AnyCallsAndTools.TestCase):
    settings = settings(_SETTINGS, max_examples=2_000, stateful_step_count=50)
