"""One HTTP attempt: an answer given time. When what is generated, when it is sent, when it stops, what it costs.

The schedule is absolute: token k of a choice exists from `started + delay + k × pace` on, whether or not anybody reads,
until the client's connection is gone (or longer, with `keep_generating`). Sending follows generation; the bill follows
generation too, never the sending.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from .answer import Answer
from .bill import Attempt, Bill, Outcome, list_price
from .connection import Connection
from .reply import Reply, rejected
from .wire import Problem, Wire, encode

_BATCH = 32_768  # bytes that are sent at a time when many tokens are due at once
_RETRIED = frozenset({408, 409, 429})  # and all 5xx: what both SDKs retry


@dataclass(slots=True)
class Exchange:
    """One attempt in progress."""

    connection: Connection
    wire: Wire
    answer: Answer
    request_id: str
    bill: Bill
    started: float
    stream_ended: Callable[[], None]
    """Called once, when the client has no open stream of this exchange any more."""
    status: int = 0
    recorded: bool = False

    @property
    def reply(self) -> Reply:
        return self.answer.reply

    @property
    def _begin(self) -> float:
        return self.started + self.reply.delay

    @property
    def _limit(self) -> int:
        """How many tokens per choice reach the client at most."""
        after = self.reply.ends_after
        return self.answer.steps if after is None else min(self.answer.steps, self.answer.hidden + max(0, after))

    def made(self, moment: float) -> int:
        """How many tokens per choice exist at a moment if nothing stops the generation."""
        if not self.reply.pace:
            # Without a pace a plain answer is made whether or not the client waits for it.
            return self.answer.steps if moment >= self._begin or not self.answer.asked.stream else 0
        # The small part of a token makes up for the rounding of the clock at exact multiples of the pace.
        return max(0, min(self.answer.steps, int((moment - self._begin) / self.reply.pace + 1e-6)))

    async def run(self) -> None:
        """Answer. The bill has the attempt when this returns, or is cancelled."""
        try:
            if self.reply.status != 200:
                await self._fail()
            elif self.answer.asked.stream:
                await self._stream()
            else:
                await self._plain()
        except asyncio.CancelledError:
            made = min(self.made(time.monotonic()), self.answer.steps if self.reply.keep_generating else self._limit)
            self.record(Outcome.CLOSED, made if self.reply.status == 200 else None)
            raise

    async def _plain(self) -> None:
        ends = self.reply.drop_after is not None or self.reply.stall_after is not None
        limit = self._limit if ends else self.answer.steps
        if await self.connection.wait_until(self._begin + limit * self.reply.pace):
            return await self._left(Outcome.DISCONNECTED)
        if ends:
            return await self._give_up(limit)
        self.record(Outcome.COMPLETE, self.answer.steps)
        self._json(200, encode(self.wire.plain(self.answer)))

    async def _stream(self) -> None:
        if await self.connection.wait_until(self._begin):
            return await self._left(Outcome.DISCONNECTED)
        if -1 in (self.reply.drop_after, self.reply.stall_after):
            return await self._give_up(0)
        self.status = 200
        self.connection.head(200, [("content-type", "text/event-stream; charset=utf-8"), *self._headers()])
        batch, sent = bytearray(), 0
        ends = self.reply.ends_after is not None
        for frame in self.wire.frames(self.answer):
            if ends and (frame.final or frame.due > self._limit):
                break
            moment = self._begin + frame.due * self.reply.pace
            final = frame.final and not self.recorded
            if batch and (final or len(batch) > _BATCH or moment > time.monotonic()):
                self.connection.write(bytes(batch))
                batch.clear()
                if await self.connection.has_room():
                    return await self._left(Outcome.DISCONNECTED)
            if await self.connection.wait_until(moment):
                return await self._left(Outcome.DISCONNECTED)
            if final:
                # On the bill before the client can know that it has all: who has read the end may read the bill.
                self.record(Outcome.COMPLETE, self.answer.steps)
            batch += frame.data
            sent += 1
        self.connection.write(bytes(batch))
        if ends:
            return await self._give_up(self._limit, sent)
        self.connection.end()

    async def _give_up(self, limit: int, sent: int = 0) -> None:
        """The ends that the test asked for, once `limit` tokens per choice were generated."""
        reply = self.reply
        if reply.stall_after is not None:
            while not await self.connection.wait(None):
                pass
            return await self._left(Outcome.DISCONNECTED, limit)
        if reply.drop_after is not None:
            await self.connection.reset()
            return await self._left(Outcome.DROPPED, limit)
        outcome = Outcome.EOF
        if reply.error_event_after is not None:
            outcome = Outcome.ERROR_EVENT
            fields = {} if reply.error is None or isinstance(reply.error, str) else reply.error
            self.connection.write(self.wire.error_event(self.answer, sent, self._problem(), fields))
        if reply.keep_generating:
            self.connection.end()
            return await self._left(outcome, limit)
        self.record(outcome, limit)
        self.connection.end()

    async def _left(self, outcome: Outcome, limit: int | None = None) -> None:
        """Nothing reaches the client any more. What is generated until generation stops is billed.

        `limit` is where generation stops for reasons of its own, unless it goes on regardless.
        """
        self.stream_ended()
        reply = self.reply
        moment = time.monotonic() if self.connection.closed_at is None else self.connection.closed_at
        if reply.keep_generating:
            moment = min(moment + reply.linger, max(moment, self._begin + self.answer.steps * reply.pace))
            await asyncio.sleep(moment - time.monotonic())
            limit = None
        steps = self.made(moment)
        self.record(outcome, steps if limit is None else min(steps, limit))

    async def _fail(self) -> None:
        reply = self.reply
        gone = await self.connection.wait_until(self._begin)
        outcome = Outcome.REJECTED if rejected(reply.status) else Outcome.ERROR
        self.record(
            Outcome.DISCONNECTED if gone else outcome,
            self.answer.steps if reply.bill_error else None,
            status=0 if gone else reply.status,
        )
        if gone:
            return
        fields = {} if reply.error is None or isinstance(reply.error, str) else reply.error
        error = self.wire.error(reply.status, self._problem(), fields, self.request_id)
        self._json(reply.status, encode(error))

    def refuse(self, problem: Problem) -> None:
        """Answer a request that the provider would not take."""
        self.record(Outcome.REJECTED, None, status=problem.status)
        self._json(problem.status, encode(self.wire.error(problem.status, problem, {}, self.request_id)))

    def record(self, outcome: Outcome, steps: int | None, *, status: int | None = None) -> None:
        """Put the attempt on the bill, once. `steps` None: nothing is billed."""
        if self.recorded:
            return
        self.recorded = True
        self.stream_ended()
        answer = self.answer
        prompt = answer.input
        output, reasoning = answer.output(steps or 0)
        billed = steps is not None
        speed = answer.body.get("speed") if self.wire.provider == "anthropic" else None
        cost: int | None = 0
        if billed:
            cost = list_price(
                self.wire.provider,
                answer.model,
                input=prompt.total,
                output=output,
                cached=prompt.cached,
                cache_write=prompt.cache_write,
                cache_write_1h=prompt.cache_write_1h,
                tier=answer.tier,
                speed=speed,
            )
        if status is None:
            status = 200 if outcome is Outcome.COMPLETE else self.status
        self.bill._add(
            Attempt(
                id=self.request_id,
                endpoint=self.wire.endpoint,
                model=answer.model,
                input_tokens=prompt.total if billed else 0,
                output_tokens=output if billed else 0,
                reasoning_tokens=reasoning if billed else 0,
                cached_tokens=prompt.cached if billed else 0,
                cache_write_tokens=prompt.cache_write if billed else 0,
                cache_write_1h_tokens=prompt.cache_write_1h if billed else 0,
                cost=cost,
                status=status,
                outcome=outcome,
                stream=answer.asked.stream,
                started=self.started,
                ended=time.monotonic(),
                closed_at=self.connection.closed_at,
                service_tier=answer.tier,
                speed=speed,
            )
        )

    def _problem(self) -> Problem:
        error = self.reply.error
        return Problem(error if isinstance(error, str) else f"The stand-in was told to answer {self.reply.status}.")

    def _headers(self) -> list[tuple[str, str]]:
        return [(self.wire.request_id_header(), self.request_id)]

    def _json(self, status: int, body: bytes) -> None:
        headers = [("content-type", "application/json"), ("content-length", str(len(body))), *self._headers()]
        retry_after = self.reply.retry_after
        if retry_after is not None and (status in _RETRIED or status >= 500):
            headers.append(("retry-after-ms", f"{retry_after * 1000:g}"))
        self.status = status
        self.connection.head(status, headers)
        self.connection.write(body)
        self.connection.end()
