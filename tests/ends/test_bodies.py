"""Bodies that a program wrote its own way: sent as the plain SDK sends them, and counted, bounded or refused."""

from __future__ import annotations

import copy
import enum
import gc
import json
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import openai
import pytest
from anthropic.types import Message
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from shekel import budget
from shekel.doors.answers import ResultHook
from shekel.exceptions import BudgetExceededError
from shekel.testing import FakeProvider

from .run import listening

MODEL = "gpt-4o-mini"
HELLO: list[Any] = [{"role": "user", "content": "Hello"}]
CHAT: dict[str, Any] = {"model": MODEL, "messages": HELLO}
MESSAGES: dict[str, Any] = {"model": "claude-sonnet-5", "max_tokens": 50, "messages": HELLO}

pytestmark = pytest.mark.filterwarnings("ignore:Passing raw bytes:DeprecationWarning")

Use = Callable[[openai.OpenAI, anthropic.Anthropic], Any]


def kept(result: Any) -> Any:
    """What the program sees of a result, without ids and times."""
    if isinstance(result, openai.Stream | anthropic.Stream):
        return [type(each).__name__ for each in result]
    return type(result).__name__


def outcome(use: Use, *, asked: bool = False) -> tuple[Any, list[Any]]:
    """What the program sees, and the bodies that the provider sees; without `stream_options` where we may ask so."""
    with FakeProvider() as provider:
        with (
            openai.OpenAI(base_url=provider.openai_url, api_key="test", max_retries=0) as client,
            anthropic.Anthropic(base_url=provider.anthropic_url, api_key="test", max_retries=0) as claude,
        ):
            try:
                seen = kept(use(client, claude))
            except Exception as error:
                seen = (type(error).__name__, str(error))
            if asked:
                return seen, [{**each.body, "stream_options": None} for each in provider.requests]
            return seen, [(each.headers.get("content-length"), each.body) for each in provider.requests]


def same(use: Use, *, spends: bool = True, asked: bool = False, **limits: Any) -> tuple[Any, list[Any]]:
    """Run it plain and under a budget: the program and the provider see the same, and nobody is warned."""
    plain = outcome(use, asked=asked)
    noise: list[str] = []
    with listening(noise), budget(**{"max_usd": 5, **limits}, name="bodies") as limited:
        assert outcome(use, asked=asked) == plain
        gc.collect()
        assert limited.held == 0
        assert (limited.spent > 0) == spends
        assert len(limited.summary_data()["calls"]) == int(spends)
    assert [each for each in noise if "eprecat" not in each] == []
    return plain


def raw(body: Any, *, by: str = "content", stream: bool = True) -> Use:
    def use(client: openai.OpenAI, claude: anthropic.Anthropic) -> Any:
        if not stream:
            return client.post("/chat/completions", cast_to=ChatCompletion, **{by: body})
        cls = openai.Stream[ChatCompletionChunk]
        return client.post("/chat/completions", cast_to=ChatCompletion, stream=True, stream_cls=cls, **{by: body})

    return use


def encoded(**fields: Any) -> bytes:
    return json.dumps({**CHAT, **fields}).encode()


