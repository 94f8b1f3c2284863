"""The comparison sees what it is there to see: instrumentations broken on purpose do not pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import openai
import pytest
from openai import _base_client
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider

from . import drive
from .records import records
from .runs import differences, differences_sent, run

CREATE = {"create": drive.create}
Change = Callable[[Any], Any]


def changing(change: Change) -> Callable[[TracerProvider, MeterProvider], AbstractContextManager[None]]:
    """An instrumentation that passes every answer of the synchronous OpenAI client through `change`."""
    original = _base_client.SyncAPIClient.request

    def request(self: Any, *args: Any, **kwargs: Any) -> Any:
        return change(original(self, *args, **kwargs))

    @contextmanager
    def instrumentation(tracer_provider: TracerProvider, meter_provider: MeterProvider) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_base_client.SyncAPIClient, "request", request)
            yield

    return instrumentation


def through(items: Callable[[Iterator[Any]], Iterator[Any]]) -> Change:
    """Passes the chunks of a stream through `items`."""

    def change(stream: Any) -> Any:
        stream._iterator = items(stream._iterator)
        return stream

    return change


def drops_the_last(chunks: Iterator[Any]) -> Iterator[Any]:
    every = list(chunks)
    yield from every[:-1]


def copies_one(chunks: Iterator[Any]) -> Iterator[Any]:
    for at, chunk in enumerate(chunks):
        yield type(chunk).construct(**chunk.to_dict() | {"n": None}) if at == 1 else chunk


def swallows_errors(chunks: Iterator[Any]) -> Iterator[Any]:
    try:
        yield from chunks
    except openai.APIError:
        return


def hides_causes(chunks: Iterator[Any]) -> Iterator[Any]:
    try:
        yield from chunks
    except openai.APIError as error:
        raise error from ValueError("the instrumentation's own")


def reads_ahead(chunks: Iterator[Any]) -> Iterator[Any]:
    yield from list(chunks)


def other_type(stream: Any) -> Any:
    stream.__class__ = type("Stream", (type(stream),), {})
    return stream


def leaves_a_mark(stream: Any) -> Any:
    stream.metered = True
    return stream


def closes_first(stream: Any) -> Any:
    stream.response.close()
    return stream


def as_it_is(stream: Any) -> Any:
    return stream


CHAT = [through(drops_the_last), through(copies_one), other_type, leaves_a_mark, closes_first]


@pytest.mark.parametrize("change", CHAT, ids=["drops the last", "copies one", "other type", "mark", "closes"])
def test_a_broken_instrumentation_differs_on_every_stream(change: Change) -> None:
    some = [record for record in records("chat.completions") if record.stream and record.said.status == 200][:10]
    plain = run(some, CREATE, is_async=False)
    assert len(differences(plain, run(some, CREATE, is_async=False, instrumentation=changing(change)))) == len(some)


@pytest.mark.parametrize("items", [swallows_errors, hides_causes])
def test_a_swallowed_or_decorated_exception_differs(items: Any) -> None:
    failing = [record for record in records("responses") if "error_event_mid_stream" in record.oddities]
    assert failing
    plain = run(failing, CREATE, is_async=False)
    assert differences(plain, run(failing, CREATE, is_async=False, instrumentation=changing(through(items))))


def test_reading_ahead_differs_while_a_stream_is_read() -> None:
    streams = [record for record in records("chat.completions") if record.stream and record.said.status == 200]
    some = [record for record in streams if len(record.said.body) > drive.WORTH_A_LOOK][:5]
    surfaces = {"create_next": drive.create_next}
    plain = run(some, surfaces, is_async=False)
    broken = run(some, surfaces, is_async=False, instrumentation=changing(through(reads_ahead)))
    assert len(differences(plain, broken)) == len(some)


def test_a_changed_request_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    some = records("messages")[:3]
    plain = run(some, CREATE, is_async=False)
    create = drive.arguments

    def arguments(*args: Any, **kwargs: Any) -> dict[str, Any]:
        return create(*args, **kwargs) | {"extra_query": {"a": "b"}}

    monkeypatch.setattr(drive, "arguments", arguments)
    assert len(differences_sent(plain, run(some, CREATE, is_async=False))) == len(some)


def test_an_instrumentation_that_changes_nothing_passes() -> None:
    some = records("chat.completions")[:20]
    plain = run(some, CREATE, is_async=False)
    assert differences(plain, run(some, CREATE, is_async=False, instrumentation=changing(as_it_is))) == []
