"""Many threads at the second door: exactly what fits passes, and nothing is held or kept afterwards."""

from __future__ import annotations

import threading
from typing import Any

from opentelemetry.sdk.trace import TracerProvider

import shekel
from shekel import BudgetExceededError, budget, configure, per
from shekel.call import open_calls

from .test_spans import MISTRAL, call

THREADS, EACH = 16, 50


def in_threads(work: Any) -> None:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_exactly_as_many_calls_pass_as_the_limit_says(watched: TracerProvider) -> None:
    tracer = watched.get_tracer("somebody.else")
    refused: list[int] = []
    with budget("300 calls") as b:

        def work(number: int) -> None:
            for _ in range(EACH):
                try:
                    call(tracer, MISTRAL)
                except BudgetExceededError:
                    refused.append(number)

        in_threads(b.bind(work))
    assert b.calls_used == 300
    assert len(refused) == THREADS * EACH - 300
    assert b.held == 0
    assert open_calls == {}


def test_each_user_has_a_limit_of_their_own(watched: TracerProvider) -> None:
    tracer = watched.get_tracer("somebody.else")
    passed: dict[int, int] = dict.fromkeys(range(THREADS), 0)
    configure(policies=[per("user.id", "7 calls")])
    try:

        def work(number: int) -> None:
            with shekel.scope(user_id=f"user-{number}"):
                for _ in range(EACH):
                    try:
                        call(tracer, MISTRAL)
                        passed[number] += 1
                    except BudgetExceededError:
                        pass

        in_threads(work)
    finally:
        configure(policies=[])
    assert set(passed.values()) == {7}
    assert open_calls == {}