class TestBytes:
    @pytest.mark.parametrize("by", ["content", "body"])
    @pytest.mark.parametrize("stream", [True, False])
    @pytest.mark.parametrize("kind", [bytes, bytearray])
    def test_are_sent_as_they_are_and_priced(self, by: str, stream: bool, kind: Any) -> None:
        same(raw(kind(encoded(stream=stream)), by=by, stream=stream), spends=by == "content" or kind is bytes)

    def test_that_are_read_once_are_left_to_the_sdk(self) -> None:
        same(raw_once, spends=True, unpriced="allow")

    def test_with_a_body_beside_them_raise_as_before(self) -> None:
        def use(client: openai.OpenAI, claude: anthropic.Anthropic) -> Any:
            return client.post(
                "/chat/completions",
                cast_to=ChatCompletion,
                content=encoded(),
                options={"extra_json": {"n": 1}},  # type: ignore[typeddict-unknown-key]
            )

        seen, sent = same(use, spends=False)
        assert seen[0] == "TypeError"
        assert sent == []

    def test_of_a_caller_with_a_cap_pass_a_strict_budget(self) -> None:
        same(raw(encoded(max_completion_tokens=20, stream=True)), mode="strict")

    @pytest.mark.parametrize("fields", [{}, {"max_completion_tokens": 16_000}])
    def test_that_no_cap_can_be_written_to_are_refused_where_it_is_strict(self, fields: Any) -> None:
        with (
            budget(max_usd=0.005, mode="strict"),
            FakeProvider() as provider,
            openai.OpenAI(base_url=provider.openai_url, api_key="test", max_retries=0) as client,
        ):
            with pytest.raises(BudgetExceededError):
                raw(encoded(stream=True, **fields))(client, None)  # type: ignore[arg-type]
            client.chat.completions.create(**CHAT, **fields)  # where a cap can be written it is
            assert len(provider.requests) == 1

    def test_keep_their_model_where_a_fallback_is_due(self) -> None:
        with (
            budget(max_usd=5, fallback={"at_pct": 0.0001, "model": "gpt-4.1-nano"}) as limited,
            FakeProvider() as provider,
            openai.OpenAI(base_url=provider.openai_url, api_key="test", max_retries=0) as client,
        ):
            for _ in range(3):
                raw(encoded(model="gpt-4o"), stream=False)(client, None)  # type: ignore[arg-type]
            with pytest.warns(UserWarning, match="from now on"):
                client.chat.completions.create(**{**CHAT, "model": "gpt-4o"})
            assert [each.body["model"] for each in provider.requests] == ["gpt-4o"] * 3 + ["gpt-4.1-nano"]
            assert [each["model"] for each in limited.summary_data()["calls"]][:3] == ["gpt-4o"] * 3
            assert limited.spent == pytest.approx(float(provider.bill.usd))


def raw_once(client: openai.OpenAI, claude: anthropic.Anthropic) -> Any:
    return raw(iter([encoded()]), stream=False)(client, claude)


class TestOmitted:
    @pytest.mark.parametrize("limits", [{}, {"mode": "strict"}])
    def test_values_of_an_extra_body_are_left_out(self, limits: Any) -> None:
        def use(client: openai.OpenAI, claude: anthropic.Anthropic) -> Any:
            extra = {"temperature": openai.omit, "max_completion_tokens": 20}
            return client.chat.completions.create(**CHAT, stream=True, extra_body=extra)

        def ask_claude(client: openai.OpenAI, claude: anthropic.Anthropic) -> Any:
            return claude.messages.create(**MESSAGES, stream=True, extra_body={"temperature": anthropic.omit})

        same(use, asked=True, **limits)
        same(ask_claude, **limits)

    def test_values_of_a_capped_call_too(self) -> None:
        with (
            budget(max_usd=0.0005, mode="strict"),
            FakeProvider() as provider,
            openai.OpenAI(base_url=provider.openai_url, api_key="test", max_retries=0) as client,
        ):
            client.chat.completions.create(**CHAT, temperature=0.5, extra_body={"temperature": openai.omit})
            body = provider.requests[0].body
            assert "temperature" not in body
            assert body["max_completion_tokens"] > 0


class Copying(openai.OpenAI):
    deep = staticmethod(copy.deepcopy)

    def _prepare_options(self, options: Any) -> Any:
        return type(self).deep(options)


class CopyingByModel(Copying):
    deep = staticmethod(lambda options: options.model_copy(deep=True))


