"""Whom a service trusts: the attacker's table, and what passes between services of one house.

Every case is baggage as it arrives, written out and read by OpenTelemetry's own propagator. The victim is ada, whose
limit is two calls; nothing that an attacker sends may charge her, or free anybody of a limit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from opentelemetry import baggage
from opentelemetry import context as otel
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

import shekel
from shekel import BudgetExceededError, ShekelInstrumentor, context, per, scope
from shekel.budgets.scope import entries, without_scope
from shekel.scopes.counts import Drop, dropped
from shekel.scopes.keyring import Key
from shekel.scopes.outside import REMEMBERED, outside
from shekel.scopes.signature import ENTRY, sign
from shekel.testing import FakeProvider

HOUSE, RETIRED, THEIRS = "h" * 32, "r" * 32, "t" * 32
ADA, EVE = {"user.id": "ada"}, {"user.id": "eve"}
REQUEST: dict[str, Any] = {
    "model": "gpt-4o-mini",
    "messages": [{"role": "user", "content": "Hello."}],
    "max_tokens": 16,
}


def header(values: dict[str, str]) -> str:
    """A request's baggage header, as a service writes it."""
    sent: dict[str, str] = {}
    here = Context()
    for key, value in values.items():
        here = baggage.set_baggage(key, value, here)
    W3CBaggagePropagator().inject(sent, here)
    return sent.get("baggage", "")


def arrived(text: str) -> Context:
    """The context of a request with that header."""
    return W3CBaggagePropagator().extract({"baggage": text}, Context())


def signed(values: dict[str, str], key: str = HOUSE, age: float = 0) -> dict[str, str]:
    expires = int(outside.clock() - age) + 300
    return {**values, ENTRY: sign(values, Key(key.encode()), expires)}


def later(text: str) -> str:
    """A signature with a later expiry written in."""
    version, key, expires, rest = text.split(".", 3)
    return f"{version}.{key}.{int(expires) + 60}.{rest}"


def house_header() -> str:
    """What a service of the house sends for ada and acme."""
    with scope(user_id="ada", tenant_id="acme"):
        sent: dict[str, str] = {}
        W3CBaggagePropagator().inject(sent)
    return sent["baggage"]


@pytest.fixture
def house(clock: Any) -> None:
    shekel.configure(trust="signed", baggage_keys=[HOUSE], policies=[per("user.id", "2 calls")])


class Attack:
    """What is sent, and how it is counted."""

    def __init__(self, name: str, make: Callable[[], str | Context], reason: Drop | None) -> None:
        self.name, self.make, self.reason = name, make, reason

    def __str__(self) -> str:
        return self.name


def locally() -> Context:
    return baggage.set_baggage("user.id", "ada", Context())


