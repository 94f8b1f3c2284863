"""Callers: many threads or tasks that start at once on one budget, and what each of them met."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import openai

from shekel import Budget, BudgetExceededError
from shekel.testing import FakeProvider

from .clients import async_client, sync_client


class Callers:
    """Callers of one provider, started together by `go`.

    Args:
        provider: whom they call.
        counted: the budget, entered by each around its call.
        callers: how many.
        asked: the arguments of the call, or what makes them from the caller's number.
        retries: `max_retries` of their client.

    Attributes:
        refused: what was said to those that were not sent.
        cut: what was said to those whose stream was cut.
        failed: other errors.
        finished: how many came to the end of their answer.
        last_decision, first_answer: `time.monotonic()` of the last admission or refusal that was seen to have
            happened, and of the first answer that came.
    """

    def __init__(
        self,
        provider: FakeProvider,
        counted: Budget,
        callers: int,
        asked: Mapping[str, Any] | Callable[[int], Mapping[str, Any]],
        retries: int = 0,
    ) -> None:
        self.provider = provider
        self.budget = counted
        self.callers = callers
        self.asked = asked if callable(asked) else lambda number: asked
        self.retries = retries
        self.refused: list[BudgetExceededError] = []
        self.cut: list[BudgetExceededError] = []
        self.failed: list[Exception] = []
        self.finished = 0
        self.last_decision = -math.inf
        self.first_answer = math.inf
        self._counting = threading.Lock()

    def go(self, who: str) -> None:
        """Let all call: "threads" of one sync client, or "tasks" of one async client."""
        if who == "threads":
            self._threads()
        else:
            asyncio.run(self._tasks())
        sent = [seen.received for seen in self.provider.requests]
        self.last_decision = max([self.last_decision, *sent])

    def _refused(self, error: BudgetExceededError) -> None:
        with self._counting:
            self.refused.append(error)
            self.last_decision = max(self.last_decision, time.monotonic())

    def _came(self) -> None:
        with self._counting:
            self.first_answer = min(self.first_answer, time.monotonic())

    def _ended(self) -> None:
        with self._counting:
            self.finished += 1

    def _threads(self) -> None:
        start = threading.Barrier(self.callers)
        with sync_client(self.provider.openai_url, retries=self.retries) as client:

            def call(number: int) -> None:
                asked = self.asked(number)
                start.wait()
                with self.budget:
                    try:
                        answer = client.chat.completions.create(**asked)
                    except BudgetExceededError as error:
                        self._refused(error)
                        return
                    except openai.OpenAIError as error:
                        self.failed.append(error)
                        return
                    self._came()
                    try:
                        if asked.get("stream"):
                            for _ in answer:
                                pass
                        self._ended()
                    except BudgetExceededError as error:
                        self.cut.append(error)

            threads = [threading.Thread(target=call, args=(number,)) for number in range(self.callers)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    async def _tasks(self) -> None:
        async with async_client(self.provider.openai_url, retries=self.retries) as client:

            async def call(number: int) -> None:
                asked = self.asked(number)
                async with self.budget:
                    try:
                        answer: Any = await client.chat.completions.create(**asked)
                    except BudgetExceededError as error:
                        self._refused(error)
                        return
                    except openai.OpenAIError as error:
                        self.failed.append(error)
                        return
                    self._came()
                    try:
                        if asked.get("stream"):
                            async for _ in answer:
                                pass
                        self._ended()
                    except BudgetExceededError as error:
                        self.cut.append(error)

            await asyncio.gather(*(call(number) for number in range(self.callers)))
