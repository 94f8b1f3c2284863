"""Gauges of policies: of many meters the fullest is shown, of periods the present one, and nobody's value."""

from __future__ import annotations

from shekel import per

from .desk import IN, OUT, Desk

CALL = 100 * (IN + OUT)


def shown(desk: Desk) -> dict[str, tuple[int, int]]:
    return {name: (balance.settled, limit) for name, balance, limit in desk.gate.gauges.rows()}


def test_the_fullest_is_shown_by_its_share_of_its_own_limit() -> None:
    plans = {"free": "$0.001", "pro": "$0.1"}
    desk = Desk(per("user.id", plans=plans, plan_of={"ada": "pro"}, default_plan="free", name="plans"))
    for _ in range(3):
        desk.ask({"user_id": "ada"})
    assert shown(desk) == {"plans": (3 * CALL, 100_000_000)}
    desk.ask({"user_id": "bob"})
    assert shown(desk) == {"plans": (CALL, 1_000_000)}
    desk.ask({"user_id": "ada"})
    assert shown(desk) == {"plans": (CALL, 1_000_000)}


def test_another_limit_shows_at_once_and_a_period_that_is_over_shows_nothing_spent() -> None:
    desk = Desk(per("user.id", "$1/day"))
    for _ in range(5):
        desk.ask({"user_id": "ada"})
    desk.policies.set([per("user.id", "$2/day")])
    assert shown(desk) == {"per user.id": (5 * CALL, 2_000_000_000)}
    desk.clock.advance(86_400)
    assert shown(desk) == {"per user.id": (0, 2_000_000_000)}
    desk.ask({"user_id": "bob"})
    assert shown(desk) == {"per user.id": (CALL, 2_000_000_000)}


def test_they_keep_one_meter_for_a_policy_however_many_users_it_has() -> None:
    desk = Desk(per("user.id", "$1/day + 5 calls/hr"))
    for number in range(500):
        desk.ask({"user_id": f"user {number}"})
    assert len(desk.gate.gauges.meters) == 1
