"""The HTTP response whose bytes the program reads stays the program's: it pickles, decompresses and closes as ever."""

from __future__ import annotations

import gzip
import json
import pickle
import zlib
from collections.abc import Iterator

import httpx2
import openai
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import shekel
from shekel import BudgetExceededError, budget
from shekel.testing import FakeProvider, Reply

from .test_bytes import ASKING
from .test_ends import shekel as instrumented
from .ways import CHAT, RESPONSES


@pytest.fixture
def metered() -> Iterator[None]:
    with instrumented(InMemorySpanExporter()):
        yield


@pytest.mark.parametrize("how", ["read", "iter_bytes", "parse", "close"])
@pytest.mark.parametrize("streamed", [False, True])
def test_it_pickles_as_without_us(
    provider: FakeProvider, client: openai.OpenAI, metered: None, how: str, streamed: bool
) -> None:
    with client.chat.completions.with_streaming_response.create(**CHAT, stream=streamed) as answer:  # type: ignore[call-overload]
        done = getattr(answer, how)()
        if (streamed and how == "parse") or how == "iter_bytes":
            list(done)
    again = pickle.loads(pickle.dumps(answer.http_response))
    assert again.status_code == 200
    assert type(again).__name__ == "Response"
    assert not {"read", "aread", "close", "aclose", "iter_raw"} & answer.http_response.__dict__.keys()
    assert type(answer.http_response.stream).__module__.startswith("httpx")
    assert answer.http_response.elapsed.total_seconds() > 0


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "identity", "GZIP"])
@pytest.mark.parametrize("streamed", [False, True])
def test_compressed(metered: None, encoding: str, streamed: bool) -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 1000, "total_tokens": 1010}
    first = {"id": "c", "model": "gpt-4o-mini", "choices": [{"index": 0, "delta": {"content": "Hi"}}]}
    last = {"id": "c", "model": "gpt-4o-mini", "choices": [], "usage": usage}
    message = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hi"}}
    body = json.dumps({**last, "choices": [message]}).encode()
    if streamed:
        events = [json.dumps(first), json.dumps(last), "[DONE]"]
        body = b": hello\r\n\r\n" + b"".join(b"data: " + event.encode() + b"\r\n\r\n" for event in events)
    squeeze = {"gzip": gzip.compress, "deflate": zlib.compress, "identity": bytes}[encoding.lower()]
    squeezed = squeeze(body)

    class Bits(httpx2.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            for at in range(0, len(squeezed), 7):
                yield squeezed[at : at + 7]

    def answering(request: httpx2.Request) -> httpx2.Response:
        kind = "text/event-stream" if streamed else "application/json"
        return httpx2.Response(
            200, headers={"content-type": kind, "content-encoding": encoding}, stream=Bits(), request=request
        )

    http = httpx2.Client(transport=httpx2.MockTransport(answering))
    with openai.OpenAI(api_key="test", http_client=http) as client, budget(max_usd=5) as b:
        with client.chat.completions.with_streaming_response.create(**CHAT, stream=streamed) as answer:  # type: ignore[call-overload]
            assert b"".join(answer.iter_bytes()) == body
    assert b.spent == pytest.approx((10 * 0.15 + 1000 * 0.6) / 1e6)


def test_a_body_that_is_too_much_to_gather(metered: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shekel.doors.bodies.MOST", 10)
    with FakeProvider() as provider, budget(max_usd=5) as b:
        with openai.OpenAI(base_url=provider.openai_url, api_key="test") as client:
            for given in (CHAT, {**ASKING, "stream": True}):
                with client.chat.completions.with_streaming_response.create(**given) as answer:  # type: ignore[call-overload]
                    assert list(answer.iter_bytes())
    assert b.spent > 0
    assert b.held == 0


def test_the_refusal_is_the_budgets(client: openai.OpenAI, provider: FakeProvider, metered: None) -> None:
    provider.default = Reply(output_tokens=3000, pace=0.0005)
    with budget(max_usd=0.0002, name="x") as b:
        with pytest.raises(BudgetExceededError) as caught:
            with client.responses.with_streaming_response.create(**RESPONSES, stream=True) as answer:  # type: ignore[call-overload]
                for _ in answer.iter_lines():
                    pass
    assert caught.value.budget == "x"
    assert shekel.call_of(answer).outcome == "cut"
    assert b.spent > 0


@pytest.mark.parametrize("parsed", [False, True])
def test_a_stream_that_is_here_already(metered: None, parsed: bool) -> None:
    """A cache, or a mock, brings the whole body at once."""
    usage = {"prompt_tokens": 10, "completion_tokens": 1000, "total_tokens": 1010}
    events = [
        {"id": "c", "choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}]},
        {"id": "c", "choices": [], "usage": usage},
    ]
    body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events) + b"data: [DONE]\n\n"

    def answering(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=body)

    http = httpx2.Client(transport=httpx2.MockTransport(answering))
    with openai.OpenAI(api_key="test", http_client=http) as client, budget(max_usd=5) as b:
        answer = client.chat.completions.with_raw_response.create(**ASKING, stream=True)  # type: ignore[call-overload]
        if parsed:
            assert len(list(answer.parse())) == 2
        else:
            assert answer.http_response.read() == body
    assert b.spent == pytest.approx((10 * 0.15 + 1000 * 0.6) / 1e6)


def test_an_unknown_compression_is_no_error_of_ours(metered: None) -> None:
    class Bits(httpx2.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield b"\x00\x01"

    def answering(request: httpx2.Request) -> httpx2.Response:
        headers = {"content-type": "text/event-stream", "content-encoding": "nobody-knows"}
        return httpx2.Response(200, headers=headers, stream=Bits())

    http = httpx2.Client(transport=httpx2.MockTransport(answering))
    with openai.OpenAI(api_key="test", http_client=http) as client, budget(max_usd=5) as b:
        with client.chat.completions.with_streaming_response.create(**CHAT, stream=True) as answer:  # type: ignore[call-overload]
            assert list(answer.iter_bytes()) == [b"\x00\x01"]
    assert b.held == 0
