"""What `shekel.configure` refuses: at once, in one sentence that names the field, the value and the remedy."""

from __future__ import annotations

from typing import Any

import pytest

import shekel
from shekel import per
from shekel.budgets import wiring
from shekel.runtime import the_runtime

ONE = per("user.id", "$5/day")


@pytest.mark.parametrize(
    ("field", "value", "remedy"),
    [
        ("budget", "five", "'five' has no amount"),
        ("budget", -5, "such as 5 or 0.25"),
        ("budget", True, "such as 5 or 0.25"),
        ("policies", ONE, "write policies=[per('user.id', '$5/day')]"),
        ("policies", 5, "write policies=[per('user.id', '$5/day')]"),
        ("policies", {"user.id": "$5/day"}, "write policies=[per('user.id', '$5/day')]"),
        ("policies", ["$5/day"], "per("),
        ("environment", "", "None for none"),
        ("environment", True, "such as 'production'"),
        ("prices", "free", '{"house-model": "free"}'),
        ("prices", ["house-model"], '{"house-model": "free"}'),
        ("aliases", "gpt-4o", '{"our-deployment": "gpt-4o-mini"}'),
        ("include_usage_hosts", "llm.example.com", "['llm.example.com', 'localhost:8080']"),
        ("include_usage_hosts", ["https://llm.example.com/v1"], "['llm.example.com', 'localhost:8080']"),
        ("include_usage_hosts", [None], "['llm.example.com', 'localhost:8080']"),
        ("include_usage_hosts", 5, "['llm.example.com', 'localhost:8080']"),
        ("metric_scopes", 5, "['tenant.id']"),
        ("track", {"user id": "month"}, "{'user.id': 'month'}"),
    ],
)
def test_what_makes_no_sense(field: str, value: Any, remedy: str) -> None:
    runtime = the_runtime()
    before = (wiring.everywhere, runtime.policies.in_force, runtime.environment.given, runtime.usage_hosts)
    with pytest.raises(ValueError, match=rf"^{field}\b") as caught:
        shekel.configure(**{field: value})
    message = str(caught.value)
    assert remedy in message
    assert message.endswith((".", "?"))
    assert "\n" not in message
    assert before == (wiring.everywhere, runtime.policies.in_force, runtime.environment.given, runtime.usage_hosts)


@pytest.mark.parametrize("given", ["https://me:secret@llm.example.com/v1?key=secret", ["llm.example.com?key=secret"]])
def test_what_a_url_holds_beside_the_host_is_not_shown(given: Any) -> None:
    with pytest.raises(ValueError, match=r"^include_usage_hosts .*llm\.example\.com") as caught:
        shekel.configure(include_usage_hosts=given)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("keys", [5, True, {"a": "b" * 32}, lambda: 5])
def test_keys_that_are_none_are_not_shown(keys: Any) -> None:
    with pytest.raises(ValueError, match=r"^keys of baggage must be a list of text or bytes, not a (int|bool|dict)\."):
        shekel.configure(baggage_keys=keys)


def test_any_sequence_of_policies_and_of_hosts_will_do() -> None:
    hosts = the_runtime().usage_hosts
    try:
        shekel.configure(policies=(each for each in [ONE]), include_usage_hosts={"LLM.example.com:8080"})
        assert the_runtime().policies.in_force
        assert the_runtime().usage_hosts == {"llm.example.com:8080"}
    finally:
        shekel.configure(policies=[], include_usage_hosts=hosts)
