"""What a policy says: its limits, options and conditions, and which calls it is for."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from shekel import BudgetExceededError, context, per, scope
from shekel.budgets.claims import AtLimit
from shekel.budgets.limits import Mode, Unit

from .desk import IN, MODEL, OUT, Desk

ADA, BOB = {"user_id": "ada"}, {"user_id": "bob"}
CALL = 100 * (IN + OUT)


class TestSayings:
    def test_a_spec_says_limits_and_options(self) -> None:
        policy = per("user.id", "100 calls/hr + $5/day mode=strict warn_at=0.8 at_limit=warn name=users unpriced=allow")
        assert [limit.unit for limit in policy.limits] == [Unit.USD, Unit.CALLS]
        assert (policy.mode, policy.warn_at, policy.at_limit) == (Mode.STRICT, (0.8, 1.0), AtLimit.WARN)
        assert (policy.name, policy.allow_unpriced) == ("users", True)

    def test_a_list_says_as_much(self) -> None:
        assert per("user.id", ["$5/day", "100 calls/hr"]).limits == per("user.id", "$5/day + 100 calls/hr").limits
        assert per("user.id", 5).limits == per("user.id", "$5").limits

    @pytest.mark.parametrize(
        ("arguments", "options", "said"),
        [
            (("user.id", "user.id", "$5"), {}, "twice"),
            (("$5/day", "user.id"), {}, "a scope key must be a text .* not '.5/day'"),
            (("user id", "$5"), {}, "a scope key must be a text .* not 'user id'"),
            (("user.id=ada", "$5"), {}, "a scope key must be a text .* not 'user.id=ada'"),
            (("user.id", "$5 mode=strict"), {"mode": "sliced"}, "mode is said twice"),
            (("user.id", "$5/day + $6/day"), {}, "keep one"),
            (("user.id", []), {}, "empty list"),
            (("user.id", None), {}, "such as '\\$5/day'"),
            (("user.id", "$5"), {"name": " "}, "name must be"),
            (("user.id", "$5"), {"at_limit": "pause"}, "'raise', 'warn' or 'shadow', not 'pause'"),
            (("user.id", "$5"), {"warn_at": 2}, "warn_at"),
            (("user.id", "$5"), {"on_warn": print}, "give warn_at"),
            (("user.id", "$5"), {"match": {}}, "match must be conditions"),
            (("user.id", "$5"), {"match": {"model": []}}, "'model' must be a pattern"),
            (("user.id", "$5"), {"match": {"model": "gpt 4"}}, "match: a model"),
            (("user.id", "$5"), {"match": {"tenant.id": 7}}, "'tenant.id' must be a pattern"),
            (("user.id", "$5"), {"match": {"": "x"}}, "a condition is on"),
            (("user.id", "$5"), {"match": {"tenant id": "x"}}, "a condition is on .* not on 'tenant id'"),
            (("user.id", "5 tool calls"), {"match": {"model": "gpt-4o"}}, "tool calls have no model"),
            (("user.id", "$5"), {"fallback": {"model": "x"}}, "fallback must be"),
            (("user.id", "$5"), {"default_plan": "free"}, "has no plans"),
        ],
    )
    def test_what_makes_no_sense_is_refused_with_the_remedy(self, arguments: Any, options: Any, said: str) -> None:
        with pytest.raises(ValueError, match=said):
            per(*arguments, **options)

    def test_two_of_one_name_are_an_error_that_says_what_to_do(self) -> None:
        desk = Desk(per("user.id", "$1"))
        with pytest.raises(ValueError, match=r"two policies are named 'per user.id': give each a name"):
            desk.policies.set([per("user.id", "$5/day"), per("user.id", "100 calls/hr")])
        assert [policy.limits[0].text for policy in desk.policies.in_force] == ["$1"], "those before stay"


class TestLimits:
    def test_all_limits_of_a_policy_hold_for_each_value(self) -> None:
        desk = Desk(per("user.id", "$1/day + 2 calls/hr + 10k tokens/day"))
        assert [desk.passes(ADA) for _ in range(3)] == [True, True, False]
        assert desk.passes(BOB)
        assert desk.spent(ADA) == [2 * CALL, 2, 400]
        desk.clock.advance(3601 * 65 / 64)
        assert desk.passes(ADA)

    def test_a_limit_of_one_model_counts_its_calls_only(self) -> None:
        desk = Desk(per("user.id", "$1/day + 1 call/hr on gpt-4o"))
        assert [desk.passes(ADA, model="gpt-4o") for _ in range(2)] == [True, False]
        assert desk.passes(ADA)

    def test_the_error_names_the_value(self) -> None:
        desk = Desk(per("tenant.id", "user.id", "1 call"))
        who = {"tenant_id": "acme", "user_id": "ada"}
        desk.ask(who)
        with pytest.raises(BudgetExceededError) as caught:
            desk.ask(who)
        error = caught.value
        assert (error.scope, error.budget) == ("tenant.id=acme, user.id=ada", "per tenant.id and user.id")
        assert "acme" not in error.public_message

    def test_values_are_not_taken_for_each_other(self) -> None:
        """Two keys, and values that read the same side by side."""
        desk = Desk(per("a", "b", "1 call"))
        assert desk.passes({"a": "x, b=y", "b": "z"})
        assert desk.passes({"a": "x", "b": "y, b=z"})
        assert desk.passes({"a": "z", "b": "x, b=y"})

    def test_one_that_only_warns_refuses_nothing(self) -> None:
        desk = Desk(per("user.id", "1 call at_limit=warn"))
        assert all(desk.passes(ADA) for _ in range(3))
        assert [name for name, _ in desk.told.events] == ["shekel.budget.warning"]

    def test_a_shadow_counts_what_it_would_have_admitted_for_each_value_apart(self) -> None:
        desk = Desk(per("user.id", "1 call at_limit=shadow name=calls"), per("user.id", "$1 at_limit=shadow name=usd"))
        assert all(desk.passes(who) for who in (ADA, ADA, BOB))
        assert desk.spent(ADA) == [1, 2 * CALL]
        assert desk.spent(BOB) == [1, CALL]

    def test_a_fallback_takes_over_for_the_value_that_has_used_up_its_share(self) -> None:
        desk = Desk(per("user.id", "4 calls", fallback={"at_pct": 0.5, "model": "gpt-4.1-nano"}))
        models = []
        for who in (ADA, ADA, ADA, BOB):
            call = desk.admit(who)
            models.append(call.model)
            desk.end(call)
        assert models == [MODEL, MODEL, "gpt-4.1-nano", MODEL]


class TestWarnings:
    def test_are_given_once_for_each_value_threshold_and_window(self) -> None:
        told: list[Any] = []
        desk = Desk(per("user.id", "4 calls/day", warn_at=[0.5, 1], on_warn=lambda *said: told.append(said)))
        for _ in range(2):
            for who in (ADA, ADA, ADA, BOB, BOB, ADA):
                desk.passes(who)
            desk.clock.advance(86_400)
        ada, bob = {"user.id": "ada"}, {"user.id": "bob"}
        assert told == [(ada, 2, 4), (bob, 2, 4), (ada, 4, 4)] * 2
        assert len(desk.told.events) == len(told)

    def test_are_given_once_in_a_session_that_is_longer_than_its_idle_time(self) -> None:
        told: list[Any] = []
        desk = Desk(
            per("user.id", "40 calls/session idle=1min", warn_at=0.05, on_warn=lambda *said: told.append(said[1]))
        )
        for _ in range(2):
            for _ in range(8):
                assert desk.passes(ADA)
                desk.clock.advance(30)
            desk.clock.advance(40)
        assert told == [2, 2]

    def test_keep_nothing_of_windows_that_are_over(self) -> None:
        desk = Desk(per("user.id", "1 call/min", warn_at=1))
        for minute in range(40):
            for user in range(100):
                assert desk.passes({"user_id": f"{minute}-{user}"})
            desk.clock.advance(120)
        [standing] = desk.policies._standing
        assert standing.warned is not None
        assert len(standing.warned) <= 1_000
        assert len(desk.ledger) <= 300


MATCHES: list[tuple[dict[str, Any], dict[str, Any], bool]] = [
    ({"tenant.id": "acme"}, {"tenant_id": "acme"}, True),
    ({"tenant.id": "acme"}, {"tenant_id": "acme-2"}, False),
    ({"tenant.id": "acme*"}, {"tenant_id": "acme-2"}, True),
    ({"tenant.id": ["x", "acme"]}, {"tenant_id": "acme"}, True),
    ({"tenant.id": "*"}, {}, False),
    ({"model": MODEL}, {}, True),
    ({"model": "gpt-4o"}, {}, False),
    ({"model": "gpt-4o"}, {"model": "gpt-4o-2024-08-06"}, True),
    ({"model": ["o3", "gpt-4o*"]}, {}, True),
    ({"provider": "openai"}, {}, True),
    ({"provider": "openai"}, {"provider": "anthropic"}, False),
    ({"provider": ["a*", "b"]}, {"provider": "azure.ai.openai"}, True),
    ({"environment": "prod*"}, {"environment": "production"}, True),
    ({"environment": "prod*"}, {"environment": "test"}, False),
    ({"environment": "*"}, {"environment": None}, False),
    ({"tenant.id": "acme", "model": "o3"}, {"tenant_id": "acme"}, False),
    ({"tenant.id": "acme", "model": MODEL, "environment": "x"}, {"tenant_id": "acme", "environment": "x"}, True),
]


class TestMatch:
    @pytest.mark.parametrize(("match", "given", "applies"), MATCHES)
    def test_it_applies_where_all_conditions_hold(self, match: Any, given: Any, applies: bool) -> None:
        given = dict(given)
        desk = Desk(per("user.id", "1 call", match=match), environment=given.pop("environment", None))
        what = {key: given.pop(key) for key in ("model", "provider") if key in given}
        assert [desk.passes({**ADA, **given}, **what) for _ in range(2)] == [True, not applies]

    def test_a_fallback_is_charged_where_its_own_model_matches(self) -> None:
        desk = Desk(
            per("user.id", "1 call", match={"model": "gpt-4o"}, name="large", fallback="gpt-4o-mini"),
            per("user.id", "2 calls", match={"model": "gpt-4o-mini"}, name="small"),
        )
        assert [desk.passes(ADA, model="gpt-4o") for _ in range(4)] == [True, True, True, False]
        assert desk.spent(ADA) == [1, 2]

    def test_a_tool_is_not_of_any_model(self) -> None:
        desk = Desk(per("user.id", "$0.001", match={"model": MODEL}))
        with scope(**ADA):
            desk.gate.admit_tool("search", lambda budget: 10**9, context.current())
        assert desk.spent(ADA) == [0]


class TestOverlap:
    def test_truth_table_all_that_apply_must_admit(self) -> None:
        """Every combination of which policies apply, and which of them have room: admitted only if all that apply do,
        and then charged to exactly those; refused, it leaves nothing on any of them."""
        for applies in itertools.product([True, False], repeat=4):
            for room in itertools.product([True, False], repeat=4):
                keys = ("user.id", "tenant.id", "session.id", "team")
                policies = [
                    per(key, "2 calls" if has else "1 call", name=key, match=None if does else {"nowhere": "x"})
                    for key, does, has in zip(keys, applies, room, strict=True)
                ]
                desk = Desk(*policies)
                for key in keys:  # each has one call behind it, by itself
                    desk.passes({key: "v"})
                who = dict.fromkeys(keys, "v")
                fits = all(has for does, has in zip(applies, room, strict=True) if does)
                assert desk.passes(who) == fits, (applies, room)
                after = [sum(desk.spent(who, key)) for key in keys]
                assert after == [(2 if fits else 1) if does else 0 for does in applies], (applies, room)
                assert all(balance.held == 0 for balance in desk.balances(who))

    def test_any_overlap_of_units_windows_and_keys_agrees_with_sums_kept_apart(self) -> None:
        """Random policies and calls: a call passes if and only if every policy that applies has room by plain sums."""
        rng = random.Random(7)
        for _ in range(60):
            made = []
            for number in range(rng.randint(1, 5)):
                keys = rng.sample(["user.id", "tenant.id", "team"], rng.randint(1, 2))
                unit, amount = rng.choice(
                    [
                        ("calls", rng.randint(1, 6)),
                        ("usd", rng.randint(1, 6) * CALL),
                        ("tokens", rng.randint(1, 6) * 200),
                    ]
                )
                only = rng.choice([None, "a", "b"])
                made.append((tuple(keys), unit, amount, only, f"p{number}"))
            texts = {"calls": "{} calls", "tokens": "{} tokens"}
            desk = Desk(
                *(
                    per(
                        *keys,
                        f"${amount / 1e9:.9f}" if unit == "usd" else texts[unit].format(amount),
                        match=None if only is None else {"team": only},
                        name=name,
                        mode="expected",
                    )
                    for keys, unit, amount, only, name in made
                )
            )
            sums: dict[Any, int] = {}
            for _ in range(30):
                who = {key: rng.choice("ab") for key in ("user.id", "tenant.id", "team") if rng.random() < 0.8}
                call = desk.call()
                needs = {"calls": 1, "usd": None, "tokens": None}
                meters = [
                    (name, tuple(who[key] for key in keys), unit, amount)
                    for keys, unit, amount, only, name in made
                    if all(key in who for key in keys) and (only is None or who.get("team") == only)
                ]
                expected = desk.gate.expected_output(call)
                desk.gate.estimate_input(call)
                needs = {"calls": 1, "tokens": call.input_tokens + expected,
                         "usd": call.input_tokens * IN + expected * OUT}  # fmt: skip
                fits = all(sums.get((n, v), 0) + needs[unit] <= amount for n, v, unit, amount in meters)
                assert desk.passes(who) == fits, (made, who, sums)
                if fits:
                    for name, values, unit, _ in meters:
                        used = {"calls": 1, "tokens": 200, "usd": CALL}[unit]
                        sums[name, values] = sums.get((name, values), 0) + used
