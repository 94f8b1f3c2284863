"""Windows, against a brute-force walk over the clocks of the world."""

from __future__ import annotations

import pickle
import sys
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shekel.budgets.windows import FOREVER, Calendar, Session, Sliding, duration, lasting
from shekel.testing import Clock

HOUR, DAY = 3600, 86_400

# zone, first year, last year, minutes per step of the walk: each is a multiple of what the zone's clocks were set by
WALKS = [
    ("UTC", 2023, 2025, 60),
    ("Europe/Berlin", 2023, 2026, 60),
    ("America/New_York", 2023, 2026, 60),
    ("Asia/Kolkata", 2024, 2025, 30),
    ("America/Santiago", 2021, 2024, 60),  # no midnight in spring
    ("Africa/Cairo", 2023, 2025, 60),  # no midnight in spring
    ("America/Havana", 2022, 2024, 60),  # two midnights in autumn
    ("Pacific/Apia", 2010, 2012, 60),  # no 30 December 2011
    ("Australia/Lord_Howe", 2023, 2025, 30),  # clocks are set by half an hour
    ("Asia/Kathmandu", 2024, 2025, 15),
    ("America/St_Johns", 2006, 2006, 1),  # clocks were set back a minute after midnight
]
ANCHORS = {"week": date(2024, 2, 29), "month": date(2026, 1, 31), "year": date(2024, 2, 29)}


def seconds(*moment: int) -> int:
    return int(datetime(*moment, tzinfo=UTC).timestamp())


def local(zone: str, *moment: int) -> int:
    return int(datetime(*moment, tzinfo=ZoneInfo(zone)).timestamp())


@cache
def mornings(zone: str, first: int, last: int, step: int) -> list[tuple[date, int]]:
    """Each day of those years with the second at which it began: found by walking, a step at a time. A day has begun
    when the clock on the wall first shows it, or shows a later one."""
    wall = ZoneInfo(zone)
    at, end = seconds(first, 1, 1), seconds(last + 1, 1, 1)
    today = datetime.fromtimestamp(at, wall).date()
    found = []
    while at < end:
        at += step * 60
        shown = datetime.fromtimestamp(at, wall).date()
        while today < shown:
            today += timedelta(days=1)
            found.append((today, at))
    return found


def starts_period(day: date, period: str, anchor: date | None) -> bool:
    """Whether a period starts on that day, said as a person would."""
    tomorrow = day + timedelta(days=1)
    if period == "day":
        return True
    if period == "week":
        return day.strftime("%A") == ("Monday" if anchor is None else anchor.strftime("%A"))
    wanted = 1 if anchor is None else anchor.day
    right_day = day.day == wanted or (day.day < wanted and tomorrow.day == 1)
    return right_day and (period == "month" or day.month == (1 if anchor is None else anchor.month))


