"""Bodies that are strange, and the first bytes of images."""

from __future__ import annotations

import base64
import enum
import io
import json
import struct
import time
from collections import UserDict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shekel.providers import find_endpoint
from shekel.providers.media import image_size
from shekel.providers.openai_images import image_bound, image_estimate

ENDPOINTS = [
    find_endpoint("openai", "POST", "/chat/completions"),
    find_endpoint("openai", "POST", "/responses"),
    find_endpoint("anthropic", "POST", "/v1/messages"),
]
odd_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=5) | st.just(object()),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(
            st.sampled_from(
                ["type", "content", "text", "source", "image_url", "input", "tools", "url", "data", "audio"]
            )
            | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)
FIELDS = ("model", "messages", "input", "system", "tools", "stream", "n", "max_tokens", "stream_options", "thinking",
          "response_format", "text", "reasoning", "instructions", "output_config", "context_management")  # fmt: skip


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda e: e.name)
class TestStrangeBodies:
    @given(body=st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=3), odd_values, max_size=6))
    def test_are_read_without_an_error(self, endpoint: Any, body: dict[str, Any]) -> None:
        facts = endpoint.read_request(body)
        assert (facts.input_bound is None) == (facts.unbounded is not None)
        assert facts.extra_input >= 0
        assert facts.choices >= 1

    @given(answer=odd_values)
    def test_answers_are_read_without_an_error(self, endpoint: Any, answer: Any) -> None:
        assert endpoint.read_answer(answer) is not None
        endpoint.reader(endpoint.read_request({}), endpoint_rates()).feed(answer)

    def test_that_contain_themselves_come_to_an_end(self, endpoint: Any) -> None:
        loop: list[Any] = []
        loop.append(loop)
        started = time.monotonic()
        assert endpoint.read_request({"messages": loop, "input": loop}).unbounded
        assert time.monotonic() - started < 5

    def test_that_are_deep_are_no_problem(self, endpoint: Any) -> None:
        deep: Any = "x"
        for _ in range(100_000):
            deep = [deep]
        assert endpoint.read_request({"messages": deep, "input": deep}).text.bytes >= 1

    def test_of_other_mappings_are_read_the_same(self, endpoint: Any) -> None:
        message = {"role": "user", "content": "hello"}
        plain = endpoint.read_request({"model": "m", "messages": [message], "input": [message]})
        other = endpoint.read_request({"model": "m", "messages": [UserDict(message)], "input": [UserDict(message)]})
        assert plain.text == other.text
        assert plain.text.bytes

    def test_files_are_left_alone(self, endpoint: Any) -> None:
        upload = io.BytesIO(b"abc")
        facts = endpoint.read_request({"messages": [{"content": upload}], "input": [{"content": upload}]})
        assert facts.unbounded in ("messages", "input")
        assert upload.tell() == 0


