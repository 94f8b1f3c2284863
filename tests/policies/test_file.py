"""The policy file: what it can say, and the one sentence that says what is wrong and where."""

from __future__ import annotations

import pytest

from shekel.budgets.claims import AtLimit, Fallback
from shekel.budgets.limits import Mode
from shekel.policies.file import line_of, read

from .desk import Desk

WHOLE = """
# who may spend what
[policies.users]
per = "user.id"
limit = ["$5/day", "100 calls/hr"]
match = { environment = "production", model = ["gpt-4o*", "o3"] }
mode = "strict"
at_limit = "warn"
warn_at = [0.5, 0.8]
unpriced = "allow"
fallback = [{ at_pct = 0.8, model = "gpt-4o-mini" }]

[policies."seats of a tenant"]
per = ["tenant.id", "user.id"]
plans = { free = "$0.10/day", pro = ["$20/month", "1000 calls/hr"], staff = "unlimited" }
default_plan = "free"
plan_by = "tenant.id"

[policies."seats of a tenant".plan_of]
acme = "pro"

[prices]
test-model = "free"

[prices.house-model]
input = 1.5
output = 6.0

[aliases]
our-deployment = "gpt-4o-mini"
"""


class TestSays:
    def test_all_that_code_can(self) -> None:
        found = read(WHOLE, "shekel.toml")
        users, seats = found.policies
        assert (users.name, users.keys, users.mode, users.at_limit) == (
            "users", ("user.id",), Mode.STRICT, AtLimit.WARN,
        )  # fmt: skip
        assert [str(limit) for limit in users.limits] == ["$5/day", "100 calls/hr"]
        assert (users.warn_at, users.allow_unpriced) == ((0.5, 0.8, 1.0), True)
        assert users.fallbacks == (Fallback(0.8, "gpt-4o-mini"),)
        assert users.match.models == ("gpt-4o*", "o3")
        assert users.match.holds({}, None, "production")
        assert not users.match.holds({}, None, "test")
        assert seats.plans is not None
        assert seats.plans.of("acme", {}) == "pro"
        assert seats.plans.of("other", {}) == "free"
        assert list(map(str, seats.plans.limits["pro"])) == ["$20/month", "1000 calls/hr"]
        assert found.prices == {"test-model": "free", "house-model": {"input": 1.5, "output": 6.0}}
        assert found.aliases == {"our-deployment": "gpt-4o-mini"}

    def test_a_function_of_the_program_says_plans_where_no_table_does(self) -> None:
        text = '[policies.a]\nper="user.id"\nplans={free="1 call", pro="2 calls"}\ndefault_plan="free"\n'
        for plan_of in (lambda user: "pro", {"a": lambda user: "pro"}):
            desk = Desk(*read(text, "f", plan_of).policies)
            assert [desk.passes({"user_id": "ada"}) for _ in range(3)] == [True, True, False]
        with pytest.raises(ValueError, match="f has no policy named 'b'"):
            read(text, "f", {"b": lambda user: "pro"})


WRONG: list[tuple[str, str]] = [
    ("", r"shekel.toml says nothing: write a table such as \[policies.users\]"),
    ("# nothing\n", "says nothing"),
    ("[policies]\n", r"line 1: \[policies\] must be a table with entries"),
    ("policies = 3\n", r"line 1: \[policies\] must be a table"),
    ("[policies.a\n", r"is no TOML: .*line 1"),
    ("[policies.a]\nper='x'\nlimit='$1'\n[policies.a]\n", r"is no TOML: .*line 4"),
    ("\n[polices.a]\n", r"line 2: \[polices\] is no table of a policy file: did you mean policies\?"),
    ("[policies]\na = 3\n", r"line 2: \[policies.a\] must be a table: write \[policies.a\]"),
    ("[policies.a]\nlimit='$1'\n", r'line 1: \[policies.a\] has no key per: .* per = "user.id"'),
    ("[policies.a]\nper='user.id'\n", r'line 1: \[policies.a\] has neither limit nor plans: write limit = "\$5/day"'),
    ("[policies.a]\nper='u'\nlimt='$1'\n", r"line 3: \[policies.a\] limt is no key of a policy: did you mean limit\?"),
    ("[policies.a]\nper='u'\n\nlimit='$5/dya'\n", r"line 4: \[policies.a\] limit → the limit: 'dya' .* is no period"),
    ("[policies.a]\nper='u'\nlimit='$1'\nmode='x'\n", r"line 4: \[policies.a\] mode → mode must be"),
    ("[policies.a]\nper=[]\nlimit='$1'\n", r"line 2: \[policies.a\] per → per\(\) takes"),
    ("[policies.a]\nper=7\nlimit='$1'\n", r"line 2: \[policies.a\] per → a scope key must be"),
    ("[policies.a]\nper='u'\nlimit='$1'\nwarn_at=2\n", r"line 4: \[policies.a\] warn_at → warn_at must be"),
    ("[policies.a]\nper='u'\nlimit='$1'\nmatch={model=''}\n", r"line 4: \[policies.a\] match → match: 'model'"),
    ("[policies.a]\nper='u'\nlimit='$1'\nplans={a='$1'}\n", r"line 3: \[policies.a\] limit stands beside plans"),
    ("[policies.a]\nper='u'\nplans={a='$1'}\n", r"line 3: \[policies.a\] plans → plans have no default_plan"),
    ("[policies.a]\nper='u'\ndefault_plan='b'\nplans={a='$1'}\n", r"line 3: \[policies.a\] default_plan"),
    ("[policies.a]\nper='u'\nplans={}\ndefault_plan='a'\n", r"line 3: \[policies.a\] plans → plans must be"),
    ("[policies.a]\nper='u'\nlimit='$1 name=b'\n", r"\[policies.a\] .*name is said twice"),
    ("[prices]\nm = 'cheap'\n", r"line 2: \[prices.m\] → price of 'm'"),
    ("[prices.m]\ninput=1\n", r"line 1: \[prices.m\] → price of 'm': 'output' is missing"),
    ("[aliases]\na='b'\nb='a'\n", r"line 3: \[aliases.b\] → alias 'b'"),
]


class TestWrong:
    @pytest.mark.parametrize(("text", "said"), WRONG)
    def test_one_sentence_names_line_table_key_and_remedy(self, text: str, said: str) -> None:
        with pytest.raises(ValueError, match=said) as caught:
            read(text, "shekel.toml")
        assert "\n" not in str(caught.value)

    def test_lines_are_found_for_tables_keys_and_what_stands_inside_them(self) -> None:
        paths: list[tuple[tuple[str, ...], str]] = [
            (("policies", "users"), "[policies.users]"),
            (("policies", "users", "mode"), 'mode = "strict"'),
            (("policies", "seats of a tenant", "plan_of"), '[policies."seats of a tenant".plan_of]'),
            (("policies", "seats of a tenant", "plan_of", "acme"), 'acme = "pro"'),
            (("prices", "test-model"), 'test-model = "free"'),
        ]
        for path, line in paths:
            assert WHOLE.splitlines()[line_of(WHOLE, path) - 1] == line, path

    def test_any_text_is_policies_or_one_sentence(self) -> None:
        lines = WHOLE.splitlines()
        texts = [WHOLE[:cut] for cut in range(len(WHOLE))]
        texts += ["\n".join(lines[:left_out] + lines[left_out + 1 :]) for left_out in range(len(lines))]
        said = []
        for text in texts:
            try:
                read(text, "shekel.toml")
            except ValueError as error:
                said.append(str(error))
        assert len(said) > len(texts) / 2
        assert all(each.startswith("shekel.toml") for each in said)
