"""What the tests of the endpoints share: recorded exchanges, answered by the real SDKs and as decoded JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

import anthropic
import httpx2
import openai
from anthropic.types.beta import BetaMessage, BetaRawMessageStreamEvent
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import CompactedResponse, Response, ResponseStreamEvent

from shekel.estimation import Estimator
from shekel.providers import Answer, StreamReader, find_endpoint
from shekel.usage import Usage

Record = dict[str, Any]
UNLIMITED = 10**15
_TYPES: dict[str, tuple[Any, Any]] = {
    "chat.completions": (ChatCompletion, ChatCompletionChunk),
    "responses": (Response, ResponseStreamEvent),
    "responses.compact": (CompactedResponse, None),
    "messages": (BetaMessage, BetaRawMessageStreamEvent),
}


def is_stream(record: Record) -> bool:
    """Whether the recorded answer is a stream (an error answer to a streaming request is not)."""
    return "event-stream" in (record["response_content_type"] or "")


def events(record: Record) -> Iterator[Any]:
    """The decoded events of a recorded stream."""
    for line in record["response_body"].splitlines():
        data = line[5:].strip() if line.startswith("data:") else ""
        if data and data != "[DONE]":
            yield json.loads(data)


def sdk_objects(record: Record) -> Iterator[Any]:
    """The SDK's own objects for a recorded answer: one, or one for each chunk of a stream."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        kind = record["response_content_type"] or "application/json"
        return httpx2.Response(record["status"], headers={"content-type": kind}, text=record["response_body"])

    http = httpx2.Client(transport=httpx2.MockTransport(answer))
    plain, event = _TYPES[record["api"]]
    with http:
        if record["provider"] == "openai":
            client: Any = openai.OpenAI(api_key="k", http_client=http, max_retries=0)
            stream: Any = openai.Stream
        else:
            client = anthropic.Anthropic(api_key="k", http_client=http, max_retries=0)
            stream = anthropic.Stream
        path = record["path"].removeprefix("/v1") if record["provider"] == "openai" else record["path"]
        if is_stream(record):
            yield from client.post(path, body={}, cast_to=plain, stream=True, stream_cls=stream[event])
        else:
            yield client.post(path, body={}, cast_to=plain)


def reader_of(record: Record) -> StreamReader:
    """A reader for a recorded stream, without a limit."""
    endpoint = find_endpoint(record["provider"], record["method"], record["path"])
    assert endpoint is not None
    reader = endpoint.reader(endpoint.read_request(record["request"]), Estimator().rates("m"))
    reader.limit = UNLIMITED
    return reader


def read(record: Record, objects: Iterable[Any]) -> Answer:
    """What an endpoint makes of an answer, whole or chunk by chunk."""
    if not is_stream(record):
        endpoint = find_endpoint(record["provider"], record["method"], record["path"])
        assert endpoint is not None
        return endpoint.read_answer(next(iter(objects)))
    reader = reader_of(record)
    with suppress(openai.APIError, anthropic.APIError):  # an error event in the stream
        for chunk in objects:
            reader.feed(chunk)
    return reader.answer()


def plain_objects(record: Record) -> Iterator[Any]:
    """The same as decoded JSON."""
    return events(record) if is_stream(record) else iter([json.loads(record["response_body"])])


def answered(records: list[Record]) -> list[Record]:
    """Those that the provider did not refuse."""
    return [record for record in records if record["status"] < 400]


def check_answers(records: list[Record], expected: Any) -> int:
    """Each record, through the SDK and as JSON, gives the usage that `expected` works out. Returns how many did."""
    seen = 0
    for record in answered(records):
        want: Usage | None = None if record["usage"] is None else expected(record)
        by_sdk, by_json = read(record, sdk_objects(record)), read(record, plain_objects(record))
        assert by_sdk.usage == by_json.usage == want, record["id"]
        assert by_sdk.text == by_json.text, record["id"]  # the short way and the long way count the same
        assert (by_sdk.id, by_sdk.model) == (by_json.id, by_json.model), record["id"]
        if "stream_error" not in record["features"]:  # the SDK raises at the error, and hands on no event after it
            assert by_sdk.finish_reasons == by_json.finish_reasons, record["id"]
        seen += 1
    return seen


def check_bounds(records: list[Record], true_input: Any) -> int:
    """No recorded request was billed for more input than its bound. Returns how many had one."""
    bounded = 0
    for record in records:
        endpoint = find_endpoint(record["provider"], record["method"], record["path"])
        assert endpoint is not None
        request = endpoint.read_request(record["request"])
        assert request.unbounded != "body", record["id"]
        assert (request.input_bound is None) == (request.unbounded is not None), record["id"]
        assert request.stream == (record["request"].get("stream") is True)
        if request.input_bound is not None and record["usage"] is not None:
            assert request.input_bound >= true_input(record["usage"]), record["id"]
            bounded += 1
    return bounded


def spread(ratios: list[float]) -> dict[str, float]:
    """Median and 5th and 95th percentile."""
    ordered = sorted(ratios)
    at = len(ordered)
    return {"n": at, "p5": ordered[at // 20], "median": ordered[at // 2], "p95": ordered[at * 19 // 20]}


def input_ratios(records: list[Record], true_input: Any) -> dict[str, float]:
    """Estimate / truth of the input, of a model that nobody called before, where nothing is unbounded."""
    ratios = []
    for record in answered(records):
        endpoint = find_endpoint(record["provider"], record["method"], record["path"])
        assert endpoint is not None
        request = endpoint.read_request(record["request"])
        if request.unbounded is None and record["usage"] is not None:
            estimate = Estimator().input_tokens(request.model, request.text) + request.extra_input
            ratios.append(estimate / true_input(record["usage"]))
    return spread(ratios)


def output_ratios(records: list[Record]) -> dict[str, float]:
    """Live estimate / truth of the output of streams without hidden reasoning."""
    ratios = []
    for record in answered(records):
        if is_stream(record) and not {"reasoning", "thinking"} & set(record["features"]):
            reader = reader_of(record)
            for chunk in events(record):
                reader.feed(chunk)
            usage = reader.answer().usage
            if usage is not None and usage.output > 20 and not usage.reasoning:
                ratios.append(reader.units / 1000 / usage.output)
    return spread(ratios)