class TestCalendar:
    @pytest.mark.parametrize(("zone", "first", "last", "step"), WALKS, ids=[walk[0] for walk in WALKS])
    @pytest.mark.parametrize("anchored", [False, True], ids=["", "anchored"])
    @pytest.mark.parametrize("period", ["day", "week", "month", "year"])
    def test_periods_are_those_of_the_clock_on_the_wall(
        self, zone: str, first: int, last: int, step: int, period: str, anchored: bool
    ) -> None:
        anchor = ANCHORS.get(period) if anchored else None
        window = Calendar(period, zone, anchor)
        edges = [at for day, at in mornings(zone, first, last, step) if starts_period(day, period, anchor)]
        keys = []
        for begin, end in pairwise(sorted(set(edges))):
            spans = {window.at(now) for now in (begin, begin + 0.25, (begin + end) / 2, end - 1, end - 0.000001)}
            spans |= {Calendar(period, zone, anchor).at(now) for now in (begin, begin + 90, (begin + end) / 2, end - 1)}
            assert len(spans) == 1, (zone, period, datetime.fromtimestamp(begin, UTC))
            span = spans.pop()
            assert span.ends == end
            assert span.until == end * 1_000_000
            keys.append(span.key)
        assert len(keys) == len(set(keys))
        assert None not in keys

    @pytest.mark.parametrize(("zone", "first", "last", "step"), WALKS, ids=[walk[0] for walk in WALKS])
    def test_hours_are_those_of_the_clock_on_the_wall(self, zone: str, first: int, last: int, step: int) -> None:
        wall = ZoneInfo(zone)
        window = Calendar("hour", zone)
        at, end = seconds(last, 1, 1), seconds(last + 1, 1, 1)
        offset = datetime.fromtimestamp(at, wall).utcoffset()
        edges = []
        while at < end:
            at += step * 60
            shown = datetime.fromtimestamp(at, wall)
            if shown.minute == 0 or shown.utcoffset() != offset:
                edges.append(at)
            offset = shown.utcoffset()
        spans = [window.at(begin) for begin in edges[:-1]]
        assert [span.ends for span in spans] == edges[1:]
        assert [window.at(after - 0.000001) for after in reversed(edges[1:])] == spans[::-1]
        assert len({span.key for span in spans}) == len(spans)

    @given(
        st.sampled_from(
            ["Europe/Berlin", "America/Santiago", "America/St_Johns", "Pacific/Apia", "Australia/Lord_Howe"]
        ),
        st.sampled_from(["hour", "day", "week", "month", "year"]),
        st.none() | st.dates(date(1990, 1, 1), date(2040, 12, 31)),
        st.lists(st.floats(0, seconds(2060, 1, 1)), min_size=2, max_size=20),
    )
    def test_the_answer_hangs_on_the_moment_alone(
        self, zone: str, period: str, anchor: date | None, moments: list[float]
    ) -> None:
        anchor = None if period == "hour" else anchor
        window = Calendar(period, zone, anchor)
        for now in moments:
            span = window.at(now)
            assert span == Calendar(period, zone, anchor).at(now)
            assert span.ends is not None
            assert now < span.ends
            assert window.at(span.ends - 0.001) == span
            assert window.at(span.ends).key != span.key

    @given(st.dates(date(2001, 1, 1), date(2050, 12, 31)), st.dates(date(2001, 1, 1), date(2050, 12, 31)))
    def test_billing_months_never_drift(self, anchor: date, day: date) -> None:
        window = Calendar("month", "UTC", anchor)
        ends = datetime.fromtimestamp(window.at(seconds(day.year, day.month, day.day)).ends or 0, UTC).date()
        assert ends.day == anchor.day or (ends.day < anchor.day and (ends + timedelta(days=1)).day == 1)
        assert 0 < (ends - day).days <= 31

    def test_a_period_is_named_by_its_kind_its_first_day_its_zone_and_its_anchor(self) -> None:
        now = seconds(2026, 3, 29, 12)
        windows = [
            Calendar(period, zone, anchor)
            for period in ("day", "week", "month", "year")
            for zone in ("UTC", "Europe/Berlin", "Europe/Paris")
            for anchor in (None, date(2026, 1, 15), date(2026, 1, 22))
        ]
        assert len({window.at(now).key for window in windows}) == len(windows)
        assert Calendar("day").at(now).key == "day:2026-03-29"
        assert Calendar("month", "Europe/Berlin", date(2026, 1, 31)).at(now).key == (
            "month:2026-02-28@Europe/Berlin from 2026-01-31"
        )

    @pytest.mark.parametrize(
        ("window", "moment", "ends"),
        [
            # what was looked up in the tz database's news, not computed
            pytest.param(Calendar("day", "Europe/Berlin"), (2026, 3, 28, 23), (2026, 3, 29, 22), id="23 hours"),
            pytest.param(Calendar("day", "Europe/Berlin"), (2026, 10, 24, 22), (2026, 10, 25, 23), id="25 hours"),
            pytest.param(Calendar("day", "America/New_York"), (2026, 3, 8, 5), (2026, 3, 9, 4), id="New York, spring"),
            pytest.param(Calendar("day", "America/New_York"), (2026, 11, 1, 4), (2026, 11, 2, 5), id="and autumn"),
            pytest.param(Calendar("day", "America/Santiago"), (2026, 9, 5, 4), (2026, 9, 6, 4), id="into no midnight"),
            pytest.param(Calendar("day", "America/Santiago"), (2026, 9, 6, 4), (2026, 9, 7, 3), id="out of none"),
            pytest.param(Calendar("day", "America/Havana"), (2024, 11, 3, 4), (2024, 11, 4, 5), id="two midnights"),
            pytest.param(Calendar("day", "Pacific/Apia"), (2011, 12, 29, 10), (2011, 12, 30, 10), id="before no day"),
            pytest.param(Calendar("day", "Pacific/Apia"), (2011, 12, 30, 10), (2011, 12, 31, 10), id="after it"),
            pytest.param(
                Calendar("day", "Australia/Lord_Howe"), (2026, 4, 4, 13), (2026, 4, 5, 13, 30), id="30 minutes"
            ),
            pytest.param(Calendar("day", "America/St_Johns"), (2006, 10, 29, 2, 30), (2006, 10, 30, 3, 30), id="00:01"),
            pytest.param(
                Calendar("day", "America/Toronto"), (1919, 3, 31, 4, 30), (1919, 4, 1, 4), id="gap over midnight"
            ),
            pytest.param(Calendar("day"), (2024, 2, 28), (2024, 2, 29), id="into the leap day"),
            pytest.param(Calendar("day"), (2024, 2, 29), (2024, 3, 1), id="the leap day"),
            pytest.param(Calendar("day"), (2025, 2, 28), (2025, 3, 1), id="no leap day"),
            pytest.param(Calendar("month"), (2024, 2, 1), (2024, 3, 1), id="February of a leap year"),
            pytest.param(Calendar("month"), (2025, 12, 1), (2026, 1, 1), id="year end"),
            pytest.param(Calendar("week"), (2025, 12, 29), (2026, 1, 5), id="a week over the year's end"),
            pytest.param(
                Calendar("month", anchor=date(2026, 1, 31)), (2026, 1, 31), (2026, 2, 28), id="31st, then 28th"
            ),
            pytest.param(
                Calendar("month", anchor=date(2026, 1, 31)), (2026, 2, 28), (2026, 3, 31), id="then 31st again"
            ),
            pytest.param(Calendar("month", anchor=date(2026, 1, 31)), (2028, 1, 31), (2028, 2, 29), id="29th"),
            pytest.param(Calendar("month", anchor=date(2026, 1, 31)), (2025, 11, 30), (2025, 12, 31), id="before it"),
            pytest.param(Calendar("year", anchor=date(2024, 2, 29)), (2025, 2, 28), (2026, 2, 28), id="leap birthday"),
            pytest.param(Calendar("year", anchor=date(2024, 2, 29)), (2027, 2, 28), (2028, 2, 29), id="a real one"),
            pytest.param(
                Calendar("week", anchor=date(2026, 1, 1)), (2026, 3, 5), (2026, 3, 12), id="weeks from Thursday"
            ),
            pytest.param(Calendar("year"), (2024, 1, 1), (2025, 1, 1), id="leap year"),
            pytest.param(
                Calendar("hour", "Asia/Kolkata"), (2026, 1, 1, 0, 30), (2026, 1, 1, 1, 30), id="half-hour zone"
            ),
            pytest.param(Calendar("hour", "Europe/Berlin"), (2026, 10, 25, 0), (2026, 10, 25, 1), id="02:00 once"),
            pytest.param(Calendar("hour", "Europe/Berlin"), (2026, 10, 25, 1), (2026, 10, 25, 2), id="02:00 twice"),
        ],
    )
    def test_a_clock_that_crosses_an_edge(
        self, window: Calendar, moment: tuple[int, ...], ends: tuple[int, ...]
    ) -> None:
        clock = Clock(datetime(*moment, tzinfo=UTC))
        began = window.at(clock())
        clock.set(datetime(*moment, tzinfo=UTC) - timedelta(microseconds=1))
        before = window.at(clock())
        assert before.ends == seconds(*moment)
        assert before.key != began.key
        clock.set(datetime(*ends, tzinfo=UTC) - timedelta(microseconds=1))
        assert window.at(clock()) == began
        assert began.ends == seconds(*ends)
        clock.advance(0.000001)
        after = window.at(clock())
        assert after.key not in (began.key, before.key)
        clock.set(datetime(*moment, tzinfo=UTC))  # a wall clock may go back
        assert window.at(clock()) == began

    def test_a_clock_that_is_set_back_over_midnight_does_not_bring_yesterday_back(self) -> None:
        midnight = seconds(2006, 10, 29, 2, 30)
        keys = [Calendar("day", "America/St_Johns").at(midnight + 60 * minute).key for minute in range(-1, 62)]
        assert keys == ["day:2006-10-28@America/St_Johns"] + 62 * ["day:2006-10-29@America/St_Johns"]

    def test_it_pickles_and_compares_by_what_it_says(self) -> None:
        window = Calendar("month", "Europe/Berlin", date(2026, 1, 31))
        window.at(seconds(2026, 5, 5))
        other = pickle.loads(pickle.dumps(window))
        assert other == window == Calendar("month", "Europe/Berlin", date(2026, 1, 31))
        assert hash(other) == hash(window)
        assert other.at(seconds(2027, 5, 5)) == window.at(seconds(2027, 5, 5))
        assert Calendar("day", "utc") == Calendar("day")

    def test_its_meter_is_kept_for_48_hours(self) -> None:
        assert (Calendar("day").length_us, Calendar("day").slides) == (48 * HOUR * 1_000_000, False)

    @pytest.mark.parametrize(
        ("arguments", "word"),
        [
            (("fortnight",), "fortnight"),
            (("day", "Europe/Berln"), "did you mean Europe/Berlin"),
            (("day", "europe/berlin"), "did you mean Europe/Berlin"),
            (("day", "Kolkata"), "did you mean Asia/Kolkata"),
            (("day", ""), "no time zone"),
            (("day", "Europe"), "no time zone"),
            (("day", "../etc/passwd"), "no time zone"),
            (("day", "/etc/localtime"), "no time zone"),
            (("day", "right/UTC"), "no time zone"),
            (("day", "a\0b"), "no time zone"),
            (("day", "x" * 5000), "no time zone"),
            (("day", "\ud800"), "no time zone"),
            (("day", 2), "such as 'Europe/Berlin'"),
            (("day", "UTC", "2026-01-31"), "anchor"),
            (("day", "UTC", datetime(2026, 1, 31)), "anchor"),
            (("hour", "UTC", date(2026, 1, 31)), "hour"),
        ],
    )
    def test_one_that_is_none_is_refused(self, arguments: tuple[object, ...], word: str) -> None:
        with pytest.raises(ValueError, match=word):
            Calendar(*arguments)  # type: ignore[arg-type]


