"""A program cannot tell whether Shekel is on: recorded traffic through the plain and the instrumented SDK."""

from __future__ import annotations

import functools

import pytest

from . import drive
from .records import Record, records, sample
from .runs import Exchange, assert_none, differences, differences_sent, run, shekel
from .server import GIVES_NULLS, GIVES_USAGE, PIECES, Delivery, Ending

KINDS = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
SETUPS = pytest.mark.parametrize(
    ("api", "tracing"),
    [
        pytest.param("chat.completions", False, id="chat"),
        pytest.param("responses", False, id="responses"),
        pytest.param("messages", False, id="messages-tracing-off"),
        pytest.param("messages", True, id="messages-tracing-on"),
    ],
)
CREATE = {"create": drive.create}


@functools.cache
def plain_create(api: str, is_async: bool, tracing: bool) -> dict[str, Exchange]:
    """The plain SDK on every record, made once: before anything is instrumented, or after it was undone."""
    return run(records(api), CREATE, is_async=is_async, tracing=tracing)


@SETUPS
@KINDS
def test_every_exchange_looks_the_same(api: str, is_async: bool, tracing: bool) -> None:
    plain = plain_create(api, is_async, tracing)
    instrumented = run(records(api), CREATE, is_async=is_async, tracing=tracing, instrumentation=shekel)
    assert_none(differences(plain, instrumented), of=len(plain))
    assert_none(differences_sent(plain, instrumented), of=len(plain))


@SETUPS
@KINDS
def test_an_exchange_that_arrives_in_small_pieces_looks_the_same(api: str, is_async: bool, tracing: bool) -> None:
    _in_small_pieces(api, records(api)[::4], is_async, tracing)


@pytest.mark.slow
@SETUPS
@KINDS
def test_every_exchange_that_arrives_in_small_pieces_looks_the_same(api: str, is_async: bool, tracing: bool) -> None:
    _in_small_pieces(api, records(api), is_async, tracing)


def _in_small_pieces(api: str, some: tuple[Record, ...], is_async: bool, tracing: bool) -> None:
    whole = plain_create(api, is_async, tracing)
    instrumented = run(some, CREATE, is_async=is_async, tracing=tracing, instrumentation=shekel, delivery=PIECES)
    plain = {name: whole[name] for name in instrumented}
    assert len(plain) == len(some)
    assert_none(differences(plain, instrumented), of=len(plain))
    assert_none(differences_sent(plain, instrumented), of=len(plain))


def _every_surface(api: str, some: tuple[Record, ...], is_async: bool, tracing: bool) -> None:
    plain = run(some, drive.SURFACES, is_async=is_async, tracing=tracing)
    instrumented = run(some, drive.SURFACES, is_async=is_async, tracing=tracing, instrumentation=shekel)
    assert_none(differences(plain, instrumented), of=len(plain))
    assert_none(differences_sent(plain, instrumented), of=len(plain))


@SETUPS
@KINDS
def test_every_other_way_of_calling_looks_the_same(api: str, is_async: bool, tracing: bool) -> None:
    _every_surface(api, sample(records(api)), is_async, tracing)


@pytest.mark.slow
@SETUPS
@KINDS
def test_every_other_way_of_calling_looks_the_same_on_all_records(api: str, is_async: bool, tracing: bool) -> None:
    _every_surface(api, records(api), is_async, tracing)


@SETUPS
@KINDS
@pytest.mark.parametrize("ending", list(Ending), ids=lambda ending: ending.value)
def test_a_body_that_is_cut_off_fails_the_same(api: str, is_async: bool, tracing: bool, ending: Ending) -> None:
    some = [record for record in sample(records(api)) if record.said.status == 200][::2]
    for share in (0.0, 0.35, 0.8, 1.0):
        delivery = Delivery(cut=share, ending=ending)
        plain = run(some, CREATE, is_async=is_async, tracing=tracing, delivery=delivery)
        instrumented = run(some, CREATE, is_async=is_async, tracing=tracing, delivery=delivery, instrumentation=shekel)
        assert_none(differences(plain, instrumented), of=len(plain))


def _silent() -> tuple[Record, ...]:
    """The chat streams whose requests did not ask for usage."""
    return tuple(r for r in records("chat.completions") if r.stream and r.said.status == 200 and r.usage is None)


@KINDS
def test_the_chunk_that_only_shekel_asked_for_stays_out_of_sight(is_async: bool) -> None:
    plain = run(_silent(), CREATE, is_async=is_async, delivery=GIVES_NULLS)
    instrumented = run(_silent(), CREATE, is_async=is_async, delivery=GIVES_NULLS, instrumentation=shekel)
    assert_none(differences(plain, instrumented), of=len(plain))


@KINDS
def test_the_chunk_stays_out_of_sight_whatever_the_way_of_calling(is_async: bool) -> None:
    # Who reads the bytes and leaves the parsing out reads what the provider sent.
    parsed = {name: way for name, way in drive.SURFACES.items() if way not in drive.OF_BYTES}
    plain = run(_silent()[::8], parsed, is_async=is_async, delivery=GIVES_NULLS)
    instrumented = run(_silent()[::8], parsed, is_async=is_async, delivery=GIVES_NULLS, instrumentation=shekel)
    assert_none(differences(plain, instrumented), of=len(plain))


@KINDS
@pytest.mark.xfail(strict=True, reason="a provider that is asked for usage adds `usage: null` to every other chunk")
def test_nothing_of_what_only_shekel_asked_for_is_in_sight(is_async: bool) -> None:
    plain = run(_silent(), CREATE, is_async=is_async)
    instrumented = run(_silent(), CREATE, is_async=is_async, delivery=GIVES_USAGE, instrumentation=shekel)
    assert_none(differences(plain, instrumented), of=len(plain))


@SETUPS
@KINDS
def test_uninstrumenting_leaves_no_trace(api: str, is_async: bool, tracing: bool) -> None:
    some = sample(records(api))
    run(some[:3], CREATE, is_async=is_async, tracing=tracing, instrumentation=shekel)
    after = run(some, CREATE, is_async=is_async, tracing=tracing)
    before = {name: plain_create(api, is_async, tracing)[name] for name in after}
    assert_none(differences(before, after), of=len(after))
    own = 1 if tracing else 0
    assert {len(exchange.spans) for exchange in after.values()} == {own}
