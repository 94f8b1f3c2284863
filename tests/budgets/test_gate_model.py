"""The gate against the law: any interleaving of calls, slices, ends, corrections, new limits, resets and stops.

Each decision must be the oracle's in both directions (nothing admitted that does not fit, nothing refused that fits),
every meter must show what the oracle adds up, to the nano-dollar, and at the end nobody holds anything.
"""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from opentelemetry.context import Context

from shekel import context
from shekel.budgets import budget as budgets
from shekel.budgets import wiring
from shekel.budgets.around import BudgetsOfContext
from shekel.budgets.gate import Gate
from shekel.budgets.limits import Limit, Unit
from shekel.call import Call
from shekel.estimation import Estimator
from shekel.ledgers.memory import MemoryLedger
from shekel.pricing import Prices
from shekel.providers import find_endpoint
from shekel.providers.base import Answer
from shekel.settlement import Billing, Failure, Outcome
from shekel.testing import Clock
from shekel.usage import Usage

from .gate_oracle import LEAST_SLICE, Facts, Meter, decide, least

PRICES = Prices()
MODELS = ("gpt-4o-mini", "gpt-4o")
NANO = 1_000_000_000

amounts = {
    Unit.USD: st.sampled_from([1_000, 40_000, 200_000, 1_000_000, 30_000_000]) | st.integers(1, 2_000_000),
    Unit.CALLS: st.integers(1, 5),
    Unit.INPUT: st.integers(1, 400),
    Unit.OUTPUT: st.integers(1, 2_000),
    Unit.TOKENS: st.integers(1, 2_500),
}
limits = st.sampled_from(sorted(amounts)).flatmap(
    lambda unit: amounts[unit].map(lambda amount: Limit(amount, Unit(unit)))
)
several = st.lists(limits, max_size=3, unique_by=lambda limit: limit.unit)
modes = st.sampled_from(["sliced", "sliced", "strict", "expected"])
makings = st.tuples(several, modes, st.sampled_from(["raise", "raise", "raise", "warn"]))
stacks = st.lists(st.integers(0, 2), min_size=1, max_size=3)
requests = st.fixed_dictionaries(
    {
        "model": st.sampled_from(MODELS),
        "text": st.sampled_from(["hi", "word " * 40, "水" * 30]),
        "cap": st.none() | st.integers(1, 700),
        "n": st.sampled_from([1, 1, 1, 3]),
        "stream": st.booleans(),
        "attempts": st.sampled_from([1, 1, 3]),
    }
)


class Silent:
    """A teller that nobody listens to."""

    def finished(self, call: Any, cost: Any) -> None:
        return

    def event(self, call: Any, name: str, attributes: Any) -> None:
        return


