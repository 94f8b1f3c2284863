"""Plans: who has which, what counts while the program's function has no answer, and what a change of plan keeps."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import pytest

from shekel import faults, per
from shekel.policies.policy import Policy
from shekel.policies.resolver import THREADS, Resolver

from .desk import IN, OUT, Desk

CALL = 100 * (IN + OUT)
PLANS = {"free": "1 call/day", "pro": "3 calls/day", "staff": "unlimited"}
DEADLINE = 30.0


def planned(plan_of: Any = None, **more: Any) -> Policy:
    return per("user.id", plans=PLANS, plan_of=plan_of, default_plan="free", **more)


def passed(desk: Desk, user: str, calls: int = 5) -> int:
    return sum(desk.passes({"user_id": user}) for _ in range(calls))


@pytest.fixture
def counted() -> Any:
    """How many faults of a place were counted since."""
    before = dict(faults.counted)
    return lambda place: faults.counted[place] - before.get(place, 0)


class TestTable:
    def test_each_value_has_the_limits_of_its_plan_and_unknown_ones_the_default(self) -> None:
        desk = Desk(planned({"ada": "pro", "eve": "staff"}))
        assert [passed(desk, user) for user in ("ada", "eve", "nobody", "else")] == [3, 5, 1, 1]

    def test_of_several_keys_one_says_the_plan(self) -> None:
        desk = Desk(
            per("tenant.id", "user.id", plans=PLANS, default_plan="free", plan_of={"acme": "pro"}, plan_by="tenant.id")
        )
        both = [{"tenant_id": tenant, "user_id": "ada"} for tenant in ("acme", "other")]
        assert [sum(desk.passes(who) for _ in range(5)) for who in both] == [3, 1]

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ({"plans": {}}, "plans must be limits by plan"),
            ({"plans": {"free": ()}}, r"plans\['free'\] is empty"),
            ({"plans": {"free": "$5 mode=strict"}}, "no part of a limit"),
            ({"plans": {"free": ["$5", "$6"]}}, r"plans\['free'\] contradicts itself"),
            ({"default_plan": ["free"]}, r"\['free'\] is no plan"),
            ({"plan_of": {"ada": ["pro"]}}, r"'ada' has the plan \['pro'\]"),
            ({"plans": {"free": "nothing"}}, r"plans\['free'\]"),
            ({"plans": {"": "$5"}}, "no name of a plan"),
            ({"default_plan": None}, "no default_plan"),
            ({"default_plan": "gold"}, "'gold' is no plan: give one of free, pro, staff"),
            ({"plan_of": {"ada": "gold"}}, "'ada' has the plan 'gold'"),
            ({"plan_of": {7: "pro"}}, "7 is no value"),
            ({"plan_of": "pro"}, "a table .* or a function"),
            ({"plan_cache": 5}, "plan_cache is for a plan_of that is a function"),
            ({"plan_of": str, "plan_cache": 0}, "plan_cache must be seconds"),
            ({"plan_of": str, "plan_timeout": "1"}, "plan_timeout must be seconds"),
            ({"plan_by": "tenant.id"}, "none of the policy's keys"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, arguments: dict[str, Any], said: str) -> None:
        with pytest.raises(ValueError, match=said):
            per("user.id", **{"plans": PLANS, "default_plan": "free", **arguments})

    def test_a_limit_beside_plans_and_several_keys_without_plan_by_are_refused(self) -> None:
        with pytest.raises(ValueError, match=r"'\$5/day' is a limit beside plans"):
            per("user.id", "$5/day", plans=PLANS, default_plan="free")
        with pytest.raises(ValueError, match="plan_by must say"):
            per("tenant.id", "user.id", plans=PLANS, default_plan="free")


class TestChange:
    def test_a_whole_number_is_the_value_that_a_scope_makes_of_it(self) -> None:
        desk = Desk(planned())
        assert passed(desk, 7) == 1  # type: ignore[arg-type]
        desk.policies.assign(7, "pro", None)
        assert desk.passes({"user_id": 7})  # type: ignore[dict-item]
        for value in ("", None, True, ["ada"], " ada"):
            with pytest.raises(ValueError, match=r"^value "):
                desk.policies.assign(value, "pro", None)  # type: ignore[arg-type]

    def test_an_assigned_plan_holds_from_the_next_call_on_and_keeps_what_was_spent(self) -> None:
        desk = Desk(planned())
        assert passed(desk, "ada") == 1
        desk.policies.assign("ada", "pro", None)
        assert (passed(desk, "ada"), passed(desk, "bob")) == (2, 1), "one of three was spent; bob is somebody else"
        desk.policies.assign("ada", None, None)
        assert passed(desk, "ada") == 0

    def test_another_window_knows_what_was_spent_under_the_plan_before(self) -> None:
        desk = Desk(per("user.id", plans={"free": "2 calls/day", "pro": "$1/month"}, default_plan="free"))
        assert passed(desk, "ada") == 2
        desk.policies.assign("ada", "pro", None)
        assert passed(desk, "ada", 3) == 3
        assert desk.spent({"user_id": "ada"}) == [5, 5 * CALL]
        desk.policies.assign("ada", "free", None)
        assert passed(desk, "ada") == 0

    def test_it_outlasts_policies_that_are_set_anew(self) -> None:
        desk = Desk(planned())
        desk.policies.assign("ada", "pro", "per user.id")
        desk.policies.set([planned({"ada": "staff"})])
        assert passed(desk, "ada") == 3
        desk.policies.set([per("user.id", plans={"free": "4 calls/day"}, default_plan="free")])
        assert passed(desk, "ada") == 1, "the plan is gone, so the default holds; three were spent"

    def test_a_plan_or_policy_that_is_not_there_is_refused(self) -> None:
        desk = Desk(planned())
        with pytest.raises(ValueError, match=r"'gold' is no plan of 'per user.id'"):
            desk.policies.assign("ada", "gold", None)
        with pytest.raises(LookupError, match=r"those with plans: 'per user.id'"):
            desk.policies.assign("ada", "pro", "nobody")
        with pytest.raises(LookupError, match=r"^no policy has plans: put one in force"):
            Desk(per("user.id", "$5")).policies.assign("ada", "pro", None)
        desk.policies.set([planned(), planned(name="other")])
        with pytest.raises(LookupError, match="of several"):
            desk.policies.assign("ada", "pro", None)

    def test_an_open_stream_has_the_plan_of_now(self) -> None:
        desk = Desk(per("user.id", plans={"free": "1k tokens/day", "pro": "1M tokens/day"}, default_plan="free"))
        for plan, goes_on in (("pro", True), ("free", False)):
            desk.policies.assign("ada", plan, None)
            call = desk.admit({"user_id": "ada"}, stream=True, cap=None)
            call.streaming(call.endpoint.reader(call.request, desk.gate.estimator.rates(call.model)))
            assert desk.gate.extend(call, 5_000) == goes_on
            desk.policies.assign("ada", "pro", None)
            assert desk.gate.extend(call, 9_000)
            desk.end(call, tokens=10)


class TestFunction:
    def test_it_is_asked_once_for_each_value_while_its_answer_counts(self) -> None:
        asked: list[str] = []

        def plan_of(user: str) -> str | None:
            asked.append(user)
            return {"ada": "pro", "eve": "staff"}.get(user)

        desk = Desk(planned(plan_of, plan_timeout=DEADLINE))
        assert [passed(desk, user) for user in ("ada", "eve", "nobody")] == [3, 5, 1]
        assert asked == ["ada", "eve", "nobody"]

    def test_its_answer_counts_for_the_stated_time(self) -> None:
        plans = iter(["free", *["pro"] * 1_000])
        resolver = Resolver(lambda value: next(plans), PLANS, 0.01, DEADLINE)
        assert resolver.plan("ada") == "free"
        deadline = time.monotonic() + DEADLINE
        while resolver.plan("ada") != "pro":
            assert time.monotonic() < deadline

    def test_one_that_raises_gives_the_default_counted(self, counted: Any) -> None:
        def plan_of(user: str) -> str:
            raise RuntimeError("no database")

        desk = Desk(planned(plan_of, plan_timeout=DEADLINE))
        assert passed(desk, "ada") == 1
        assert counted("asked for a plan") == 1, "it is not asked again for a while"

    @pytest.mark.parametrize("answer", ["gold", 7, [], {}])
    def test_an_answer_that_is_no_plan_gives_the_default_counted(self, counted: Any, answer: Any) -> None:
        desk = Desk(planned(lambda user: answer, plan_timeout=DEADLINE))
        assert passed(desk, "ada") == 1
        assert counted("asked for a plan") == 1

    def test_one_that_fails_later_leaves_a_value_its_own_plan(self, counted: Any) -> None:
        answers: dict[str, list[Any]] = {"ada": ["pro"], "bob": ["staff"]}
        resolver = Resolver(lambda value: answers[value].pop(), PLANS, 0.001, DEADLINE)
        assert [resolver.plan(user) for user in ("ada", "bob")] == ["pro", "staff"]
        time.sleep(0.002)
        assert [resolver.plan(user) for user in ("ada", "bob")] == ["pro", "staff"]
        assert counted("asked for a plan") == 2

    def test_a_slow_one_holds_up_a_call_for_the_stated_time_once(self, counted: Any) -> None:
        go = threading.Event()

        def plan_of(user: str) -> str:
            go.wait(DEADLINE)
            return "pro"

        desk = Desk(planned(plan_of, plan_timeout=0.2))
        start = time.monotonic()
        assert passed(desk, "ada", 50) == 1, "the default counts meanwhile"
        waited = time.monotonic() - start
        assert 0.2 <= waited < 10 * 0.2 + 5, "fifty calls have not waited one after the other"
        assert counted("waited for a plan") == 50
        go.set()
        deadline = time.monotonic() + DEADLINE
        while not desk.passes({"user_id": "ada"}):
            assert time.monotonic() < deadline
        assert passed(desk, "ada") == 1, "its answer counts as soon as it comes"

    def test_one_that_hangs_for_many_values_is_asked_for_a_few_at_once(self) -> None:
        go = threading.Event()
        at_once: list[int] = []
        busy = 0
        lock = threading.Lock()

        def plan_of(user: str) -> str:
            nonlocal busy
            with lock:
                busy += 1
                at_once.append(busy)
            go.wait(DEADLINE)
            with lock:
                busy -= 1
            return "pro"

        resolver = Resolver(plan_of, PLANS, None, 0.001)
        assert [resolver.plan(f"user {n}") for n in range(3 * THREADS)] == [None] * (3 * THREADS)
        go.set()
        deadline = time.monotonic() + DEADLINE
        while any(resolver.known(f"user {n}") != "pro" for n in range(3 * THREADS)):
            assert time.monotonic() < deadline
        assert max(at_once) <= THREADS

    def test_many_threads_that_want_many_values_get_each_its_own(self) -> None:
        """A value that got the plan of another would pass another number of calls."""
        names = list(PLANS)
        resolver = Resolver(lambda user: names[int(user) % 3], PLANS, 0.001, DEADLINE)
        wrong: list[Any] = []

        def work(seed: int) -> None:
            for n in range(300):
                user = (n * 7 + seed) % 40
                plan = resolver.plan(str(user))
                if plan != names[user % 3]:
                    wrong.append((user, plan))

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    @pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
    def test_a_forked_child_asks_by_threads_of_its_own(self) -> None:
        resolver = Resolver(lambda user: "pro", PLANS, 0.001, DEADLINE)
        assert resolver.plan("ada") == "pro"
        child = os.fork()
        if child == 0:
            try:
                os._exit(0 if resolver.plan("bob") == "pro" else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
