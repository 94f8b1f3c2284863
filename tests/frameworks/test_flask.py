"""A Flask view that streams from a stream of the SDK, under a budget for each user, on a threaded WSGI server.

What is hard about it: a WSGI server reads a view's generator after the view has returned, and closes it when the
client has gone; Flask's own context is gone by then unless asked for.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import openai
import pytest
from flask import Flask, Response, stream_with_context
from werkzeug.serving import make_server

import shekel
from shekel import Budget, BudgetExceededError
from shekel.testing import FakeProvider, Reply

REQUEST: dict[str, Any] = {
    "model": "gpt-4o-mini",
    "messages": [{"role": "user", "content": "Hello."}],
    "stream": True,
}
WAYS = ("block", "bound", "whole")


class Site:
    """The program under test, and a client for it."""

    def __init__(self, provider: FakeProvider) -> None:
        self.provider = provider
        self.budgets: dict[str, Budget] = {}
        self.left = threading.Event()
        self.http = httpx2.Client(trust_env=False, timeout=20)
        self.sdk = openai.OpenAI(
            base_url=provider.openai_url, api_key="test", max_retries=0, http_client=httpx2.Client(trust_env=False)
        )
        self.server = make_server("127.0.0.1", 0, self.app(), threaded=True)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def budget_of(self, user: str) -> Budget:
        return self.budgets.setdefault(user, shekel.budget(max_usd=0.001, name=user))

    def app(self) -> Flask:
        app = Flask(__name__)

        def events() -> Iterator[str]:
            try:
                with self.sdk.chat.completions.create(**REQUEST) as stream:
                    for chunk in stream:
                        yield f"data: {chunk.choices[0].delta.content or ''}\n\n"
                yield "event: done\n\n"
            except BudgetExceededError as error:
                yield f"event: error\ndata: {error.public_message}\n\n"
            finally:
                self.left.set()

        @app.get("/block/<user>")
        def block(user: str) -> Response:
            def inside() -> Iterator[str]:
                with self.budget_of(user):
                    yield from events()

            return Response(inside(), mimetype="text/event-stream")

        @app.get("/bound/<user>")
        def bound(user: str) -> Response:
            return Response(self.budget_of(user).bind(events)(), mimetype="text/event-stream")

        @app.get("/whole/<user>")
        def whole(user: str) -> Response:
            # The stream is opened in the view and read after it: it belongs to the budget that it was opened in.
            with self.budget_of(user):
                try:
                    stream = self.sdk.chat.completions.create(**REQUEST)
                except BudgetExceededError as error:
                    return Response(f"event: error\ndata: {error.public_message}\n\n")

            def read() -> Iterator[str]:
                try:
                    for chunk in stream:
                        yield f"data: {chunk.choices[0].delta.content or ''}\n\n"
                    yield "event: done\n\n"
                except BudgetExceededError as error:
                    yield f"event: error\ndata: {error.public_message}\n\n"
                finally:
                    stream.close()
                    self.left.set()

            return Response(stream_with_context(read()), mimetype="text/event-stream")

        return app

    def get(self, path: str) -> str:
        return self.http.get(self.url + path).text

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join(10)
        self.server.server_close()
        self.http.close()
        self.sdk.close()


@pytest.fixture
def site() -> Iterator[Site]:
    with FakeProvider() as provider:
        running = Site(provider)
        yield running
        running.close()


def _wait(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not ready():
        assert time.monotonic() < deadline, "it did not come to pass in twenty seconds"
        time.sleep(0.005)


@pytest.mark.parametrize("way", WAYS)
class TestView:
    def test_a_whole_answer_costs_what_the_provider_bills(self, site: Site, way: str) -> None:
        assert site.get(f"/{way}/alice").endswith("event: done\n\n")
        alice = site.budget_of("alice")
        assert round(alice.spent * 1e9) == site.provider.bill.total > 0
        assert alice.held == 0

    def test_a_stream_is_cut_and_the_next_call_refused(self, site: Site, way: str) -> None:
        site.provider.default = Reply(output_tokens=4000, pace=0.0003)
        assert "This answer was stopped" in site.get(f"/{way}/carol")
        refused = site.get(f"/{way}/carol")
        assert refused.startswith("event: error")
        assert "$" not in refused
        site.provider.wait_idle()
        assert len(site.provider.requests) == 1
        carol = site.budget_of("carol")
        assert carol.held == 0
        assert site.provider.bill.total / 1e9 <= 0.001 + carol.peak_exposure

    def test_a_client_that_leaves_gives_the_hold_back_and_is_charged(self, site: Site, way: str) -> None:
        site.provider.default = Reply(output_tokens=1000, pace=0.005)
        with site.http.stream("GET", f"{site.url}/{way}/frank") as answer:
            for number, _ in enumerate(answer.iter_lines()):
                if number > 30:
                    break
        _wait(site.left.is_set)
        frank = site.budget_of("frank")
        _wait(lambda: frank.held == 0)
        site.provider.wait_idle()
        (attempt,) = site.provider.bill
        assert attempt.outcome == "disconnected"
        assert 0 < frank.spent <= 0.001
        assert attempt.cost / 1e9 <= frank.spent + frank.exposure

    def test_many_users_at_once_pay_each_for_themselves(self, site: Site, way: str) -> None:
        site.provider.default = Reply(output_tokens=60, pace=0.001)
        users = [f"user{number}" for number in range(8)]
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda user: site.get(f"/{way}/{user}"), users))
        assert all(answer.endswith("event: done\n\n") for answer in answers)
        spent = [site.budget_of(user).spent for user in users]
        assert len(set(spent)) == 1
        assert round(sum(spent) * 1e9) == site.provider.bill.total