ATTACKS = [
    Attack("unsigned", lambda: header(ADA), Drop.UNSIGNED),
    Attack("forged with a key of theirs that has our key's id", lambda: header(
        {**ADA, ENTRY: sign(ADA, Key(THEIRS.encode()), int(outside.clock()) + 9)
         .replace(Key(THEIRS.encode()).id, Key(HOUSE.encode()).id)}), Drop.FORGED),
    Attack("signed with a key of theirs", lambda: header(signed(ADA, THEIRS)), Drop.UNKNOWN_KEY),
    Attack("signed with a retired key", lambda: header(signed(ADA, RETIRED)), Drop.UNKNOWN_KEY),
    Attack("expired", lambda: header(signed(ADA, age=300)), Drop.EXPIRED),
    Attack("expired, with a later expiry written in", lambda: header(
        {**ADA, ENTRY: later(signed(ADA, age=300)[ENTRY])}), Drop.FORGED),
    Attack("somebody else's user id under eve's signature", lambda: header({**signed(EVE), **ADA}), Drop.FORGED),
    Attack("ada's id signed as a session", lambda: header({**signed({"session.id": "ada"}), **ADA}), Drop.UNSIGNED),
    Attack("a covered entry left out", lambda: header(
        {k: v for k, v in signed({**ADA, "tenant.id": "acme"}).items() if k != "tenant.id"}), Drop.FORGED),
    Attack("a covered key taken off the list", lambda: header(
        {**ADA, "tenant.id": "evil", ENTRY: signed({**ADA, "tenant.id": "acme"})[ENTRY].replace("tenant.id:", "")}),
        Drop.FORGED),
    Attack("a limit smuggled in as a property", lambda: header(signed(ADA)).replace("ada", "ada;max_usd=9999"),
        Drop.FORGED),
    Attack("a limit signed in as an entry of ours", lambda: header(
        signed({**ADA, "shekel.budget.limit": "9999"})), Drop.FORGED),
    Attack("eight kibibytes", lambda: header(ADA) + ",x=" + "y" * 8192, None),
    Attack("a signature of four kibibytes", lambda: baggage.set_baggage(ENTRY, "1." + "y" * 5000, locally()),
        Drop.OVERSIZED),
    Attack("a signature that is none", lambda: header({**ADA, ENTRY: "1.0.0.none"}), Drop.MALFORMED),
    Attack("a signature that is no text", lambda: baggage.set_baggage(ENTRY, 7, locally()), None),
    Attack("non-ASCII", lambda: "user.id=adä," + header(signed(ADA)).split(",")[1], Drop.FORGED),
    Attack("no baggage at all", lambda: "%%%,=,;;,user.id", None),
    Attack("a local set_baggage by other code", locally, Drop.UNSIGNED),
    Attack("a local set_baggage over what was signed", lambda: baggage.set_baggage(
        "user.id", "ada", arrived(header(signed(EVE)))), Drop.FORGED),
]  # fmt: skip


@pytest.fixture
def reader() -> Iterator[InMemoryMetricReader]:
    reader = InMemoryMetricReader()
    ShekelInstrumentor().instrument(meter_provider=MeterProvider(metric_readers=[reader]))
    yield reader
    ShekelInstrumentor().uninstrument()


def told(reader: InMemoryMetricReader) -> dict[str, int]:
    """`shekel.baggage.dropped`, by reason."""
    data = reader.get_metrics_data()
    return {
        str((point.attributes or {})["shekel.reason"]): int(point.value)
        for resource in ([] if data is None else data.resource_metrics)
        for each in resource.scope_metrics
        for metric in each.metrics
        if metric.name == "shekel.baggage.dropped"
        for point in metric.data.data_points
    }


def ask(client: openai.OpenAI, here: Context) -> None:
    token = otel.attach(here)
    try:
        client.chat.completions.create(**REQUEST)
    finally:
        otel.detach(token)


