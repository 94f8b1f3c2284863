"""What OpenInference and OpenLLMetry say of a call, at its start and at its end, new versions and old."""

from __future__ import annotations

from typing import Any

import pytest

from shekel.dialects import Seen, find, may_become, sdk_of
from shekel.usage import Usage

OI, LL = "openinference.instrumentation.", "opentelemetry.instrumentation."


def facts(scope: str, name: str = "", **attributes: Any) -> tuple[Any, ...] | None:
    """Operation, provider, model, cap and whether it streams; None where it is no call."""
    found = find(Seen(scope, name, {key.replace("__", "."): value for key, value in attributes.items()}))
    if found is None:
        return None
    asked = found[1]
    return asked.operation, asked.provider, asked.request.model, asked.request.cap, asked.request.stream


def usage(scope: str, attributes: dict[str, Any]) -> Usage | None:
    seen = Seen(scope, "", attributes)
    found = find(seen)
    assert found is not None
    return found[0].answered(seen).usage


class TestOpenInference:
    @pytest.mark.parametrize("kind", ["AGENT", "CHAIN", "TOOL", "RETRIEVER", "RERANKER", "GUARDRAIL", "PROMPT", "?"])
    def test_only_calls_are_calls(self, kind: str) -> None:
        sums = {"openinference.span.kind": kind, "llm.model_name": "gpt-4o", "llm.token_count.prompt": 9}
        assert find(Seen(OI + "langchain", "x", sums)) is None
        assert not may_become(Seen(OI + "langchain", "x", sums))

    def test_a_span_of_its_own_helpers(self) -> None:
        told = {"openinference__span__kind": "LLM", "llm__model_name": "mistral-small", "llm__provider": "mistralai"}
        assert facts("my.program", **told) == ("chat", "mistral_ai", "mistral-small", None, False)

    def test_what_a_span_asks_for_before_it_says_what_it_is(self) -> None:
        parameters = '{"model": "mistral-small", "max_tokens": 30, "stream": true}'
        told = facts(OI + "mistralai", "MistralClient.chat", llm__invocation_parameters=parameters)
        assert told == ("chat", "mistral_ai", "mistral-small", 30, True)

    def test_a_span_that_starts_with_a_name(self) -> None:
        assert facts(OI + "bedrock", "bedrock.converse") == ("chat", "aws.bedrock", "", None, False)
        nested = '{"inferenceConfig": {"maxTokens": 50}}'
        told = {"llm__model_name": "amazon.nova-lite-v1:0", "llm__invocation_parameters": nested}
        assert facts(OI + "bedrock", "bedrock.converse", **told) == (
            "chat", "aws.bedrock", "amazon.nova-lite-v1:0", 50, False,
        )  # fmt: skip

    def test_embeddings(self) -> None:
        told = facts(
            OI + "openai",
            openinference__span__kind="EMBEDDING",
            llm__system="openai",
            embedding__invocation_parameters='{"model": "text-embedding-3-small"}',
        )
        assert told == ("embeddings", "openai", "text-embedding-3-small", 0, False)

    @pytest.mark.parametrize("parameters", ["__REDACTED__", "[]", "{", '{"model": 5, "max_tokens": "x"}', 7])
    def test_parameters_that_are_masked_or_odd(self, parameters: Any) -> None:
        told = facts(OI + "x", openinference__span__kind="LLM", llm__invocation_parameters=parameters)
        assert told == ("chat", "", "", None, False)

    def test_its_counts_are_inclusive(self) -> None:
        counts = {
            "openinference.span.kind": "LLM",
            "llm.token_count.prompt": 30,
            "llm.token_count.completion": 9,
            "llm.token_count.prompt_details.cache_read": 15,
            "llm.token_count.prompt_details.cache_write": 5,
            "llm.token_count.completion_details.reasoning": 4,
        }
        assert usage(OI + "bedrock", counts) == Usage(input=30, output=9, cache_read=15, cache_write=5, reasoning=4)

    def test_an_answer_that_was_not_counted(self) -> None:
        assert usage(OI + "openai", {"openinference.span.kind": "LLM", "llm.token_count.prompt": 9}) is None


class TestOpenLLMetry:
    def test_names_of_older_versions(self) -> None:
        old = {
            "gen_ai.system": "Anthropic",
            "llm.request.type": "chat",
            "gen_ai.request.model": "claude-haiku-4-5",
            "gen_ai.request.max_tokens": 99,
            "llm.is_streaming": True,
            "gen_ai.usage.prompt_tokens": 30,
            "gen_ai.usage.completion_tokens": 9,
            "llm.usage.total_tokens": 39,
            "gen_ai.usage.cache_read_input_tokens": 15,
            "gen_ai.usage.cache_creation_input_tokens": 5,
        }
        found = find(Seen("some.older.scope", "anthropic.chat", old))
        assert found is not None
        asked = found[1]
        assert (asked.operation, asked.provider, asked.request.model) == (
            "chat",
            "anthropic",
            "claude-haiku-4-5",
        )
        assert (asked.request.cap, asked.request.stream) == (99, True)
        assert usage("some.older.scope", old) == Usage(input=30, output=9, cache_read=15, cache_write=5)

    @pytest.mark.parametrize("kind", ["workflow", "task", "agent", "tool"])
    def test_only_calls_are_calls(self, kind: str) -> None:
        sums = {"traceloop.span.kind": kind, "llm.usage.total_tokens": 9, "gen_ai.usage.prompt_tokens": 5}
        assert find(Seen(LL + "langchain", "x", sums)) is None

    @pytest.mark.parametrize(("kind", "operation"), [("completion", "text_completion"), ("embedding", "embeddings")])
    def test_types_of_requests(self, kind: str, operation: str) -> None:
        told = facts("x", llm__request__type=kind, gen_ai__request__model="m")
        assert told is not None
        assert told[0] == operation

    def test_a_rerank_is_no_call(self) -> None:
        assert facts("x", llm__request__type="rerank", gen_ai__request__model="m") is None

    def test_bedrock_leaves_out_the_vendor_and_what_was_cached(self) -> None:
        told = {
            "gen_ai.provider.name": "aws.bedrock",
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": "nova-lite-v1:0",
            "gen_ai.usage.input_tokens": 100,
            "gen_ai.usage.output_tokens": 9,
            "gen_ai.usage.cache_read.input_tokens": 15,
        }
        found = find(Seen(LL + "bedrock", "chat nova-lite-v1:0", told))
        assert found is not None
        assert found[1].request.model == "amazon.nova-lite-v1:0"
        assert usage(LL + "bedrock", told) == Usage(input=115, output=9, cache_read=15)


@pytest.mark.parametrize(
    ("scope", "sdk"),
    [
        (OI + "openai", "openai"),
        (OI + "anthropic", "anthropic"),
        (LL + "openai.v1", "openai"),
        (LL + "anthropic", "anthropic"),
        (OI + "openai_agents", None),
        (LL + "openai_agents", None),
        (OI + "bedrock", None),
    ],
)
def test_whose_calls_an_instrumentation_traces(scope: str, sdk: str | None) -> None:
    assert sdk_of(scope) == sdk
