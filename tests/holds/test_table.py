"""Limits under load, measured on the provider's own bill, never by our own counters."""

from __future__ import annotations

import pytest

from .table import CASES, PROMPTS, Case, Row, run, sequential


def refused_rightly(row: Row) -> None:
    """No call was refused that fitted: each refusal says what was spent, held and needed at that moment."""
    for error in row.refusals:
        assert round((error.spent + error.held + (error.needed or 0)) * 1e9) > round(error.limit * 1e9)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_simultaneous_callers_keep_the_bound(case: Case) -> None:
    row = run(case)
    if case.mode == "strict":
        assert row.billed <= row.limit
    else:
        assert row.billed <= row.limit + row.exposure
    assert row.held == 0.0
    assert row.admitted + len(row.refusals) == row.callers
    refused_rightly(row)
    if case.mode == "sliced" and not case.stream:
        # Plain calls of one kind hold the same, and all were open at once: exactly as many as fit.
        assert row.hold > 0
        assert row.admitted == row.limit // row.hold
    if case.capped:
        assert row.admitted > 0


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_sequential_capped_calls_use_the_money(prompt: str, stream: bool) -> None:
    row = sequential(Case("one", prompt, True, stream, "sliced"))
    assert row.billed <= row.limit + row.exposure
    assert row.billed >= 0.9 * row.limit
    refused_rightly(row)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_sequential_capped_calls_use_the_money_under_strict_where_prompts_are_short(stream: bool) -> None:
    row = sequential(Case("one", "short", True, stream, "strict"))
    assert row.limit >= row.billed >= 0.9 * row.limit
    refused_rightly(row)