class TestCopies:
    @pytest.mark.parametrize("kind", [Copying, CopyingByModel])
    @pytest.mark.parametrize("stream", [True, False])
    def test_of_the_options_are_of_the_same_call(self, kind: Any, stream: bool) -> None:
        def use(client: openai.OpenAI, claude: anthropic.Anthropic) -> Any:
            with kind(base_url=client.base_url, api_key="test", max_retries=0) as mine:
                return kept(mine.chat.completions.create(**CHAT, stream=stream))

        same(use, asked=stream)

    def test_a_hook_that_was_never_made_goes_quietly(self) -> None:
        noise: list[str] = []
        with listening(noise):
            ResultHook.__new__(ResultHook)
            gc.collect()
        assert noise == []


class Names(str, enum.Enum):  # noqa: UP042 - a `StrEnum` says its value
    GPT = MODEL
    CLAUDE = "claude-sonnet-5"


class Tokens(enum.IntEnum):
    CAP = 20
    CHOICES = 3


class TestEnums:
    def test_a_strict_budget_leaves_a_cap_that_is_a_member_alone(self) -> None:
        fields: dict[str, Any] = {**CHAT, "max_completion_tokens": Tokens.CAP, "n": Tokens.CHOICES}
        same(lambda client, claude: client.chat.completions.create(**fields), mode="strict")

    def test_a_charge_names_the_model_by_its_text(self) -> None:
        with (
            budget(max_usd=5) as limited,
            FakeProvider() as provider,
            openai.OpenAI(base_url=provider.openai_url, api_key="test", max_retries=0) as client,
        ):
            client.chat.completions.create(**{**CHAT, "model": Names.GPT})
            assert limited.summary_data()["calls"][0]["model"] == MODEL
            assert limited.spent == pytest.approx(float(provider.bill.usd))

    def test_a_model_that_is_a_member_is_known_by_its_text(self) -> None:
        same(lambda client, claude: client.chat.completions.create(**{**CHAT, "model": Names.GPT}))
        same(lambda client, claude: client.responses.create(model=Names.GPT, input="Hello"))
        same(lambda client, claude: claude.messages.create(**{**MESSAGES, "model": Names.CLAUDE}))


def failing() -> Iterator[Any]:
    yield HELLO[0]
    raise LookupError("no more")


class TestIterators:
    def test_that_the_sdk_cannot_send_are_left_to_it(self) -> None:
        def post(client: openai.OpenAI, claude: anthropic.Anthropic) -> Any:
            return client.post("/chat/completions", cast_to=ChatCompletion, body={**CHAT, "messages": failing()})

        def in_extra(client: openai.OpenAI, claude: anthropic.Anthropic) -> Any:
            return client.chat.completions.create(**CHAT, extra_body={"messages": iter(HELLO)})

        def respond(client: openai.OpenAI, claude: anthropic.Anthropic) -> Any:
            return client.responses.create(model=MODEL, input=iter(HELLO))  # type: ignore[arg-type]

        for use in (post, in_extra, respond):
            seen, sent = same(use, spends=False)
            assert seen[0] == "TypeError"
            assert sent == []

    def test_that_raise_raise_in_the_program(self) -> None:
        def create(client: openai.OpenAI, claude: anthropic.Anthropic) -> Any:
            return client.chat.completions.create(model=MODEL, messages=failing())

        def ask_claude(client: openai.OpenAI, claude: anthropic.Anthropic) -> Any:
            return claude.messages.create(**{**MESSAGES, "messages": failing()})

        for use in (create, ask_claude):
            seen, sent = same(use, spends=False)
            assert seen == ("LookupError", "no more")
            assert sent == []

    def test_that_the_sdk_sends_are_sent_and_counted(self) -> None:
        def post(client: openai.OpenAI, claude: anthropic.Anthropic) -> Any:
            return claude.post("/v1/messages", cast_to=Message, body={**MESSAGES, "messages": iter(HELLO)})

        same(lambda client, claude: client.chat.completions.create(model=MODEL, messages=iter(HELLO)))
        same(lambda client, claude: claude.messages.create(**{**MESSAGES, "messages": iter(HELLO)}), mode="strict")
        same(post, mode="strict")
