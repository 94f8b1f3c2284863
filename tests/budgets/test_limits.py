"""Limits as facts, and limits from keyword arguments: every value that makes no sense is refused in one sentence."""

from __future__ import annotations

import decimal
import pickle
import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shekel.budgets.keywords import as_limit, limits_of
from shekel.budgets.limits import MOST, NANO, Limit, Mode, Unit, agree, as_mode, money
from shekel.budgets.windows import FOREVER, Calendar, Session, Sliding

COUNTS = ["max_llm_calls", "max_tool_calls", "max_input_tokens", "max_output_tokens", "max_tokens"]
FIELDS = ["max_usd", *COUNTS]


def refusal(**arguments: Any) -> str:
    """Why such arguments are refused."""
    with pytest.raises(ValueError, match=r".") as caught:
        limits_of(**arguments)
    assert type(caught.value) is ValueError
    message = str(caught.value)
    plain = re.sub(r"'[^']*'|\"[^\"]*\"", "", message)
    assert "\n" not in message
    assert message.endswith((".", "?"))
    assert not re.search(r"[.?!] ", plain), message
    return message


class TestLimit:
    def test_its_money(self) -> None:
        limit = Limit(1_500_000_000)
        assert (limit.unit, limit.nano, limit.usd, limit.text) == (Unit.USD, 1_500_000_000, 1.5, "")

    def test_its_place(self) -> None:
        now = datetime(2026, 5, 31, 23, 59, tzinfo=UTC).timestamp()
        assert Limit(1).place(now) == FOREVER
        assert Limit(1, window=Sliding(5)).place(now) == FOREVER
        assert Limit(1, window=Calendar("month")).place(now) == ("month:2026-05-01", now + 60)

    def test_the_words_do_not_make_it_another(self) -> None:
        assert Limit(NANO, text="$1") == Limit(NANO, text="1 usd")
        assert len({Limit(NANO, text="$1"), Limit(NANO, text="1 usd")}) == 1

    def test_it_pickles(self) -> None:
        limit = Limit(5, Unit.CALLS, Calendar("day", "Asia/Kolkata"), "o3", "5 calls/day on o3")
        assert pickle.loads(pickle.dumps(limit)) == limit

    @pytest.mark.parametrize(
        "fields",
        [
            {"amount": 0},
            {"amount": -1},
            {"amount": 1.0},
            {"amount": True},
            {"amount": MOST + 1},
            pytest.param({"amount": 10**5000}, id="huge"),
            {"unit": "usd"},
            {"window": "day"},
            {"window": 3600},
            {"model": ""},
            {"model": "gpt 4"},
            {"model": "a=b"},
            {"model": 7},
            {"model": "gpt-4o", "unit": Unit.TOOL_CALLS},
        ],
    )
    def test_a_field_that_makes_no_sense(self, fields: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=r"amount|unit|window|model"):
            Limit(**{"amount": 1, **fields})

    def test_two_of_the_same_do_not_agree(self) -> None:
        assert agree([], "x") == ()
        with pytest.raises(
            ValueError, match=r"^x contradicts itself: '\$1' and '\$2' limit the same: keep one of them\.$"
        ):
            agree([Limit(NANO), Limit(2 * NANO)], "x")
        with pytest.raises(ValueError, match=r"^x says twice"):
            agree([Limit(NANO), Limit(NANO, text="1 usd")], "x")


class TestMoney:
    @pytest.mark.parametrize(
        ("value", "nano"),
        [
            (5, 5 * NANO),
            (0.1, 100_000_000),
            (Decimal("0.0000000019"), 1),
            ("0.25", 250_000_000),
            ("0.000000001" + 120 * "9", 1),
            (1e-9, 1),
            (9_223_372_036, 9_223_372_036 * NANO),
            (Decimal("1234567890.123456789"), 1_234_567_890_123_456_789),
        ],
    )
    def test_it_is_exact_and_rounded_down(self, value: Any, nano: int) -> None:
        assert money(value, "max_usd") == nano

    def test_the_context_of_the_program_does_not_round_it(self) -> None:
        with decimal.localcontext(prec=3, rounding=decimal.ROUND_UP):
            assert money("1.23456789", "max_usd") == 1_234_567_890
            assert limits_of(max_usd="$1.23456789/day")[0].nano == 1_234_567_890
            assert limits_of(max_tokens="1234567 tokens")[0].amount == 1_234_567

    @pytest.mark.parametrize("value", ["5", "$5", " $5 ", 5, 5.0, Decimal(5), Limit(5 * NANO)])
    def test_one_limit_from_whatever_says_it(self, value: Any) -> None:
        assert as_limit(value, "the limit") == Limit(5 * NANO)

    def test_one_limit_only(self) -> None:
        with pytest.raises(ValueError, match=r"^the limit: .* give one\.$"):
            as_limit("$5 + 5 calls", "the limit")


