"""Two services over real HTTP with W3C baggage between them: one limit, one trace, and a provider told nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

import shekel
from shekel.testing import FakeProvider

from .test_trust import ATTACKS, HOUSE, header, house_header, signed

TRUST = {"front": "none", "back": "signed"}


@contextmanager
def service(role: str, url: str, keys: Path) -> Iterator[httpx2.Client]:
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("service.py")), role, url],
        env={
            **os.environ,
            "SHEKEL_BAGGAGE_KEY_FILE": str(keys),
            "SHEKEL_TRUST": TRUST[role],
            "ANTHROPIC_OPEN_TELEMETRY": "true",
        },
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        assert port, "the service did not start"
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as client:
            yield client
    finally:
        process.terminate()
        process.wait(30)
        if process.stdout is not None:
            process.stdout.close()


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("house") / "keys"
    path.touch(mode=0o600)
    path.write_text(f"{HOUSE}\n")
    return path


@pytest.fixture(scope="module")
def house_provider() -> Iterator[FakeProvider]:
    with FakeProvider() as provider:
        yield provider


@pytest.fixture(scope="module")
def back(house_provider: FakeProvider, keys: Path) -> Iterator[httpx2.Client]:
    """The second service, for all tests here: each asks for users of its own."""
    with service("back", house_provider.anthropic_url, keys) as client:
        yield client


@pytest.fixture
def sent(house_provider: FakeProvider) -> Callable[[], list[Any]]:
    """The requests that the provider has received since the test began."""
    before = len(house_provider.requests)
    return lambda: list(house_provider.requests)[before:]


def test_the_sixth_call_of_a_user_is_refused_in_the_second_service(
    sent: Callable[[], list[Any]], back: httpx2.Client, keys: Path
) -> None:
    before = back.get("/dropped").json()
    with service("front", str(back.base_url).rstrip("/"), keys) as front:
        cleo, bob = ({"authorization": f"token-of-{name}"} for name in ("cleo", "bob"))
        for _ in range(5):
            assert front.get("/ask", headers=cleo).status_code == 200
        sixth = front.get("/ask", headers=cleo)
        assert (sixth.status_code, list(sixth.json())) == (429, ["error"])
        assert "$" not in sixth.text
        assert front.get("/ask", headers=bob).status_code == 200
        assert front.get("/ask").status_code == 200, "a request of nobody is charged to nobody"
        assert back.get("/dropped").json() == before
        here, there = front.get("/spans").json(), back.get("/spans").json()

    assert len(sent()) == 7
    for request in sent():
        assert "traceparent" in request.headers, "HTTP instrumentation is on"
        assert "baggage" not in request.headers

    calls = [span for span in there if span["scope"] == "shekel"]
    assert [span["attributes"].get("user.id") for span in calls] == ["cleo"] * 6 + ["bob", None]
    assert [span["attributes"].get("shekel.decision") for span in calls[4:7]] == ["admitted", "refused", "admitted"]
    for call in calls[:6]:
        both = {span["id"]: span for span in here + there if span["trace"] == call["trace"]}
        path = []
        span = call
        while span is not None:
            path.append((span["scope"] or "", span["id"] in {each["id"] for each in there}))
            last, span = span, both.get(span["parent"])
        assert last["parent"] is None
        assert path[-1][1] is False, "the trace began in the first service"
        assert len(path) >= 4
        servers = [span for span in both.values() if span["attributes"].get("user.id") == "cleo"]
        assert len(servers) == 3, "the request of each service, and the call"
        assert {span["id"] in {each["id"] for each in there} for span in servers} == {True, False}


def test_attacks_over_http_charge_and_free_nobody_and_each_is_counted(
    sent: Callable[[], list[Any]], back: httpx2.Client
) -> None:
    shekel.configure(baggage_keys=[HOUSE])
    counted: dict[str, int] = back.get("/dropped").json()
    for attack in ATTACKS:
        made = attack.make()
        if not isinstance(made, str):
            continue  # what other code does inside a process does not come over HTTP
        assert back.get("/ask", headers={"baggage": made.encode()}).status_code == 200, attack.name
        now = back.get("/dropped").json()
        more = {reason for reason in now if now[reason] > counted.get(reason, 0)}
        assert more, attack.name
        if attack.reason is not None:
            assert str(attack.reason) in more, attack.name
        counted = now
    assert counted["oversized"] == 1
    for _ in range(5):
        assert back.get("/ask", headers={"baggage": house_header()}).status_code == 200
    assert back.get("/ask", headers={"baggage": house_header()}).status_code == 429
    assert [request.headers["baggage"] for request in sent() if "baggage" in request.headers] == []


def test_what_came_signed_is_not_sent_on_by_tracing_of_the_sdk(
    sent: Callable[[], list[Any]], back: httpx2.Client
) -> None:
    text = header({**signed({"user.id": "dora", "tenant.id": "acme"}), "weather": "fair"})
    assert back.get("/claude", headers={"baggage": text}).status_code == 200
    [request] = sent()
    assert request.headers["baggage"] == "weather=fair"
    spans: list[Any] = back.get("/spans").json()
    calls = [span for span in spans if "gen_ai.operation.name" in span["attributes"]]
    [call] = [span for span in calls if span["attributes"].get("user.id") == "dora"]
    assert call["scope"] == "com.anthropic.sdk.python"
    assert call["attributes"]["tenant.id"] == "acme"
