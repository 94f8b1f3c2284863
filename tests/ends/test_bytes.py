"""Answers whose bytes the program reads: the bytes and the errors are the plain SDK's, and the charge is the bill."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from openai._legacy_response import HttpxBinaryResponseContent
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import shekel
from replay.clients import clients
from replay.drive import each, inside, run_now, settled
from shekel import budget
from shekel.call import open_calls
from shekel.testing import FakeProvider, Reply

from .run import _port, listening
from .test_ends import shekel as instrumented
from .ways import CHAT, MESSAGES, RESPONSES

ASKING = {**CHAT, "stream_options": {"include_usage": True}}

PLAIN: dict[str, tuple[Callable[[Any], Any], dict[str, Any]]] = {
    "chat": (lambda its: its.openai.chat.completions, CHAT),
    "responses": (lambda its: its.openai.responses, RESPONSES),
    "messages": (lambda its: its.anthropic.messages, MESSAGES),
}
STREAMED = {
    "chat asking": (PLAIN["chat"][0], {**ASKING, "stream": True}),
    "responses": (PLAIN["responses"][0], {**RESPONSES, "stream": True}),
    "messages": (PLAIN["messages"][0], {**MESSAGES, "stream": True}),
}
READ = ("iter_bytes", "iter_bytes(7)", "iter_text", "iter_lines", "iter_raw", "read", "http")


async def read(answer: Any, how: str, *, is_async: bool) -> list[Any]:
    """What the program gets of one answer."""
    http = answer.http_response
    a = "a" if is_async else ""
    if how == "iter_raw":
        return [item async for item in each(getattr(http, f"{a}iter_raw")())]
    if how == "read":
        return [await settled(answer.read())]
    if how == "http":
        return [item async for item in each(getattr(http, f"{a}iter_lines")())]
    name, *size = how.rstrip(")").split("(")
    return [item async for item in each(getattr(answer, name)(*map(int, size)))]


class Case:
    """One program against one stand-in."""

    def __init__(self, is_async: bool, reply: Reply) -> None:
        self.is_async = is_async
        self.reply = reply
        self.error: str | None = None
        self.bill = 0.0
        self.noise: list[str] = []

    def run(self, program: Callable[[Any], Any]) -> Any:
        """What the program returns."""
        with FakeProvider(self.reply) as provider, listening(self.noise):

            async def whole() -> Any:
                its = clients(_port(provider), is_async=self.is_async, timeout=20)
                try:
                    return await program(its)
                except (Exception, asyncio.CancelledError) as error:
                    self.error = type(error).__name__
                    return None
                finally:
                    await its.close()

            result = asyncio.run(whole()) if self.is_async else run_now(whole())
            provider.wait_idle()
            self.bill = float(provider.bill.usd)
            return result


def compared(is_async: bool, program: Callable[[Any], Any], reply: Reply) -> tuple[Any, Case, Any, dict[str, Any]]:
    """Run it plain and with ours. The program must see the same.

    Returns:
        what it saw, what it was billed, the budget, the span's attributes.
    """
    plain = Case(is_async, reply)
    expected = plain.run(program)
    case = Case(is_async, reply)
    exporter = InMemorySpanExporter()
    with instrumented(exporter):
        with budget(max_usd=5, name="x") as b:
            found = case.run(program)
        until = time.monotonic() + 1
        while b.held and time.monotonic() < until:
            time.sleep(0.01)
    assert case.error == plain.error
    assert case.noise == []
    assert found == expected
    assert b.held == 0
    assert open_calls == {}
    (span,) = exporter.get_finished_spans()
    return found, case, b, dict(span.attributes or {})


def shape(parts: list[Any]) -> tuple[int, int]:
    """Answers of the stand-in have ids and times of their own: lines and bytes are what can be compared."""
    kinds = {type(part) for part in parts}
    assert len(kinds) == 1
    whole = type(parts[0])().join(parts)
    return len(parts) if min(map(len, parts)) == 0 else 0, len(whole)


KINDS = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


def exact(b: Any, case: Case, attributes: dict[str, Any]) -> None:
    assert case.bill > 0
    assert b.spent == pytest.approx(case.bill, rel=1e-9)
    assert attributes["gen_ai.usage.cost.amount"] == pytest.approx(case.bill, rel=1e-9)
    (call,) = b.summary_data()["calls"]
    assert call["cost"] == pytest.approx(case.bill, rel=1e-9)
    assert not call.get("estimated"), call


@KINDS
@pytest.mark.parametrize("how", READ)
@pytest.mark.parametrize(("streamed", "api"), [(False, api) for api in PLAIN] + [(True, api) for api in STREAMED])
def test_the_charge_is_the_bill(is_async: bool, how: str, streamed: bool, api: str) -> None:
    resource, arguments = (STREAMED if streamed else PLAIN)[api]
    receipts = []

    async def program(its: Any) -> Any:
        async with inside(resource(its).with_streaming_response.create(**arguments)) as answer:
            seen = shape(await read(answer, how, is_async=is_async))
            with suppress(LookupError):  # the plain SDK
                receipts.append(shekel.call_of(answer))
        return seen

    _, case, b, attributes = compared(is_async, program, Reply(output_tokens=900))
    exact(b, case, attributes)
    assert receipts[-1].outcome == "complete"


@KINDS
@pytest.mark.parametrize("api", STREAMED)
def test_a_raw_stream_whose_lines_are_read(is_async: bool, api: str) -> None:
    resource, arguments = STREAMED[api]

    async def program(its: Any) -> Any:
        answer = await settled(resource(its).with_raw_response.create(**arguments))
        return shape(await read(answer, "http", is_async=is_async))

    _, case, b, attributes = compared(is_async, program, Reply(output_tokens=300))
    exact(b, case, attributes)


@KINDS
@pytest.mark.parametrize("cast_to", [httpx2.Response, HttpxBinaryResponseContent, str, bytes, object])
@pytest.mark.parametrize("sdk", ["openai", "anthropic"])
def test_what_post_returns(is_async: bool, cast_to: Any, sdk: str) -> None:
    if sdk == "anthropic" and cast_to is HttpxBinaryResponseContent:
        pytest.skip("the other SDK's class")
    path, body = ("/chat/completions", CHAT) if sdk == "openai" else ("/v1/messages", MESSAGES)

    async def program(its: Any) -> Any:
        result = await settled(getattr(its, sdk).post(path, body=body, cast_to=cast_to))
        return type(result).__name__

    _, case, b, attributes = compared(is_async, program, Reply(output_tokens=900))
    exact(b, case, attributes)


@KINDS
def test_written_to_a_file(is_async: bool, tmp_path: Path) -> None:
    kind = openai._response.AsyncStreamedBinaryAPIResponse if is_async else openai._response.StreamedBinaryAPIResponse
    headers = {"headers": {"X-Stainless-Raw-Response": "stream"}}

    async def program(its: Any) -> Any:
        answer = its.openai.post("/chat/completions", body=CHAT, cast_to=kind, options=headers)
        await settled((await settled(answer)).stream_to_file(tmp_path / "body"))
        return len((tmp_path / "body").read_bytes())

    _, case, b, attributes = compared(is_async, program, Reply(output_tokens=900))
    exact(b, case, attributes)


@KINDS
def test_a_stream_that_the_sdk_was_not_told_of(is_async: bool) -> None:
    async def program(its: Any) -> Any:
        text = await settled(its.openai.post("/chat/completions", body={**ASKING, "stream": True}, cast_to=str))
        return shape([text])

    _, case, b, attributes = compared(is_async, program, Reply(output_tokens=300))
    exact(b, case, attributes)


@KINDS
@pytest.mark.parametrize("api", PLAIN)
def test_parsed_after_all(is_async: bool, api: str) -> None:
    """Where the SDK parses, nothing of ours is left on the response."""
    for resource, arguments in (PLAIN[api], STREAMED["chat asking" if api == "chat" else api]):

        async def program(its: Any, resource: Any = resource, arguments: Any = arguments) -> Any:
            async with inside(resource(its).with_streaming_response.create(**arguments)) as answer:
                parsed = await settled(answer.parse())
                seen = [type(item).__name__ async for item in each(parsed)] if "stream" in arguments else []
                return type(parsed).__name__, seen, type(answer.http_response.stream).__name__

        _, case, b, attributes = compared(is_async, program, Reply(output_tokens=60))
        exact(b, case, attributes)


@KINDS
@pytest.mark.parametrize("api", STREAMED)
def test_left_early(is_async: bool, api: str) -> None:
    resource, arguments = STREAMED[api]
    receipts = []

    async def program(its: Any) -> Any:
        async with inside(resource(its).with_streaming_response.create(**arguments)) as answer:
            lines = answer.iter_lines()
            for _ in range(30):
                await anext(lines) if is_async else next(lines)
            with suppress(LookupError):  # the plain SDK
                receipts.append(shekel.call_of(answer))

    _, case, b, _ = compared(is_async, program, Reply(output_tokens=2000, pace=0.002))
    assert receipts[-1].outcome == "closed"
    assert receipts[-1].estimated
    assert 0 < b.spent < 0.05
    assert case.bill > 0


@KINDS
@pytest.mark.parametrize("end", ["plain", "unread", "lost"])
def test_other_ends(is_async: bool, end: str) -> None:
    """A plain answer left in the middle, a stream that is never read, a connection that is lost."""
    receipts = []
    arguments = CHAT if end == "plain" else {**ASKING, "stream": True}

    async def program(its: Any) -> Any:
        async with inside(its.openai.chat.completions.with_streaming_response.create(**arguments)) as answer:
            with suppress(LookupError):  # the plain SDK
                receipts.append(shekel.call_of(answer))
            if end == "lost":
                return [type(item) async for item in each(answer.iter_bytes())]
            if end == "plain":
                pieces = answer.http_response.aiter_raw(5) if is_async else answer.http_response.iter_raw(5)
                await anext(pieces) if is_async else next(pieces)

    reply = Reply(output_tokens=200, drop_after=20) if end == "lost" else Reply(output_tokens=90_000)
    compared(is_async, program, reply)
    assert receipts[-1].outcome == ("error" if end == "lost" else "closed")
    assert receipts[-1].estimated


@KINDS
@pytest.mark.parametrize("how", ["iter_bytes", "iter_lines", "read", "iter_raw", "raw lines"])
@pytest.mark.parametrize("api", [*STREAMED, "chat"])
def test_cut_at_the_limit(is_async: bool, how: str, api: str) -> None:
    resource, arguments = STREAMED[api] if api != "chat" else (PLAIN["chat"][0], {**CHAT, "stream": True})
    limit = 0.0002 if api != "messages" else 0.01
    case = Case(is_async, Reply(output_tokens=4000, pace=0.0005))

    async def program(its: Any) -> Any:
        if how == "raw lines":
            answer = await settled(resource(its).with_raw_response.create(**arguments))
            return await read(answer, "http", is_async=is_async)
        async with inside(resource(its).with_streaming_response.create(**arguments)) as answer:
            return await read(answer, how, is_async=is_async)

    exporter = InMemorySpanExporter()
    with instrumented(exporter), budget(max_usd=limit, name="x") as b:
        case.run(program)
    assert case.error == "BudgetExceededError"
    assert case.noise == []
    assert b.held == 0
    assert open_calls == {}
    assert 0 < b.spent <= limit * 2
    assert 0 < case.bill <= limit * 2
    assert b.summary_data()["calls"]
    assert len(exporter.get_finished_spans()) == 1


@KINDS
@pytest.mark.parametrize("api", STREAMED)
def test_stopped(is_async: bool, api: str) -> None:
    resource, arguments = STREAMED[api]
    case = Case(is_async, Reply(output_tokens=4000, pace=0.0005))
    with instrumented(InMemorySpanExporter()), budget(max_usd=5, name="x") as b:

        async def program(its: Any) -> Any:
            async with inside(resource(its).with_streaming_response.create(**arguments)) as answer:
                lines = 0
                async for _ in each(answer.iter_lines()):
                    lines += 1
                    if lines == 20:
                        b.stop()

        case.run(program)
    assert case.error == "BudgetExceededError"
    assert case.noise == []
    assert b.held == 0
    assert open_calls == {}
    assert case.bill < 0.04