def told() -> st.SearchStrategy[Any]:
    """JSON that is much punctuation and little text: nested, empty, escaped, with many digits."""
    texts = st.sampled_from(["", "x", "水", '"' * 9, "\n\t" * 9, "\x01" * 9, "a word"])
    leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=8) | st.dictionaries(texts, inner, max_size=8), max_leaves=40
    )


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda e: e.name)
class TestTheBoundOfASchema:
    @given(schema=told(), many=st.sampled_from([1, 100]))
    def test_is_no_less_than_its_bytes(self, endpoint: Any, schema: Any, many: int) -> None:
        schema = {"default": [schema] * many}
        tool: dict[str, Any] = {"type": "function", "name": "f", "parameters": schema}
        if endpoint.provider == "anthropic":
            tool = {"name": "f", "input_schema": schema}
        facts = endpoint.read_request({"model": "m", "tools": [tool]})
        sent = json.dumps(schema, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
        assert facts.input_bound >= len(sent)


def endpoint_rates() -> Any:
    from shekel.estimation import OUTPUT_PRIOR

    return OUTPUT_PRIOR


def encoded(data: bytes) -> str:
    return base64.b64encode(data + b"\0" * 64).decode()


class TestImages:
    @pytest.mark.parametrize(
        "data",
        [
            b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 640, 480),
            b"GIF89a" + struct.pack("<HH", 640, 480),
            b"\xff\xd8\xff\xe0\x00\x04ab\xff\xc0\x00\x11\x08" + struct.pack(">HH", 480, 640),
            b"RIFF\0\0\0\0WEBPVP8X" + b"\0" * 8 + (639).to_bytes(3, "little") + (479).to_bytes(3, "little"),
            b"RIFF\0\0\0\0WEBPVP8L" + b"\0" * 4 + b"\x2f" + struct.pack("<I", 639 | 479 << 14),
            b"RIFF\0\0\0\0WEBPVP8 " + b"\0" * 10 + struct.pack("<HH", 640, 480),
        ],
        ids=["png", "gif", "jpeg", "webp-x", "webp-lossless", "webp"],
    )
    def test_the_size_is_in_the_header(self, data: bytes) -> None:
        assert image_size(encoded(data)) == (640, 480)
        assert image_size("data:image/x;base64," + encoded(data)) == (640, 480)

    @given(st.binary(max_size=200) | st.builds(lambda tail: b"\xff\xd8\xff" + tail, st.binary(max_size=100)))
    def test_other_bytes_are_no_error(self, data: bytes) -> None:
        image_size(base64.b64encode(data).decode())
        image_size(data.decode("latin-1"))

    def test_tokens_are_those_of_the_documentation(self) -> None:
        def png(width: int, height: int) -> str:
            return encoded(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", width, height))

        assert image_estimate("gpt-4o", png(1024, 1024), False) == 765
        assert image_estimate("gpt-4o-2024-08-06", png(2048, 4096), False) == 1105
        assert image_estimate("gpt-4o", png(4096, 8192), True) == 85
        assert image_estimate("gpt-4.1-mini", png(1024, 1024), False) == round(1024 * 1.62)
        assert image_bound("gpt-4o-mini") == 2833 + 8 * 5667
        assert image_bound("a-model-of-tomorrow") is None

    @given(st.integers(1, 10_000), st.integers(1, 10_000), st.sampled_from(["gpt-4o", "o3", "gpt-4.1-nano", "gpt-5"]))
    def test_no_size_is_above_the_bound(self, width: int, height: int, model: str) -> None:
        url = encoded(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", width, height))
        bound = image_bound(model)
        assert bound is not None
        assert image_estimate(model, url, False) <= bound


class Words(str, enum.Enum):  # noqa: UP042 - a `StrEnum` says its value
    MODEL = "gpt-4o-mini"
    LONG = "weights of the ancients " * 50
    TEXT = "text"


class Liar(str):
    def __str__(self) -> str:
        return ""

    def __len__(self) -> int:
        return 0

    def isascii(self) -> bool:
        return True


class Numbers(enum.IntEnum):
    N = 20
    CAP = 5


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda e: e.name)
class TestSubclassesOfTextAndNumbers:
    """JSON says the value of a member of an enum, and never asks a subclass what it is."""

    @staticmethod
    def facts(endpoint: Any, model: Any, text: Any, kind: Any, cap: Any, n: Any, key: Any = "text") -> Any:
        said = [{"role": "user", "content": [{"type": kind, key: text}]}, {"role": "user", "content": text}]
        schema = {"type": "object", "description": text, key: n}
        tool = {"name": "f", "description": text, "parameters": schema, "input_schema": schema}
        return endpoint.read_request(
            {"model": model, "messages": said, "input": said, "max_tokens": cap, "max_output_tokens": cap, "n": n,
             "tools": [{"type": "function" if endpoint.provider == "openai" else "custom", **tool}]}
        )  # fmt: skip

    @pytest.mark.parametrize("lying", [False, True])
    def test_are_read_as_they_are_sent(self, endpoint: Any, lying: bool) -> None:
        long = Liar(Words.LONG.value) if lying else Words.LONG
        key = Liar("text") if lying else "text"
        odd = self.facts(endpoint, Words.MODEL, long, Words.TEXT, Numbers.CAP, Numbers.N, key)
        plain = self.facts(endpoint, "gpt-4o-mini", Words.LONG.value, "text", 5, 20)
        assert odd == plain
        assert type(odd.model) is str
        assert odd.cap == 5
        assert {type(value) for value in odd.attributes.values()} <= {str, int}

    def test_a_bool_is_no_number(self, endpoint: Any) -> None:
        facts = endpoint.read_request({"model": "m", "n": True, "max_tokens": True, "max_output_tokens": True})
        assert (facts.cap, facts.choices) == (None, 1)
