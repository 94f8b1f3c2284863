"""The spec language: what it says, and what it answers to text that says nothing."""

from __future__ import annotations

import re
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shekel.budgets.limits import MOST, NANO, Limit, Mode, Unit, format_limit
from shekel.budgets.spec import Spec, parse_limit, parse_spec, parse_velocity
from shekel.budgets.windows import Calendar, Session, Sliding

BERLIN = "Europe/Berlin"


def one_sentence(message: str) -> bool:
    """One line, that ends once; what is quoted does not count."""
    plain = re.sub(r"'[^']*'|\"[^\"]*\"", "", message)
    return "\n" not in message and message[-1] in ".?" and not re.search(r"[.?!] ", plain)


class TestLimits:
    @pytest.mark.parametrize(
        ("text", "limit"),
        [
            ("$5", Limit(5 * NANO)),
            ("  $ 5  ", Limit(5 * NANO)),
            ("$0.50/day", Limit(NANO // 2, window=Calendar("day"))),
            ("$.5", Limit(NANO // 2)),
            ("$5.", Limit(5 * NANO)),
            ("$1,000.50", Limit(1_000_500_000_000)),
            ("$1_000", Limit(1_000 * NANO)),
            ("$2k/month", Limit(2_000 * NANO, window=Calendar("month"))),
            ("5 usd/hr", Limit(5 * NANO, window=Sliding(3600))),
            ("$0.0000000019", Limit(1)),
            ("$5/hr", Limit(5 * NANO, window=Sliding(3600))),
            ("$1/min", Limit(NANO, window=Sliding(60))),
            ("$1/MIN", Limit(NANO, window=Sliding(60))),
            ("$1/5min", Limit(NANO, window=Sliding(300))),
            ("$1 per 5 minutes", Limit(NANO, window=Sliding(300))),
            ("$1 / 24h", Limit(NANO, window=Sliding(86_400))),
            ("$1/7d", Limit(NANO, window=Sliding(7 * 86_400))),
            ("$1/2 weeks", Limit(NANO, window=Sliding(14 * 86_400))),
            ("$1/0.5s", Limit(NANO, window=Sliding(0.5))),
            ("$1 hr", Limit(NANO, window=Sliding(3600))),
            ("$1 1.5min", Limit(NANO, window=Sliding(90))),
            ("100 calls", Limit(100, Unit.CALLS)),
            ("100calls/hr", Limit(100, Unit.CALLS, Sliding(3600))),
            ("1 call", Limit(1, Unit.CALLS)),
            ("7 llm_calls", Limit(7, Unit.CALLS)),
            ("200k tokens/day", Limit(200_000, Unit.TOKENS, Calendar("day"))),
            ("1M input tokens", Limit(1_000_000, Unit.INPUT)),
            ("1.5m input_tokens", Limit(1_500_000, Unit.INPUT)),
            ("50k output tokens/30s", Limit(50_000, Unit.OUTPUT, Sliding(30))),
            ("10 tool calls", Limit(10, Unit.TOOL_CALLS)),
            ("20 tools/1hr", Limit(20, Unit.TOOL_CALLS, Sliding(3600))),
            ("$20/week", Limit(20 * NANO, window=Calendar("week"))),
            ("$20/year", Limit(20 * NANO, window=Calendar("year"))),
            ("$2/session", Limit(2 * NANO, window=Session(1800))),
            ("$2/session idle=10m", Limit(2 * NANO, window=Session(600))),
            ("$2/day on gpt-4o", Limit(2 * NANO, window=Calendar("day"), model="gpt-4o")),
            ("$2 on gpt-4o*", Limit(2 * NANO, model="gpt-4o*")),
            ("5 calls on meta/llama-4+tools:free", Limit(5, Unit.CALLS, model="meta/llama-4+tools:free")),
            (f"$20/month tz={BERLIN}", Limit(20 * NANO, window=Calendar("month", BERLIN))),
            (f"$20/hr tz={BERLIN}", Limit(20 * NANO, window=Calendar("hour", BERLIN))),
            ("$20/month from=2026-01-31", Limit(20 * NANO, window=Calendar("month", "UTC", date(2026, 1, 31)))),
        ],
    )
    def test_what_is_written_is_what_is_meant(self, text: str, limit: Limit) -> None:
        assert parse_spec(text).limits == (limit,)
        assert parse_limit(text) == limit
        assert parse_spec(text).options == {}

    def test_several_limits_keep_their_order_and_their_words(self) -> None:
        limits = parse_spec(f"$5/hr+100 calls / hr  +  $20/day on gpt-4o + $1/60min on gpt-4o tz={BERLIN}").limits
        assert [limit.text for limit in limits] == [
            "$5/hr",
            "100 calls / hr",
            "$20/day on gpt-4o",
            "$1/60min on gpt-4o",
        ]
        assert [limit.window for limit in limits] == [
            Calendar("hour", BERLIN),
            Calendar("hour", BERLIN),
            Calendar("day", BERLIN),
            Sliding(3600),  # a number of minutes never belongs to the calendar
        ]

    def test_options(self) -> None:
        spec = parse_spec("$5/day mode=strict warn_at=80%,0.5 name='nightly run' at_limit=warn")
        assert spec.options == {"mode": Mode.STRICT, "warn_at": (0.5, 0.8), "name": "nightly run", "at_limit": "warn"}
        assert parse_spec("$5 unpriced=Allow").options == {"unpriced": "allow"}
        assert parse_spec("$5 WARN-AT=1 Mode=Sliced name=a+b=c").options == {
            "warn_at": (1.0,),
            "mode": Mode.SLICED,
            "name": "a+b=c",
        }

    @pytest.mark.parametrize(
        ("limit", "text"),
        [
            (Limit(5 * NANO), "$5"),
            (Limit(NANO // 2), "$0.50"),
            (Limit(1), "$0.000000001"),
            (Limit(1, Unit.CALLS, Sliding(3600)), "1 call/hr"),
            (Limit(1000, Unit.CALLS), "1000 calls"),
            (Limit(200_000, Unit.TOKENS, Sliding(86_400)), "200k tokens/24h"),
            (Limit(1_000_000, Unit.INPUT, model="gpt-4o"), "1M input tokens on gpt-4o"),
            (Limit(1_234, Unit.OUTPUT, Session(3600)), "1234 output tokens/session idle=1hr"),
            (
                Limit(NANO, window=Calendar("month", BERLIN, date(2026, 1, 31)), model="o3"),
                f"$1/month on o3 tz={BERLIN} from=2026-01-31",
            ),
            (Limit(NANO, window=Calendar("hour")), "$1/hour tz=UTC"),
        ],
    )
    def test_a_limit_says_its_spec(self, limit: Limit, text: str) -> None:
        assert str(limit) == text
        assert parse_spec(text).limits == (limit,)


days = st.none() | st.dates()
zones = st.sampled_from(["UTC", BERLIN, "America/Argentina/Buenos_Aires", "Etc/GMT+5", "Asia/Kolkata"])
calendars = st.builds(Calendar, st.sampled_from(["day", "week", "month", "year"]), zones, days)
lengths = st.floats(0.001, 3e9) | st.sampled_from([1, 30, 60, 90, 300, 3600, 5400, 86_400, 7 * 86_400])
windows = st.none() | calendars | st.builds(Sliding, lengths) | st.builds(Session, lengths)
windows |= zones.map(lambda zone: Calendar("hour", zone))
models = st.none() | st.sampled_from(
    ["gpt-4o", "claude-*", "meta/llama-4:free", "ft:gpt-4o:me::x", "c4ai-[rs]+", "on", "+"]
)
limits = st.builds(
    lambda amount, unit, window, model: Limit(amount, unit, window, None if unit is Unit.TOOL_CALLS else model),
    st.integers(1, MOST) | st.integers(1, 10_000) | st.integers(1, 5_000).map(lambda n: n * 1_000_000),
    st.sampled_from(Unit),
    windows,
    models,
)

PIECES = """
    $5 $ 5 0 1.5 -3 1e9 100 200k 1M 1,5 1,000 nan inf calls tokens input output tool llm usd / per day hr s m min
    30s 1day 2months session week month fortnight on gpt-4o gpt-* + - , and tz= tz=UTC tz=Europe/Berlin tz=../x
    from=2026-01-31 from=2026-02-30 from= idle=30m idle=x mode=strict mode=loose warn_at=0.5 warn_at=2 name=x
    name='a at_limit=warn = =5 €5
"""
pieces = st.sampled_from([*PIECES.split(), "", " ", "٥", "²", "\x00", "\ud800", "\u3000", "'"])
junk = st.text(max_size=40) | st.lists(pieces, max_size=8).map(" ".join) | st.lists(pieces, max_size=6).map("".join)


def read(text: str, source: str | None = None) -> Spec | str:
    """What a spec says, or why it says nothing; anything but a plain ValueError fails the test."""
    try:
        return parse_spec(text, source)
    except ValueError as error:
        if type(error) is not ValueError:  # such as a UnicodeDecodeError
            raise AssertionError("not meant for people") from error
        return str(error)


class TestRoundTrip:
    @given(limits)
    def test_a_limit_that_is_written_reads_as_itself(self, limit: Limit) -> None:
        assert parse_spec(format_limit(limit)).limits == (limit,)

    @given(junk)
    def test_any_text_is_a_spec_or_one_sentence(self, text: str) -> None:
        answer = read(text, "SHEKEL_BUDGET")
        if isinstance(answer, str):
            assert answer.startswith("SHEKEL_BUDGET")
            assert "\n" not in answer
            assert answer[-1] in ".?"
        else:
            assert [parse_limit(str(limit)) for limit in answer.limits] == list(answer.limits)

    @given(limits, st.lists(st.tuples(st.integers(0, 60), st.characters() | st.just("")), max_size=3))
    def test_a_spec_with_slips_is_a_spec_or_one_sentence(self, limit: Limit, slips: list[tuple[int, str]]) -> None:
        text = str(limit)
        for at, letter in slips:
            text = text[:at] + letter + text[at + 1 :]
        answer = read(text)
        if isinstance(answer, str):
            assert "\n" not in answer
        else:
            assert [parse_limit(str(limit)) for limit in answer.limits] == list(answer.limits)


ERRORS: list[tuple[str, str, str]] = [
    # the text, the word that is wrong, a part of the remedy
    ("", "", "write a limit"),
    ("   ", " ", "write a limit"),
    ("$", "$", "write a number first"),
    ("calls", "calls", "write a number first"),
    ("/day", "/day", "write a number first"),
    ("five dollars", "five", "write a number first"),
    ("€5/day", "€5/day", "not in US dollars"),
    ("$-5", "$-5", "above 0"),
    ("-$5/day", "-$5/day", "above 0"),
    ("-3 calls", "-3", "above 0"),
    ("−3 calls", "−3", "above 0"),
    ("$0", "$0", "above 0"),
    ("$0.00/day", "$0.00", "above 0"),
    ("0 calls", "0", "above 0"),
    ("$nan", "$nan", "leave the limit out"),
    ("inf tokens", "inf", "leave the limit out"),
    ("unlimited", "unlimited", "leave the limit out"),
    ("$0.0000000009", "$0.0000000009", "larger"),
    ("$10000000000", "$10000000000", "smaller"),
    ("9223372036854775808 tokens", "9223372036854775808", "smaller"),
    ("$1,5", "$1,5", "1,000"),
    ("$1.2.3", "$1.2.3", "0.50"),
    ("$5_", "$5_", "1,000"),
    ("$1e3", "e3", "' + '"),
    ("5", "5", "'$5', '5 calls' or '5 tokens'"),
    ("5/day", "5", "'$5', '5 calls' or '5 tokens'"),
    ("0/day", "0", "'$5', '5 calls' or '5 tokens'"),
    ("1e6 tokens", "1e6", "1000, 1,000 or 0.50"),
    ("0x10", "0x10", "1000, 1,000 or 0.50"),
    ("5-10 calls", "5-10", "1000, 1,000 or 0.50"),
    ("5€/day", "5€", "'$5'"),
    ("5 €/day", "€/day", "'$5'"),
    ('"$5/day"', '"$5/day"', "without them"),
    ("5 day", "5", "'$5', '5 calls' or '5 tokens'"),
    ("5 per day", "5", "'$5', '5 calls' or '5 tokens'"),
    ("200k/day", "200k", "'200k tokens'"),
    ("5 cals/day", "cals", "did you mean calls?"),
    ("5 bananas", "bananas", "use calls, tool calls, tokens"),
    ("5 input", "input", "input tokens"),
    ("$5 tokens", "tokens", "'$5', or '5 tokens'"),
    ("$5 usd", "usd", "'$5', or '5 usd'"),
    ("5 calls tokens", "tokens", "' + '"),
    ("1.5 calls", "1.5", "whole calls"),
    ("1.0005k tokens", "1.0005k", "whole tokens"),
    ("$5/", "/", "leave it out"),
    ("$5/ tz=UTC", "/", "leave it out"),
    ("$5 per", "per", "leave it out"),
    ("$5/fortnight", "fortnight", "day, week, month or session"),
    ("$5/dya", "dya", "did you mean day?"),
    ("$5/mnth", "mnth", "did you mean month?"),
    ("$5/5", "5", "use s, 30s"),
    ("$5/5 parsecs", "5parsecs", "use s, 30s"),
    ("$5/0s", "0s", "0.001s"),
    ("$5/200y", "200y", "/30d"),
    ("$5/99999999h", "99999999h", "100 years"),
    ("$5/m", "m", "min or month"),
    ("$5/1day", "1day", "24h"),
    ("$5/1 week", "1week", "7d"),
    ("$5/3 months", "3months", "/30d"),
    ("$5/2session", "2session", "without a number"),
    ("$5/day/hr", "day/hr", "' + '"),
    ("$5/day /hr", "/hr", "' + '"),
    ("$5/day per hr", "per", "' + '"),
    ("$5/day on", "on", "on gpt-4o"),
    ("$5 on tz=UTC", "on", "on gpt-4o"),
    ("$5 on 'gpt-4o'", "'gpt-4o'", "on gpt-4o"),
    ("$5 on gpt-4o on o3", "on", "' + '"),
    ("$5 on gpt-4o,o3", "gpt-4o,o3", "such as 'on gpt-4o'"),
    ("9 calls on gpt-4o/hr", "gpt-4o/hr", "'/hr on gpt-4o'"),
    ("$5 on gpt-4o/day o3", "o3", "' + '"),
    ("5 tool calls on gpt-4o", "gpt-4o", "leave it out"),
    ("+", "+", "before it"),
    ("$5 + ", "+", "after it"),
    ("$5 + + $6/day", "+", "before it"),
    ("$5 $6/day", "$6/day", "' + '"),
    ("$5, 100 calls", ",", "' + '"),
    ("$5 and 100 calls", "and", "' + '"),
    ("$5/day please", "please", "' + '"),
    ("mode=strict", "mode=strict", "limits first"),
    ("$5 mode=strict + 5 calls", "+", "all limits first"),
    ("$5 mode=strict 5 calls", "5", "key=value"),
    ("$5 tz", "tz", "tz=value"),
    ("$5 tz = UTC", "tz", "tz=value"),
    ("$5/day zt=UTC", "zt", "use tz, from"),
    ("$5 wrn_at=0.5", "wrn_at", "did you mean warn_at?"),
    ("$5 colour=red", "colour", "use tz, from, idle"),
    ("$5 mode=strict mode=strict", "mode=strict", "leave one out"),
    ("$5 mode=", "mode=", "leave it out"),
    ("$5 name=''", "name=''", "leave it out"),
    ("$5 name=' '", " ", "leave it out"),
    ("$5 mode=loose", "loose", "sliced, strict or expected"),
    ("$5 mode=stric", "stric", "did you mean strict?"),
    ("$5 at_limit=stop", "stop", "raise, warn, shadow, pause or finish"),
    ("$5 warn_at=0", "0", "warn_at=0.5,0.8"),
    ("$5 warn_at=0.5,1.1", "0.5,1.1", "warn_at=0.5,0.8"),
    ("$5 warn_at=nan", "nan", "warn_at=0.5,0.8"),
    ("$5 warn_at=0.5,50%", "0.5,50%", "once"),
    ("$5/day tz=Europe/Berln", "Europe/Berln", "did you mean Europe/Berlin?"),
    ("$5/day tz=Mars/Phobos_Base_Nine", "Mars/Phobos_Base_Nine", "such as Europe/Berlin"),
    ("$5 tz=UTC", "tz=UTC", "/day"),
    ("$5/min tz=UTC", "tz=UTC", "/day"),
    ("$5/24h tz=UTC", "tz=UTC", "/day"),
    ("$5/session tz=UTC", "tz=UTC", "/day"),
    ("$5 from=2026-01-31", "from=2026-01-31", "/month"),
    ("$5/min from=2026-01-31", "from=2026-01-31", "/month"),
    ("$5/hr from=2026-01-31 tz=UTC", "from=2026-01-31", "/month"),
    ("$5/month from=2026-02-30", "2026-02-30", "from=2026-01-31"),
    ("$5/month from=31.1.2026", "31.1.2026", "from=2026-01-31"),
    ("$5 idle=30m", "idle=30m", "/session"),
    ("$5/day idle=30m", "idle=30m", "/session"),
    ("$5/session idle=30", "30", "idle=30min"),
    ("$5/session idle=soon", "soon", "idle=30min"),
    ("$5/session idle=0s", "0s", "idle=30min"),
]


class TestErrors:
    @pytest.mark.parametrize(("text", "word", "remedy"), ERRORS, ids=[text or "(empty)" for text, _, _ in ERRORS])
    def test_one_sentence_names_the_word_the_text_and_the_remedy(self, text: str, word: str, remedy: str) -> None:
        with pytest.raises(ValueError, match=r".") as caught:
            parse_spec(text)
        message = str(caught.value)
        assert message.startswith(repr(word))
        assert remedy in message
        assert one_sentence(message)
        assert word.strip() == text.strip() or f" in {text!r} " in message
        with pytest.raises(ValueError, match=r"^SHEKEL_BUDGET: ") as caught:
            parse_spec(text, source="SHEKEL_BUDGET")
        assert str(caught.value) == f"SHEKEL_BUDGET: {message}"

    @pytest.mark.parametrize(
        ("text", "first", "second"),
        [
            ("$5 + $6", "$5", "$6"),
            ("$5/hr + 100 calls/hr + $6/60min", "$5/hr", "$6/60min"),
            ("$5/day + $5/day", "$5/day", "$5/day"),
            ("$1 on gpt-4o + $2 on gpt-4o", "$1 on gpt-4o", "$2 on gpt-4o"),
            ("1k tokens + 1000 total tokens", "1k tokens", "1000 total tokens"),
        ],
    )
    def test_two_limits_of_the_same(self, text: str, first: str, second: str) -> None:
        with pytest.raises(ValueError, match="keep one of them") as caught:
            parse_spec(text, "SHEKEL_BUDGET")
        message = str(caught.value)
        assert message.startswith("SHEKEL_BUDGET ")
        assert repr(first) in message
        assert repr(second) in message
        assert one_sentence(message)

    @pytest.mark.parametrize(
        "text", ["$5/day + $1/week", "$5 + $5/day", "$5 + $5 on gpt-4o", "5 tokens + 9 input tokens"]
    )
    def test_limits_that_differ_in_anything_stand_together(self, text: str) -> None:
        assert len(parse_spec(text).limits) == 2

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("$" + "1." * 10_000, "no number"),
            ("7" * 10_000, r"has no unit: write '\$5', '5 calls' or '5 tokens'"),
            ("$" + "7" * 10_000 + " calls", r"a second unit: write '\$5', or '5 calls'"),
        ],
        ids=["no number", "no unit", "two units"],
    )
    def test_long_text_is_not_repeated_in_full(self, text: str, problem: str) -> None:
        with pytest.raises(ValueError, match=problem) as caught:
            parse_spec(text)
        assert len(str(caught.value)) < 300

    @pytest.mark.parametrize("value", [None, 5, 5.0, b"$5", ["$5"]])
    def test_what_is_no_text(self, value: Any) -> None:
        with pytest.raises(ValueError, match=r"SHEKEL_BUDGET must be a text"):
            parse_spec(value, "SHEKEL_BUDGET")

    def test_where_one_limit_is_asked_for(self) -> None:
        with pytest.raises(ValueError, match=r"^the limit: .* 2 limits"):
            parse_limit("$5 + 5 calls", "the limit")
        with pytest.raises(ValueError, match=r"^mode= in"):
            parse_limit("$5 mode=strict")


class TestVelocity:
    @pytest.mark.parametrize(
        ("text", "usd", "seconds"),
        [
            ("$0.50/min", 0.5, 60),
            ("$2/hr", 2, 3600),
            ("$0.10/30s", 0.1, 30),
            ("$1/1.5min", 1, 90),
            ("$5/h", 5, 3600),
            ("$0.25/sec", 0.25, 1),
            ("$5/m", 5, 60),
            ("$5/2m", 5, 120),
        ],
    )
    def test_a_rate(self, text: str, usd: float, seconds: float) -> None:
        limit = parse_velocity(text)
        assert (limit.usd, limit.window) == (usd, Sliding(seconds))

    @pytest.mark.parametrize(
        "text",
        [
            None,
            5,
            True,
            "",
            "fast",
            "$5",
            "$5/day",
            "$5/month",
            "$5/session",
            "5 calls/min",
            "$0/min",
            "$1/min on gpt-4o",
            "$-1/min",
            "$1/min + $2/hr",
            "$1/min mode=strict",
            "$1/0s",
        ],
    )
    def test_what_is_none(self, text: Any) -> None:
        with pytest.raises(ValueError, match=r"warn_velocity") as caught:
            parse_velocity(text, "warn_velocity")
        assert one_sentence(str(caught.value))
