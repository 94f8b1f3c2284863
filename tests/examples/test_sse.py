"""The two web examples as their users run them: the program in a process of its own, the real servers and SDKs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from shekel.testing import FakeProvider, Reply

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SERVERS = {
    "fastapi_sse": [sys.executable, "-m", "uvicorn", "fastapi_sse:app", "--port", "0"],
    "flask_sse": [sys.executable, "-m", "flask", "--app", "flask_sse", "run", "--port", "0"],
}
LIMIT = 0.5


class Site:
    """A running example, and a browser for it."""

    def __init__(self, url: str, provider: FakeProvider) -> None:
        self.url = url
        self.provider = provider
        self.sent = 0

    @property
    def requests(self) -> int:
        """How many this test has had sent."""
        return len(self.provider.requests) - self.sent

    def events(self, user: str | None, prompt: str = "Hello") -> list[tuple[str, str]]:
        """The events that one request is answered with: name and data."""
        headers = {} if user is None else {"X-User": user}
        with httpx2.Client(trust_env=False, timeout=60) as http:
            answer = http.get(f"{self.url}/chat", params={"prompt": prompt}, headers=headers)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        parts = [part.split("\n") for part in answer.text.split("\n\n") if part]
        return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in parts]


@pytest.fixture(scope="module")
def stand_in() -> Iterator[FakeProvider]:
    with FakeProvider() as provider:
        yield provider


@pytest.fixture(scope="module", params=sorted(SERVERS))
def running(request: pytest.FixtureRequest, stand_in: FakeProvider) -> Iterator[Site]:
    provider = stand_in
    environment = {
        **os.environ,
        "OPENAI_BASE_URL": provider.openai_url,
        "OPENAI_API_KEY": "test",
        "NO_PROXY": "127.0.0.1",
        "SHEKEL_INCLUDE_USAGE_HOSTS": urlsplit(provider.openai_url).netloc,
        "PYTHONUNBUFFERED": "1",
    }
    process = subprocess.Popen(
        SERVERS[request.param], cwd=EXAMPLES, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
        text=True,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                # What else it says is not read: it would have to say more than a pipe holds, and it does not.
                yield Site(found[0], provider)
                break
        else:
            pytest.fail("the server did not start")
    finally:
        process.terminate()
        process.communicate(timeout=20)


@pytest.fixture
def site(running: Site) -> Site:
    """The same for all tests, each with users of its own."""
    running.provider.default = Reply()
    running.sent = len(running.provider.requests)
    return running


def test_an_answer_is_streamed_to_its_end(site: Site) -> None:
    site.provider.reply(Reply(text="Good\nmorning"))
    events = site.events("alice")
    assert events[-1] == ("done", "")
    assert "".join(data for name, data in events if name == "text") == "Good\nmorning"


def test_a_limit_is_told_as_an_event_and_holds_for_each_user(site: Site) -> None:
    site.provider.default = Reply(input_tokens=2_500_000)  # $0.375 of gpt-4o-mini's input
    assert site.events("bob")[-1] == ("done", "")
    assert site.events("bob")[-1] == ("done", ""), "nobody can know the input before it is counted"
    ((name, sentence),) = site.events("bob")
    assert name == "limit"
    assert sentence
    assert "$" not in sentence
    assert site.events("bill")[-1] == ("done", "")
    assert site.requests == 3


def test_a_cut_in_the_middle_follows_the_text(site: Site) -> None:
    site.provider.reply(Reply(input_tokens=3_330_000))  # $0.4995
    assert site.events("carol")[-1] == ("done", "")
    site.provider.default = Reply(output_tokens=4_000, pace=0.003)  # $0.0024
    events = site.events("carol")
    assert events[0][0] == "text"
    assert [name for name, _ in events].count("limit") == 1
    assert events[-1][0] == "limit"
    site.provider.wait_idle()
    assert site.provider.bill[-1].outcome == "disconnected"


def test_who_is_not_known_pays_as_nobody_and_for_nobody_else(site: Site) -> None:
    site.provider.reply(Reply(input_tokens=4_000_000))
    assert site.events(None)[-1] == ("done", "")
    assert site.events(None)[0][0] == "limit"
    assert site.events("dave")[-1] == ("done", "")


def test_users_side_by_side(site: Site) -> None:
    site.provider.default = Reply(output_tokens=50, pace=0.001)
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda number: site.events(f"user {number % 4}"), range(24)))
    assert all(answer[-1] == ("done", "") for answer in answers)
    assert site.requests == 24