class TestKeywords:
    def test_each_limits_what_its_name_says(self) -> None:
        assert limits_of() == ()
        assert limits_of(
            max_usd=5, max_llm_calls=1, max_tool_calls=2, max_input_tokens=3, max_output_tokens=4, max_tokens=1e6
        ) == (
            Limit(5 * NANO),
            Limit(1, Unit.CALLS),
            Limit(2, Unit.TOOL_CALLS),
            Limit(3, Unit.INPUT),
            Limit(4, Unit.OUTPUT),
            Limit(1_000_000, Unit.TOKENS),
        )

    def test_a_spec_or_a_limit_may_stand_for_a_number(self) -> None:
        assert limits_of(max_usd="$1/hr + $5/day on o3 tz=Asia/Kolkata", max_llm_calls="100 calls/30s") == (
            Limit(NANO, window=Calendar("hour", "Asia/Kolkata")),
            Limit(5 * NANO, window=Calendar("day", "Asia/Kolkata"), model="o3"),
            Limit(100, Unit.CALLS, Sliding(30)),
        )
        assert limits_of(max_usd=Limit(NANO, window=Session(60))) == (Limit(NANO, window=Session(60)),)
        assert limits_of(max_usd="5") == limits_of(max_usd="$5") == (Limit(5 * NANO),)

    def test_a_window_in_seconds(self) -> None:
        assert limits_of(max_usd=5, max_llm_calls=3, window_seconds=3600, models={"o3": 1}) == (
            Limit(5 * NANO, window=Sliding(3600)),
            Limit(3, Unit.CALLS, Sliding(3600)),
            Limit(NANO, window=Sliding(3600), model="o3"),
        )

    def test_models(self) -> None:
        assert limits_of(
            max_usd=9, models={"gpt-4o*": "$2/day + 10 calls", "o3": 0.5, "o1": Limit(7, Unit.TOKENS)}
        ) == (
            Limit(9 * NANO),
            Limit(2 * NANO, window=Calendar("day"), model="gpt-4o*"),
            Limit(10, Unit.CALLS, model="gpt-4o*"),
            Limit(NANO // 2, model="o3"),
            Limit(7, Unit.TOKENS, model="o1"),
        )

    @pytest.mark.parametrize("field", FIELDS)
    @pytest.mark.parametrize(
        ("value", "word"),
        [
            (0, "above 0, not 0"),
            (0.0, "above 0, not 0.0"),
            (-1, "above 0, not -1"),
            (float("nan"), "finite, not nan"),
            (float("inf"), "finite, not inf"),
            (float("-inf"), "finite, not -inf"),
            (10**30, "too large"),
            pytest.param(10**5000, "too large with a value of type int", id="huge"),
            (1e300, "too large"),
            (True, "not True"),
            (False, "not False"),
            ([5], "not [5]"),
            (b"5", "not b'5'"),
            (1j, "not 1j"),
        ],
    )
    def test_a_number_that_makes_no_sense(self, field: str, value: Any, word: str) -> None:
        message = refusal(**{field: value})
        assert message.startswith(field)
        assert word in message
        assert "give" in message

    @pytest.mark.parametrize("field", FIELDS)
    @pytest.mark.parametrize(
        "value", ["", "five", "$0", "-5 calls", "$5/fortnight", "5/day", "$5 + $6", "nan", "5 cals"]
    )
    def test_a_text_that_makes_no_sense(self, field: str, value: str) -> None:
        assert refusal(**{field: value}).startswith(field)

    @pytest.mark.parametrize("field", COUNTS)
    @pytest.mark.parametrize("value", [1.5, 0.1])
    def test_a_part_of_a_call(self, field: str, value: float) -> None:
        assert refusal(**{field: value}).startswith(f"{field} must be whole, not {value}: give a whole number of ")

    @pytest.mark.parametrize("field", COUNTS)
    def test_a_number_as_text_is_ambiguous_where_nothing_says_the_unit(self, field: str) -> None:
        assert f"{field}: '5' is a text" in refusal(**{field: "5"})

    @pytest.mark.parametrize(
        ("arguments", "remedy"),
        [
            ({"max_usd": "5 calls"}, "max_llm_calls='5 calls'"),
            ({"max_usd": "$5 + 5 tokens"}, "max_tokens='5 tokens'"),
            ({"max_llm_calls": "$5/day"}, "max_usd='$5/day'"),
            ({"max_tokens": "5 input tokens"}, "max_input_tokens='5 input tokens'"),
            ({"max_tool_calls": "5 calls"}, "max_llm_calls='5 calls'"),
            ({"max_usd": Limit(5, Unit.OUTPUT)}, "max_output_tokens='5 output tokens'"),
        ],
    )
    def test_another_unit(self, arguments: dict[str, Any], remedy: str) -> None:
        message = refusal(**arguments)
        assert message.startswith(next(iter(arguments)))
        assert f"give it as {remedy}" in message

    def test_an_option_of_the_whole_budget(self) -> None:
        assert refusal(max_usd="$5 mode=strict") == (
            "max_usd: mode= in '$5 mode=strict' is no part of a limit: give it as mode=… beside."
        )

    @pytest.mark.parametrize(
        "value",
        [0, -1, 0.0001, float("nan"), float("inf"), 1e12, True, "60", [1], pytest.param(10**5000, id="huge")],
    )
    def test_a_window_that_is_none(self, value: Any) -> None:
        message = refusal(max_usd=5, window_seconds=value)
        assert message.startswith("window_seconds must be seconds from 0.001 to 100 years, not ")
        assert "leave it out" in message

    def test_a_window_with_nothing_in_it(self) -> None:
        assert refusal(window_seconds=60).startswith("window_seconds=60 has nothing to limit: give ")

    @pytest.mark.parametrize(
        "arguments", [{"max_usd": "$5/day"}, {"max_llm_calls": "5 calls/min"}, {"models": {"o3": "$5/session"}}]
    )
    def test_two_windows(self, arguments: dict[str, Any]) -> None:
        assert "a window of its own beside window_seconds=60" in refusal(window_seconds=60, **arguments)

    @pytest.mark.parametrize(
        ("models", "word"),
        [
            ({}, "such as {'gpt-4o': '$5/day'}"),
            ([], "such as {'gpt-4o': '$5/day'}"),
            ("gpt-4o", "such as {'gpt-4o': '$5/day'}"),
            ({"": 5}, "not ''"),
            ({"gpt 4": 5}, "not 'gpt 4'"),
            ({"gpt-4o,o3": 5}, "commas, each in a limit of its own, not 'gpt-4o,o3'"),
            ({7: 5}, "not 7"),
            ({"o3": None}, "models['o3'] must be a limit"),
            ({"o3": 0}, "models['o3'] must be above 0, not 0"),
            ({"o3": True}, "models['o3'] must be an amount in USD, not True"),
            ({"o3": "$5 on o1"}, "leave 'on o1' out"),
            ({"o3": "5 tool calls"}, "use max_tool_calls"),
            ({"o3": "$5/eon"}, "models['o3']: 'eon' in '$5/eon' is no period"),
            ({"o3": "$5 mode=strict"}, "mode="),
        ],
    )
    def test_models_that_make_no_sense(self, models: Any, word: str) -> None:
        message = refusal(models=models)
        assert message.startswith("models")
        assert word in message

    def test_limits_that_contradict_each_other(self) -> None:
        message = refusal(max_usd="$2 on o3", models={"o3": 3})
        assert message == "the budget contradicts itself: '$2 on o3' and '$3 on o3' limit the same: keep one of them."
        twice = refusal(max_usd="$5/day + $5/day")
        assert twice.endswith(" says twice how much: '$5/day' and '$5/day' limit the same: keep one of them.")
        assert len(limits_of(max_usd="$5/day + $1/week", max_tokens=10, max_input_tokens=100)) == 4

    @given(
        st.dictionaries(
            st.sampled_from([*FIELDS, "window_seconds", "models"]),
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats()
            | st.decimals()
            | st.complex_numbers()
            | st.text(max_size=9)
            | st.binary(max_size=3)
            | st.sampled_from(
                ["$5/day", "$5", "5 calls", "5 tool calls", "5 tokens/min", Limit(1), Limit(1, Unit.CALLS)]
            )
            | st.lists(st.integers(), max_size=2)
            | st.dictionaries(st.text(max_size=3) | st.integers(), st.integers() | st.text(max_size=5), max_size=2),
        )
    )
    def test_whatever_is_given_it_is_limits_or_one_sentence(self, arguments: dict[str, Any]) -> None:
        try:
            limits = limits_of(**arguments)
        except ValueError as error:
            message = "" if type(error) is not ValueError else str(error)
        else:
            message = None
            assert all(isinstance(limit, Limit) and 0 < limit.amount <= MOST for limit in limits)
        assert message is None or (message and "\n" not in message and message[-1] in ".?")


class TestMode:
    def test_its_names(self) -> None:
        assert as_mode("strict") is Mode.STRICT
        with pytest.raises(ValueError, match=r"^mode must be 'sliced', 'strict' or 'expected', not 'loose'\.$"):
            as_mode("loose")

    @pytest.mark.parametrize("value", [None, 5, [], {}, pytest.param(10**5000, id="huge")])
    def test_what_is_none(self, value: Any) -> None:
        with pytest.raises(ValueError, match="mode must be"):
            as_mode(value)
