"""Limits under load, measured on the provider's own bill, never by our own counters."""

from __future__ import annotations

import pytest

from shekel.testing import Reply

from .quarter import quarter
from .requests import KINDS, OUTPUT
from .table import CASES, MODES, NANO, Case, Row, run, sequential


def refused_rightly(row: Row) -> None:
    """No call was refused that fitted: each refusal says what was spent, held and needed at that moment."""
    for error in row.refusals:
        assert round((error.spent + error.held + (error.needed or 0)) * NANO) > row.limit


def kept(row: Row) -> None:
    """What every row must show."""
    bound = row.limit if row.case.mode == "strict" else row.limit + row.exposure
    assert row.billed <= bound
    assert row.held == 0.0
    refused_rightly(row)


@pytest.mark.parametrize("case", quarter(CASES))
def test_callers_that_come_at_once(case: Case) -> None:
    row = run(case)
    kept(row)
    assert row.admitted + len(row.refusals) == case.callers
    assert row.at_once
    if case.mode != "sliced" or not case.stream:
        # All of a kind hold the same, from the start to the end: exactly as many as fit, however one counts.
        assert row.admitted == min(row.fit, case.callers)
        if case.mode != "strict":
            assert row.least in (row.full, None)  # what the refusals say is what the ledger holds
    if case.mode != "sliced":
        assert row.finished == row.admitted  # nothing is cut
    if case.kind != "uncapped" and case.worth == 10:
        assert row.admitted > 0


@pytest.mark.parametrize(
    "case",
    quarter(
        [
            Case(who, kind, stream, mode)
            for mode in MODES
            for who in ("threads", "tasks")
            for stream in (False, True)
            for kind in ("english", "uncapped")
        ]
    ),
)
def test_answers_that_are_sixteen_times_as_long_as_expected(case: Case) -> None:
    """What was learnt of the model is 64 tokens; then come answers of 1,024. A cap is a cap; without one, `strict`
    writes one, a sliced stream is cut, and what remains is within what was stated."""
    row = run(case, Reply(output_tokens=16 * OUTPUT, pace=0.0005), taught=16)
    kept(row)
    if case.kind == "uncapped" and row.fit > 1:
        assert row.billed > row.limit  # so much longer than learnt: it is the exposure that bounds it


@pytest.mark.parametrize(
    "case",
    quarter(
        [
            Case("one", kind, stream, mode)
            for mode in MODES
            for stream in (False, True)
            for kind in ("short", *KINDS)
            if kind != "uncapped"
        ]
    ),
)
def test_one_after_the_other_uses_the_money(case: Case) -> None:
    """Nine tenths of it at least, where output comes to its cap. `strict` holds the longest that the input can be, a
    token for each byte, so that it keeps more in reserve where prompts are long beside their answers."""
    row = sequential(case)
    kept(row)
    if case.mode != "strict" or case.kind in ("short", "four"):
        assert row.billed >= 0.9 * row.limit
    else:
        assert row.billed > 0