class AnyCalls(RuleBasedStateMachine):
    @initialize(made=st.lists(makings, min_size=3, max_size=3))
    def begin(self, made: list[tuple[list[Limit], str, str]]) -> None:
        self.ledger = MemoryLedger()
        self.former, wiring.ledger = wiring.ledger, lambda: self.ledger
        self.clock = Clock()
        self.estimator = Estimator()
        self.gate = Gate(self.ledger, lambda: PRICES, self.estimator, (BudgetsOfContext(),))
        self.budgets = [budgets.Budget(limits=limits, mode=mode, at_limit=at) for limits, mode, at in made]
        self.meters: list[list[tuple[Any, Meter]]] = []
        for each, (_, mode, at) in zip(self.budgets, made, strict=True):
            claims = each.claims(self.clock())
            assert claims[0].unit == "usd"
            votes = at == "raise"
            self.meters.append([(claim.meter, Meter(claim.unit.value, claim.limit, mode, votes)) for claim in claims])
        self.open: dict[str, tuple[Call, Facts, list[tuple[Any, Meter]], int]] = {}
        self.ended: dict[str, list[tuple[Any, Meter]]] = {}

    def on(self, stack: list[int]) -> list[tuple[Any, Meter]]:
        return [pair for index in dict.fromkeys(stack) for pair in self.meters[index]]

    # Admission

    @rule(stack=stacks, asked=requests, which=st.integers(0, 5), off=st.sampled_from([-1, 0, 0, 1]))
    def admit_at_the_edge(self, stack: list[int], asked: dict[str, Any], which: int, off: int) -> None:
        """The limit of one meter is what is used and what the call needs, or one more, or one less."""
        _, facts = self.call(asked)
        pairs = self.on(stack)
        needs = least([meter for _, meter in pairs], facts)
        limited = [index for index, (_, meter) in enumerate(pairs) if meter.limit is not None]
        if limited:
            index = limited[which % len(limited)]
            name, meter = pairs[index]
            amount = meter.used + needs[index] + off
            if amount > 0:
                owner = next(n for n, own in enumerate(self.meters) if any(each is name for each, _ in own))
                self.set_limit(owner, meter, amount)
        self.admit(stack, asked)

    @rule(stack=stacks, asked=requests)
    def admit(self, stack: list[int], asked: dict[str, Any]) -> None:
        call, facts = self.call(asked)
        here = Context({context.BUDGETS: tuple(self.budgets[index] for index in stack)})
        self.gate.admit(call, here)
        pairs = self.on(stack)
        if any(self.budgets[index].stopped for index in stack):
            assert getattr(call.refusal, "reason", None) == "stopped"
            return
        fits, spans = decide([meter for _, meter in pairs], facts)
        assert (call.refusal is None) == fits, (call.refusal, facts, pairs)
        if call.refusal is not None or spans is None:
            return
        assert call.held_lines is not None
        for index, ((name, meter), (fewest, most)) in enumerate(zip(pairs, spans, strict=True)):
            assert call.claims[index].meter is name
            held = call.held(index)
            assert fewest <= held <= most, (meter, held, fewest, most)
            meter.held[call.id] = held
        if facts.stream:
            call.streaming(call.endpoint.reader(call.request, self.estimator.rates(call.model)))
        self.open[call.id] = (call, facts, pairs, 0)

    def call(self, asked: dict[str, Any]) -> tuple[Call, Facts]:
        endpoint = find_endpoint("openai", "post", "/chat/completions")
        assert endpoint is not None
        body = {
            "model": asked["model"],
            "messages": [{"role": "user", "content": asked["text"]}],
            "n": asked["n"],
            "stream": asked["stream"],
        }
        if asked["cap"] is not None:
            body["max_tokens"] = asked["cap"]
        request = endpoint.read_request(body)
        call = Call(
            endpoint,
            request,
            gate=self.gate,
            teller=Silent(),
            now=self.clock,
            wall=self.clock,
            host="api.openai.com",
            attempts=asked["attempts"],
            body=body,
        )
        quote = PRICES.quote("openai", asked["model"], host="api.openai.com", at=self.clock())
        assert quote is not None
        assert quote.max_output is not None
        assert request.input_bound is not None
        facts = Facts(
            tokens=self.estimator.input_tokens(request.model, request.text) + request.extra_input,
            bound=request.input_bound,
            cap=asked["cap"],
            n=asked["n"],
            likely=self.gate.expected_output(call),
            attempts=asked["attempts"],
            stream=asked["stream"],
            rate_in=quote.input_rate,
            rate_out=quote.output_rate,
            dearest_in=quote.dearest_input,
            dearest_out=quote.dearest_output,
            maximum=quote.max_output,
        )
        return call, facts

    # Slices

    @precondition(lambda self: any(facts.stream for _, facts, _, _ in self.open.values()))
    @rule(which=st.integers(0, 50), more=st.integers(1, 300))
    def stream_on(self, which: int, more: int) -> None:
        streams = [name for name, (_, facts, _, _) in self.open.items() if facts.stream]
        name = streams[which % len(streams)]
        call, facts, pairs, done = self.open[name]
        done += more
        if facts.cap is not None:
            done = min(done, facts.cap * facts.n)
        self.open[name] = (call, facts, pairs, done)
        call.first_chunk = call.first_chunk or self.clock()
        granted = call.granted
        if granted is None or (facts.cap is not None and granted >= facts.cap * facts.n):
            assert self.gate.extend(call, done)
            return
        rest = 256 if facts.cap is None else facts.cap * facts.n - done
        total = done + min(LEAST_SLICE, rest) if done >= granted else granted + 1
        sliced = [meter.mode == "sliced" for _, meter in pairs]
        needs = [
            base + total * rate if slices else meter.held[name]
            for (_, meter), slices in zip(pairs, sliced, strict=True)
            for base, rate in [facts.parts(meter.unit)]
        ]
        fits = all(
            max(need, 0) <= meter.room(without=name)
            for need, (_, meter) in zip(needs, pairs, strict=True)
            if meter.votes and meter.limit is not None
        )
        assert self.gate.extend(call, done) == fits, (facts, done, granted, pairs)
        if not fits:
            assert call.cut is not None
            self.end(name, Outcome.CUT, None)
            return
        assert call.granted is not None
        assert call.granted >= total
        assert call.granted <= max(total, max(done, granted) + 256)
        for index, (_, meter) in enumerate(pairs):
            held = call.held(index)
            base, rate = facts.parts(meter.unit)
            if sliced[index]:
                held = max(meter.held[name], base + call.granted * rate)
            meter.held[name] = held

    # Ends

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 50), used_in=st.integers(0, 500), used_out=st.integers(0, 3_000))
    def complete(self, which: int, used_in: int, used_out: int) -> None:
        usage = Usage(input=used_in, output=used_out)
        self.end(self.pick(which), Outcome.COMPLETE, Answer(usage=usage))

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 50))
    def fail_for_nothing(self, which: int) -> None:
        self.end(self.pick(which), Outcome.FAILED, None, Failure("429", Billing.NOTHING))

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 50))
    def lose_the_connection(self, which: int) -> None:
        self.end(self.pick(which), Outcome.DROPPED, None, Failure("timeout", Billing.PROBABLY))

    def pick(self, which: int) -> str:
        return list(self.open)[which % len(self.open)]

    def end(self, name: str, outcome: Outcome, answer: Answer | None, failure: Failure | None = None) -> None:
        call, facts, pairs, _ = self.open.pop(name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert call.finish(outcome, answer=answer, failure=failure)
        assert not call.finish(outcome), "once"
        cost, began = call.cost, call.first_chunk is not None
        assert cost is not None
        for _, meter in pairs:
            strict = meter.mode == "strict" and meter.votes and meter.limit is not None
            held = meter.held.pop(name) // (facts.attempts if strict else 1)  # one was made of those it held for
            meter.settled[name] = self.charge(meter, cost, strict, outcome, held, began)
        self.ended[name] = pairs

    def charge(self, meter: Meter, cost: Any, strict: bool, outcome: Outcome, held: int, began: bool) -> int:
        """What the law charges: the usage where it is known, else the estimate; strict meters the upper bound."""
        if meter.unit == "usd":
            return int(cost.committed if strict else cost.spent)
        if outcome is Outcome.FAILED and not began:
            return 0
        if meter.unit == "calls":
            return 1
        if cost.usage is None or (strict and cost.estimated):
            return held
        parts = {"input_tokens": cost.usage.input, "output_tokens": cost.usage.output}
        return int(parts.get(meter.unit, cost.usage.input + cost.usage.output))

    # Changes

    @precondition(lambda self: self.ended)
    @rule(which=st.integers(0, 50), nano=st.integers(0, 3_000_000))
    def reconcile(self, which: int, nano: int) -> None:
        name = list(self.ended)[which % len(self.ended)]
        self.gate.corrections.reconcile(name, nano, int(self.clock() * 1_000_000))
        for _, meter in self.ended[name]:
            if meter.unit == "usd" and name in meter.settled:
                meter.settled[name] = nano

    @rule(which=st.integers(0, 2), number=st.integers(0, 5), data=st.data())
    def change_a_limit(self, which: int, number: int, data: st.DataObject) -> None:
        pairs = [(name, meter) for name, meter in self.meters[which] if meter.limit is not None]
        if not pairs:
            return
        _, meter = pairs[number % len(pairs)]
        amount = data.draw(amounts[Unit(meter.unit)])
        self.set_limit(which, meter, amount)

    def set_limit(self, which: int, meter: Meter, amount: int) -> None:
        self.budgets[which].set_limit(Limit(amount, Unit(meter.unit), meter.window, meter.model))
        meter.limit = amount

    @precondition(lambda self: any(meter.settled for pairs in self.meters for _, meter in pairs))
    @rule(which=st.integers(0, 2))
    def reset(self, which: int) -> None:
        """What was settled goes, with its corrections; what is open is held and will be charged."""
        self.budgets[which].reset()
        for _, meter in self.meters[which]:
            meter.settled.clear()

    @rule(which=st.integers(0, 11))
    def stop(self, which: int) -> None:
        if which < len(self.budgets):  # seldom: what is stopped decides nothing
            self.budgets[which].stop()

    @precondition(lambda self: any(each.stopped for each in self.budgets))
    @rule(which=st.integers(0, 2))
    def resume(self, which: int) -> None:
        self.budgets[which].resume()

    # What must hold

    @invariant()
    def every_meter_shows_what_was_added(self) -> None:
        for pairs in getattr(self, "meters", ()):
            for name, meter in pairs:
                balance = self.ledger.read(name)
                assert balance.settled == sum(meter.settled.values()), meter
                assert balance.held == sum(meter.held.values()), meter
                assert balance.holds == len(meter.held), meter

    def teardown(self) -> None:
        if not hasattr(self, "meters"):
            return
        try:
            for name in list(self.open):
                self.end(name, Outcome.COMPLETE, Answer(usage=Usage(input=1, output=1)))
            self.every_meter_shows_what_was_added()
            for pairs in self.meters:
                assert all(self.ledger.read(name)[1:] == (0, 0) for name, _ in pairs)
        finally:
            wiring.ledger = self.former


_SETTINGS = settings(deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)


class TestTheGateDecidesAsTheLaw(AnyCalls.TestCase):
    settings = settings(_SETTINGS, max_examples=100, stateful_step_count=30)


@pytest.mark.slow
class TestTheGateDecidesAsTheLawForLong(AnyCalls.TestCase):
    settings = settings(_SETTINGS, max_examples=2_000, stateful_step_count=50)
