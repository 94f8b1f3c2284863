"""boto3 against the stand-in for Bedrock: its client, the calls that the tests make, and what they cost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from botocore.config import Config
from opentelemetry.sdk.trace import TracerProvider

from .stand_in import StandIn

NOVA, CLAUDE = "us.amazon.nova-lite-v1:0", "us.anthropic.claude-sonnet-4-20250514-v1:0"
NOVA_COST = 1000 * 0.06e-6 + 100 * 0.24e-6
CLAUDE_COST = 1000 * 3e-6 + 100 * 15e-6
"""Of 1,000 tokens in and 100 out, by the price list, in USD."""
SAID = [{"role": "user", "content": [{"text": "Hello"}]}]


@contextmanager
def client(server: StandIn, instrumentor: Any, watched: TracerProvider) -> Iterator[Any]:
    """A client of the stand-in while an instrumentation traces boto3."""
    instrumentor.instrument(tracer_provider=watched)
    client = boto3.client(
        "bedrock-runtime",
        region_name="us-east-1",
        endpoint_url=server.url,
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(retries={"total_max_attempts": 1}),
    )
    yield client
    client.close()
    instrumentor.uninstrument()


def converse(bedrock: Any) -> None:
    bedrock.converse(modelId=NOVA, messages=SAID, inferenceConfig={"maxTokens": 200})


def converse_stream(bedrock: Any) -> None:
    list(bedrock.converse_stream(modelId=NOVA, messages=SAID, inferenceConfig={"maxTokens": 200})["stream"])


def body() -> str:
    content = [{"role": "user", "content": "Hello"}]
    return json.dumps({"anthropic_version": "bedrock-2023-05-31", "max_tokens": 200, "messages": content})


def invoke(bedrock: Any) -> None:
    json.loads(bedrock.invoke_model(modelId=CLAUDE, body=body())["body"].read())


def invoke_stream(bedrock: Any) -> None:
    list(bedrock.invoke_model_with_response_stream(modelId=CLAUDE, body=body())["body"])
