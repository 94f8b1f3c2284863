"""A stand-in in a process of its own, so that what it sees of a connection does not wait for the threads of a test."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import shekel
from shekel.runtime import the_runtime
from shekel.testing import FakeProvider, Reply
from shekel.testing.bill import Attempt


def _serve(pipe: Connection, reply: Reply) -> None:
    with FakeProvider(reply, keep_requests=10_000) as provider:
        pipe.send(provider.openai_url)
        while (asked := pipe.recv()) != "close":
            if asked == "attempts":
                provider.wait_idle(60)
                pipe.send(provider.bill.attempts)
            elif asked == "requests":
                pipe.send(len(provider.requests))
            else:
                provider.default = asked
                pipe.send(None)


class Apart:
    """The stand-in, as seen from here. `time.monotonic()` is the machine's, so its times compare with ours."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self.url: str = pipe.recv()

    def _ask(self, what: Any) -> Any:
        self._pipe.send(what)
        return self._pipe.recv()

    def attempts(self) -> tuple[Attempt, ...]:
        """The bill, once nothing is in progress."""
        attempts: tuple[Attempt, ...] = self._ask("attempts")
        return attempts

    def requests(self) -> int:
        """How many have come."""
        count: int = self._ask("requests")
        return count

    def replies(self, reply: Reply) -> None:
        """What it answers from now on."""
        self._ask(reply)


@contextmanager
def apart(reply: Reply) -> Iterator[Apart]:
    """Start it, and stop it."""
    fresh = multiprocessing.get_context("spawn")  # a fork would inherit the threads and locks of the tests
    ours, theirs = fresh.Pipe()
    process = fresh.Process(target=_serve, args=(theirs, reply), daemon=True)
    process.start()
    hosts = the_runtime().usage_hosts
    try:
        provider = Apart(ours)
        shekel.configure(include_usage_hosts=[*hosts, provider.url.split("/")[2]])
        yield provider
    finally:
        shekel.configure(include_usage_hosts=hosts)
        ours.send("close")
        process.join(30)
        if process.is_alive():
            process.kill()
            process.join()
