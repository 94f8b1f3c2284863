"""A policy on a key that nothing sets says so, once, after a thousand calls."""

from __future__ import annotations

import logging

import pytest

from shekel import faults, per
from shekel.policies.unset import CALLS

from .desk import Desk


@pytest.fixture(autouse=True)
def _said_nothing_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "_said", set())


def test_once_with_the_key_and_the_policy(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk(per("user.id", "$1", name="users"), per("uesr.id", "$1", name="slip"))
    with caplog.at_level(logging.WARNING):
        for _ in range(CALLS - 1):
            desk.ask({"user_id": "ada"}, tokens=1)
        assert caplog.records == []
        for _ in range(CALLS):
            desk.ask({"user_id": "ada"}, tokens=1)
    (record,) = caplog.records
    assert "'slip'" in record.getMessage()
    assert "'uesr.id'" in record.getMessage()
    assert "'users'" not in record.getMessage()


def test_a_key_that_was_set_once_is_no_slip(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk(per("tenant.id", "$1", name="tenants"))
    desk.ask({"tenant_id": "acme"}, tokens=1)
    with caplog.at_level(logging.WARNING):
        for _ in range(CALLS + 1):
            desk.ask({"user_id": "ada"}, tokens=1)
    assert caplog.records == []


def test_an_argument_of_scope_is_no_key_and_that_is_said_at_once(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk(per("user_id", "$1", name="slip"))
    with caplog.at_level(logging.WARNING):
        desk.ask({}, tokens=1)
        assert caplog.records == []  # another service may say who it is under that key
        for _ in range(3):
            desk.ask({"user_id": "ada"}, tokens=1)
    (record,) = caplog.records
    assert "'slip' is on 'user_id', and charges no call: scope(user_id=…) sets 'user.id'" in record.getMessage()
