"""`check` agrees with what a call does next: yes if and only if it is admitted; and it holds and counts nothing."""

from __future__ import annotations

import copy
import gc
import warnings
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import shekel
from budgets.conftest import CLAUDE, HELLO, MODEL, ask
from shekel import Budget, BudgetExceededError, budget, check, late, per, record, scope
from shekel.budgets.spec import parse_limit
from shekel.call import Call, open_calls
from shekel.questions import _call
from shekel.runtime import the_runtime
from shekel.scopes.asked import asked
from shekel.settlement import Outcome
from shekel.testing import FakeProvider


@pytest.fixture(autouse=True)
def no_policies() -> Iterator[None]:
    yield
    shekel.configure(policies=[])


def state() -> Any:
    """Everything that a question must leave as it is."""
    runtime = the_runtime()
    meters = {
        repr(meter): (cell.settled, cell.held, cell.holds, cell.past, cell.ends, cell.epoch, cell.window)
        for meter, cell in runtime.ledger._meters.cells.items()
    }
    tables = (len(runtime.ledger._open), len(runtime.ledger._settled), len(runtime.ledger._released))
    return meters, tables, dict(runtime.gate.gauges.meters), dict(open_calls)


AMOUNTS = st.sampled_from(
    ["$0.0001", "$0.001", "$0.02", "3 calls", "2000 tokens", "500 output tokens", "40 input tokens"]
)
WINDOWS = st.sampled_from(["", "/hr", "/day", "/session"])
LIMITS = st.builds("{}{}".format, AMOUNTS, WINDOWS)
MODES = st.sampled_from(["sliced", "strict", "expected"])
AT = st.sampled_from(["raise", "raise", "warn", "shadow", "finish"])
BUDGETS = st.fixed_dictionaries(
    {"limits": st.builds(lambda text: [parse_limit(text, "limit")], LIMITS), "mode": MODES, "at_limit": AT}
)
FALLBACK = st.sampled_from([None, None, {"at_pct": 0.5, "model": "gpt-4.1-nano"}])
REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "max_tokens": st.integers(1, 3000),
        "n": st.integers(1, 3),
        "tools": st.just([{"type": "function", "function": {"name": "f", "parameters": {}}}]),
    },
)


class TestAgrees:
    @settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        around=st.lists(BUDGETS, max_size=2),
        policy=st.lists(st.tuples(LIMITS, MODES), max_size=2),
        fallback=FALLBACK,
        before=st.lists(st.tuples(st.sampled_from([0.00002, 0.0004, 0.01]), st.integers(0, 300)), max_size=3),
        request=REQUESTS,
        stream=st.booleans(),
        model=st.sampled_from([MODEL, "gpt-4o", CLAUDE, "nobody-knows-this"]),
    )
    def test_with_the_gate_and_changes_nothing(
        self, around: Any, policy: Any, fallback: Any, before: Any, request: Any, stream: bool, model: str
    ) -> None:
        shekel.configure(
            policies=[per("user.id", limit, mode=mode, name=str(n)) for n, (limit, mode) in enumerate(policy)]
        )
        budgets = [Budget(**each) for each in around]
        if budgets and fallback is not None:
            budgets[0] = Budget(**around[0], fallback=fallback)
        for each in budgets:
            each.__enter__()
        gc.disable()  # so that none goes in between
        with warnings.catch_warnings(action="ignore"):
            try:
                for cost, tokens in before:
                    record(cost, user_id="ada", output_tokens=tokens, model=MODEL)
                late.flush()  # what is left of budgets of other tests goes
                then = state()
                verdict = check(user_id="ada", model=model, messages=HELLO, request=request, stream=stream)
                assert state() == then
                here = asked({"user.id": "ada"}, {})
                call: Call = _call(the_runtime(), here, model, HELLO, request, stream, None, None)
                the_runtime().gate.admit(call, here)
                refusal = call.refusal
                assert verdict.admitted == bool(verdict) == (refusal is None)
                assert type(verdict.error) is type(refusal)
                assert verdict.model == call.model
                assert verdict.fallback_from == call.fallback_from
                assert verdict.cap == call.cap
                if isinstance(refusal, BudgetExceededError):
                    mine = copy.copy(vars(verdict.error))
                    theirs = copy.copy(vars(refusal))
                    assert mine.pop("retry_after") == pytest.approx(theirs.pop("retry_after"), abs=60)
                    assert mine == theirs
                    assert verdict.reason == refusal.reason
                call.finish(Outcome.REFUSED)
            finally:
                gc.enable()
                for each in reversed(budgets):
                    each.__exit__(None, None, None)

    @pytest.mark.parametrize("streamed", [False, True])
    def test_with_calls_that_are_sent_until_none_is(
        self, streamed: bool, client: openai.OpenAI, provider: FakeProvider
    ) -> None:
        shekel.configure(policies=[per("user.id", "$0.0002 + 9 calls")])
        said, done = [], []
        with scope(user_id="ada"):
            for _ in range(9):
                said.append(
                    bool(check(model=MODEL, messages=HELLO, request={"max_tokens": 64}, stream=streamed, client=client))
                )
                try:
                    made = client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=64, stream=streamed)
                    list(made) if streamed else made
                    done.append(True)
                except BudgetExceededError as error:
                    done.append(error.reason == "cut")  # it was admitted
        assert said == done
        assert done.count(True) == len(provider.bill) > 0
        assert False in done

    def test_for_the_other_sdk(self, claude: anthropic.Anthropic) -> None:
        shekel.configure(policies=[per("user.id", "$0.001")])
        for cap in (50, 2000):
            verdict = check(user_id="ada", model=CLAUDE, messages=HELLO, request={"max_tokens": cap}, client=claude)
            with scope(user_id="ada"):
                if verdict:
                    claude.messages.create(model=CLAUDE, messages=HELLO, max_tokens=cap)
                else:
                    with pytest.raises(BudgetExceededError):
                        claude.messages.create(model=CLAUDE, messages=HELLO, max_tokens=cap)
            assert verdict.admitted == (cap == 50)