@pytest.mark.usefixtures("house")
class TestAttacks:
    @pytest.mark.parametrize("attack", ATTACKS, ids=str)
    def test_none_charges_or_frees_anybody_and_each_is_counted(
        self,
        attack: Attack,
        provider: FakeProvider,
        client: openai.OpenAI,
        reader: InMemoryMetricReader,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        made = attack.make()
        for _ in range(3):  # more than ada may
            ask(client, arrived(made) if isinstance(made, str) else made)
        counted = told(reader)
        if attack.reason is None:
            assert not counted or set(counted) <= {"unsigned"}
        else:
            assert set(counted) == {str(attack.reason)}
            assert counted[attack.reason] == (3 if isinstance(made, str) else 1), "once for each baggage"
        for _ in range(2):
            ask(client, arrived(house_header()))  # all of hers is still there
        with pytest.raises(BudgetExceededError) as refused:
            ask(client, arrived(house_header()))
        assert refused.value.scope == "user.id=ada", "and no more than that"
        for request in provider.requests:
            assert "baggage" not in request.headers
        for secret in (HOUSE, RETIRED, THEIRS):
            assert secret not in caplog.text

    @pytest.mark.parametrize("attack", ATTACKS, ids=str)
    def test_in_a_scope_of_ours_it_is_ours_that_counts(self, attack: Attack) -> None:
        made = attack.make()
        here = arrived(made) if isinstance(made, str) else made
        token = otel.attach(here)
        try:
            with scope(user_id="bob", tenant_id="hers"):
                here = context.current()
                assert (entries(here)["user.id"], entries(here)["tenant.id"]) == ("bob", "hers")
        finally:
            otel.detach(token)

    @pytest.mark.parametrize("attack", [each for each in ATTACKS if each.name != "eight kibibytes"], ids=str)
    def test_baggage_that_is_read_inside_a_scope_of_ours_does_not_replace_it(self, attack: Attack) -> None:
        made = attack.make()
        if not isinstance(made, str):
            return
        with scope(user_id="bob", propagate=False):
            here = W3CBaggagePropagator().extract({"baggage": made}, context.current())
        assert entries(here)["user.id"] == "bob"

    def test_a_worker_s_own_scope_and_the_payer_of_each_message_add_up(self) -> None:
        with scope(tenant_id="here", **{"worker.id": "w1"}):
            for _ in range(2):
                here = W3CBaggagePropagator().extract({"baggage": header(signed(ADA))}, context.current())
                assert entries(here) == {"user.id": "ada", "tenant.id": "here", "worker.id": "w1"}
            assert "user.id" not in entries(context.current())

    def test_replayed_in_time_it_is_the_same_payer_and_after_the_expiry_nobody(self, clock: Any) -> None:
        text = house_header()
        assert entries(arrived(text)) == {"user.id": "ada", "tenant.id": "acme"}
        clock.now += 299
        assert entries(arrived(text)) == {"user.id": "ada", "tenant.id": "acme"}
        clock.now += 1
        assert entries(arrived(text)) == {}
        assert dropped == {Drop.EXPIRED: 1}

    def test_a_request_that_was_in_time_keeps_its_payer_however_long_it_lasts(self, clock: Any) -> None:
        here = arrived(house_header())
        assert entries(here)["user.id"] == "ada"
        clock.now += 3600
        assert entries(here)["user.id"] == "ada"
        derived = baggage.set_baggage("other", "x", otel.set_value("k", "v", here))
        assert entries(derived)["user.id"] == "ada"
        assert not dropped

    def test_many_requests_are_remembered_within_bounds(self) -> None:
        text = house_header()
        for _ in range(REMEMBERED + 50):
            assert entries(arrived(text))["user.id"] == "ada"
        assert len(outside._seen) == len(outside._checked) == REMEMBERED

    def test_a_signature_is_checked_once_for_each_request(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from shekel.scopes import signature

        asked: list[object] = []
        genuine = signature.genuine
        monkeypatch.setattr(signature, "genuine", lambda *given: asked.append(given) or genuine(*given))
        here = arrived(house_header())
        for number in range(5):
            assert entries(baggage.set_baggage("n", str(number), here))["user.id"] == "ada"
        assert len(asked) == 1

    def test_keys_change_without_a_gap(self) -> None:
        text = house_header()
        shekel.configure(baggage_keys=[THEIRS, HOUSE])
        assert entries(arrived(text))["user.id"] == "ada"
        assert entries(arrived(house_header()))["user.id"] == "ada"
        shekel.configure(baggage_keys=[THEIRS])
        assert entries(arrived(text)) == {}
        assert dropped == {Drop.UNKNOWN_KEY: 1}


class TestSentOn:
    def test_a_scope_in_the_second_service_signs_anew_what_it_has_checked(self, house: None, clock: Any) -> None:
        token = otel.attach(arrived(house_header()))
        try:
            with scope(session_id="s7"):
                clock.now += 3600
                sent: dict[str, str] = {}
                W3CBaggagePropagator().inject(sent)
        finally:
            otel.detach(token)
        assert entries(arrived(sent["baggage"])) == {"user.id": "ada", "tenant.id": "acme", "session.id": "s7"}

    def test_what_it_has_not_checked_it_does_not_sign(self, house: None) -> None:
        token = otel.attach(arrived(header(ADA)))
        try:
            with scope(session_id="s7"):
                sent: dict[str, str] = {}
                W3CBaggagePropagator().inject(sent)
        finally:
            otel.detach(token)
        assert entries(arrived(sent["baggage"])) == {"session.id": "s7"}

    def test_an_entry_kept_here_is_not_vouched_for(self, house: None) -> None:
        token = otel.attach(arrived(house_header()))
        try:
            with scope(user_id="bob", propagate=False):
                assert entries(context.current()) == {"user.id": "bob", "tenant.id": "acme"}
                sent: dict[str, str] = {}
                W3CBaggagePropagator().inject(sent)
        finally:
            otel.detach(token)
        assert entries(arrived(sent["baggage"])) == {"tenant.id": "acme"}

    def test_nothing_of_it_goes_to_the_provider_trusted_or_not(self, clock: Any) -> None:
        shekel.configure(baggage_keys=[HOUSE])
        with scope(user_id="ada", **{"team.id": "7"}):
            sent: dict[str, str] = {}
            W3CBaggagePropagator().inject(sent)
        shekel.configure(baggage_keys=None)
        here = baggage.set_baggage("weather", "fair", arrived(sent["baggage"]))
        assert baggage.get_all(without_scope(here, frozenset())) == {"weather": "fair"}
        shekel.configure(baggage_keys=[THEIRS])  # its own signature takes the place of that one
        token = otel.attach(here)
        for block in (scope(session_id="s"), scope()):
            with block:
                bare = without_scope(context.current(), frozenset())
                assert baggage.get_all(bare) == {"weather": "fair"}
        otel.detach(token)


class TestNone:
    def test_nothing_counts_and_one_warning_names_trust(
        self, client: openai.OpenAI, caplog: pytest.LogCaptureFixture
    ) -> None:
        shekel.configure(policies=[per("user.id", "2 calls"), per("tenant.id", "2 calls")])
        for _ in range(3):
            ask(client, arrived(header(ADA)))
            token = otel.attach(arrived(header(ADA)))
            with scope(session_id="s"):
                client.chat.completions.create(**REQUEST)
            otel.detach(token)
        assert dropped == {Drop.UNTRUSTED: 6}
        [record] = caplog.records
        assert "user.id" in record.getMessage()
        assert "trust=" in record.getMessage()
        assert "ada" not in record.getMessage()

    def test_a_value_of_ours_in_the_baggage_is_no_reason_to_warn(
        self, client: openai.OpenAI, caplog: pytest.LogCaptureFixture
    ) -> None:
        shekel.configure(policies=[per("user.id", "2 calls")])
        token = otel.attach(arrived(header(EVE)))
        with scope(user_id="ada"):
            client.chat.completions.create(**REQUEST)
        otel.detach(token)
        with scope(user_id="ada"):
            client.chat.completions.create(**REQUEST)
        assert caplog.records == []

    def test_what_no_policy_asks_for_is_nobodys_business(self) -> None:
        assert entries(arrived(header({"user.id": "ada", "x": "y"}))) == {}
        assert not dropped


class TestAll:
    def test_what_policies_ask_for_and_the_conventional_keys_count(self) -> None:
        shekel.configure(trust="all", policies=[per("team.id", "2 calls")])
        here = arrived(header({"user.id": "ada", "team.id": "7", "weather": "fair"}))
        assert entries(here) == {"user.id": "ada", "team.id": "7"}
        shekel.configure(policies=[per("weather", "2 calls")])
        assert entries(here) == {"user.id": "ada", "weather": "fair"}, "policies may change while a request lasts"

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            ("ada;limit=9999", Drop.MALFORMED),
            ("a\nb", Drop.MALFORMED),
            ("a" * 300, Drop.OVERSIZED),
            ("", Drop.MALFORMED),
        ],
    )
    def test_a_value_that_no_scope_can_have_does_not_count(self, value: str, reason: Drop) -> None:
        shekel.configure(trust="all")
        assert entries(baggage.set_baggage("user.id", value, Context())) == {}
        assert dropped == {reason: 1}

    def test_ours_goes_before_it(self) -> None:
        shekel.configure(trust="all")
        token = otel.attach(arrived(header({**EVE, "tenant.id": "acme"})))
        with scope(user_id="ada", propagate=False):
            assert entries(context.current()) == {"user.id": "ada", "tenant.id": "acme"}
        assert entries(context.current()) == {"user.id": "eve", "tenant.id": "acme"}
        otel.detach(token)
