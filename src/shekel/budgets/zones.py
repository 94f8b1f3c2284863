"""Time zones by their IANA names, and what to say of a name that is none."""

from __future__ import annotations

from datetime import UTC, tzinfo
from difflib import get_close_matches
from zoneinfo import ZoneInfo, available_timezones

from ..shown import shown


def zone_of(name: str) -> tzinfo:
    """The time zone of an IANA name. UTC needs no database.

    Raises:
        ValueError: there is none of that name; the message names the nearest.
    """
    if not isinstance(name, str):
        raise ValueError(f"a time zone must be a name such as 'Europe/Berlin', not {shown(name)}.")
    zone = find_zone(name)
    if zone is None:
        raise ValueError(f"{shown(name)} {no_zone(name)}")
    return zone


def find_zone(name: str) -> tzinfo | None:
    """The time zone of an IANA name, if there is one."""
    if name.upper() == "UTC":
        return UTC
    if name.partition("/")[0] in ("right", "posix"):  # other copies of the database; "right" counts leap seconds
        return None
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown; no path; a directory, or too long for one
        return None


def no_zone(name: str) -> str:
    """What is wrong with a name that is no zone, and what to write."""
    zones = sorted(available_timezones())
    if not zones:
        return "is not known, as this machine has no time zones: use UTC, or install tzdata."
    known = {each.rpartition("/")[2].casefold(): each for each in zones} | {each.casefold(): each for each in zones}
    near = get_close_matches(name.casefold(), known, n=1)
    hint = f"did you mean {known[near[0]]}?" if near else "use an IANA name such as Europe/Berlin, or UTC."
    return f"is no time zone: {hint}"