class TestWithoutDatabase:
    @pytest.fixture(autouse=True)
    def database(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """None, as on Windows without tzdata."""
        monkeypatch.setitem(sys.modules, "tzdata", None)  # what `import tzdata` meets where it is not installed
        before = zoneinfo.TZPATH
        zoneinfo.reset_tzpath([])
        ZoneInfo.clear_cache()
        yield
        zoneinfo.reset_tzpath(before)
        ZoneInfo.clear_cache()

    def test_utc_needs_none(self) -> None:
        assert Calendar("month").at(seconds(2026, 5, 31)).ends == seconds(2026, 6, 1)

    def test_other_zones_say_what_to_install(self) -> None:
        with pytest.raises(ValueError, match="this machine has no time zones: use UTC, or install tzdata"):
            Calendar("day", "Europe/Berlin")


class TestWithoutPeriods:
    def test_a_sliding_window(self) -> None:
        window = Sliding(0.5)
        assert (window.length_us, window.slides, window.at(1.0)) == (500_000, True, FOREVER)

    def test_a_session(self) -> None:
        window = Session(60)
        assert (window.length_us, window.slides, window.at(1.0)) == (60_000_000, False, FOREVER)
        assert FOREVER.until == 0

    @pytest.mark.parametrize("length", [0, -1, 0.0001, float("nan"), float("inf"), 1e12, 10**400, True, "60", None])
    @pytest.mark.parametrize("kind", [Sliding, Session])
    def test_a_length_that_is_none_is_refused(self, kind: type[Sliding] | type[Session], length: object) -> None:
        with pytest.raises(ValueError, match="seconds"):
            kind(length)  # type: ignore[arg-type]

    @given(st.floats(0.001, 3e9) | st.integers(1, 100_000).map(float) | st.integers(1, 10_000).map(lambda n: n * 60.0))
    def test_a_length_is_written_and_read_back(self, length: float) -> None:
        window = Sliding(length)
        word = lasting(window.seconds)
        number = word.rstrip("smindhr")
        assert Sliding(duration(number or "1", word[len(number) :]) or 0) == window
        assert abs(window.seconds - length) < 0.000001
