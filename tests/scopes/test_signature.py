"""Signatures: what they cover, and that nothing else passes."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import baggage

import shekel
from shekel import context, scope
from shekel.budgets.scope import entries
from shekel.scopes.counts import dropped
from shekel.scopes.keyring import Key
from shekel.scopes.signature import ENTRY, LONGEST, Seal, genuine, read, sign

KEY = Key(b"k" * 32)
NAMES = st.from_regex(r"[a-z][a-z.]{0,8}", fullmatch=True)
VALUES = st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=9)
SETS = st.dictionaries(NAMES, VALUES, min_size=1, max_size=4)


class TestSign:
    @given(SETS, SETS, st.integers(0, 10**11))
    def test_it_is_genuine_for_its_own_entries_and_no_others(
        self, mine: dict[str, str], others: dict[str, str], expires: int
    ) -> None:
        found = read(sign(mine, KEY, expires))
        assert found is not None
        assert (set(found.keys), found.expires, found.key_id) == (set(mine), expires, KEY.id)
        assert genuine(found, mine, KEY)
        assert genuine(found, others, KEY) == (mine == others)
        assert not genuine(found._replace(expires=expires + 1), mine, KEY)
        assert not genuine(found, mine, Key(b"j" * 32))

    def test_entries_that_look_joined_are_kept_apart(self) -> None:
        found = read(sign({"a": "1", "b": "2"}, KEY, 9))
        assert found is not None
        for other in ({"a": '1","b":"2'}, {"a": "1:b:2"}, {"a:b": "12"}, {"a": "2", "b": "1"}, {"a": "1"}):
            assert not genuine(found, other, KEY)

    @pytest.mark.parametrize(
        "text",
        ["", "1", "1.0.0.0.0", "x" * LONGEST, "2" + sign({"a": "1"}, KEY, 9)[1:], sign({"a": "1"}, KEY, 9) + ":",
         sign({"a": "1"}, KEY, 9).replace(".9.", ".-9."), sign({"a": "1"}, KEY, 9).replace(".9.", ".٩."),
         sign({"a": "1"}, KEY, 9) + "x" * LONGEST],
    )  # fmt: skip
    def test_all_else_is_none(self, text: str) -> None:
        assert read(text) is None


@pytest.fixture
def keys() -> None:
    shekel.configure(baggage_keys=["k" * 32])


@pytest.mark.usefixtures("keys")
class TestSeal:
    def seal(self) -> Any:
        return baggage.get_all()[ENTRY]

    def test_it_covers_what_this_process_has_set_and_sends(self, clock: Any) -> None:
        with scope(user_id="ada", tenant_id="acme"), scope(session_id="s", propagate=False):
            found = read(str(self.seal()))
            assert found is not None
            assert found.keys == ("tenant.id", "user.id")
            assert genuine(found, {"user.id": "ada", "tenant.id": "acme"}, KEY)
            assert found.expires == clock.now + 300
        assert ENTRY not in baggage.get_all()

    def test_a_scope_may_last_longer_than_a_signature(self, clock: Any) -> None:
        with scope(user_id="ada"):
            first = str(self.seal())
            clock.now += 10_000
            found = read(str(self.seal()))
            assert found is not None
            assert found.expires == clock.now + 300
            assert str(self.seal()) != first

    def test_whoever_only_looks_sees_no_signature(self) -> None:
        with scope(user_id="ada"):
            seal = self.seal()
            assert isinstance(seal, Seal)
            for text in (repr(seal), f"{baggage.get_all()}", json.dumps(seal), pickle.loads(pickle.dumps(seal))):
                assert "signed when it is sent" in text
                assert KEY.id not in text

    def test_nothing_to_vouch_for_is_not_signed(self) -> None:
        with scope(user_id="ada", propagate=False):
            assert baggage.get_all() == {}
        with scope(user_id="ada"), scope(user_id="bob", propagate=False):
            assert baggage.get_all() == {}

    def test_what_we_say_ourselves_is_not_outside(self) -> None:
        shekel.configure(trust="signed")
        with scope(user_id="ada"):
            assert entries(context.current()) == {"user.id": "ada"}
        assert not dropped