class TestSays:
    def test_why_not(self) -> None:
        shekel.configure(policies=[per("user.id", "$0.0001/day")])
        with scope(user_id="ada"):
            record(0.00008)
        verdict = check(user_id="ada", model=MODEL, messages=HELLO, request={"max_tokens": 50})
        assert (verdict.admitted, verdict.reason, verdict.model) == (False, "exceeded", MODEL)
        assert isinstance(verdict.error, BudgetExceededError)
        assert verdict.error.scope == "user.id=ada"
        assert verdict.error.retry_after is not None
        more = check(user_id="ada", model=MODEL, messages=HELLO, request={"max_tokens": 500}).error
        assert isinstance(more, BudgetExceededError)
        assert more.retry_after is None, "it needs more than a whole day's limit"
        assert verdict.message == str(verdict.error)
        assert verdict.public_message is not None
        assert "$" not in verdict.public_message
        assert check(user_id="bob", model=MODEL, messages=HELLO, request={"max_tokens": 50})
        assert check(model=MODEL).error is None

    def test_without_a_model_whether_there_is_any_room(self, client: openai.OpenAI) -> None:
        shekel.configure(policies=[per("user.id", "2 calls/hr + $0.01 on gpt-4o + 1 tool calls")])
        with scope(user_id="ada"):
            ask(client)
            record(0.5, model="gpt-4o")
            verdict = check()
        assert (verdict.admitted, verdict.reason) == (False, "exceeded")
        assert isinstance(verdict.error, BudgetExceededError)
        assert (verdict.error.exceeded_counter, verdict.error.limit) == ("llm_calls", 2)
        assert check(user_id="bob")
        with budget() as b:
            b.stop()
            # Without a limit too: a stopped budget lets nothing pass.
            assert check(model=MODEL).reason == "stopped"
            assert check().reason == "stopped"

    def test_a_call_that_would_stand_in_a_queue(self, client: openai.OpenAI) -> None:
        with budget("1 calls/hr", at_limit="pause") as b:
            assert check(model=MODEL, messages=HELLO)
            ticket = b.queue.join(lambda: None)
            assert check(model=MODEL, messages=HELLO).reason == "waiting"
            b.queue.leave(ticket)

    def test_a_call_that_would_pass_those_who_wait_for_what_it_does_not_need(self) -> None:
        with budget("$1 + 1 call on gpt-4o", at_limit="pause", last_call=0.5) as b:
            ticket = b.queue.join(lambda: None)
            b.queue.lacking(ticket, (1, None))  # the second limit
            assert check(model=MODEL, messages=HELLO)
            assert check(model="gpt-4o", messages=HELLO).reason == "waiting"
            b.queue.lacking(ticket, None)
            assert check(model=MODEL, messages=HELLO).reason == "waiting"
            with b.last_call():
                assert check(model=MODEL, messages=HELLO)
            b.queue.leave(ticket)

    @pytest.mark.parametrize(
        "wrong",
        [{"model": ""}, {"model": 7}, {"model": MODEL, "api": "images"}, {"model": MODEL, "request": 5}],
        ids=repr,
    )
    def test_what_makes_no_sense_is_refused(self, wrong: Any) -> None:
        with pytest.raises(ValueError, match=r"model|api|request"):
            check(**wrong)
