"""The recorded exchanges: read from the directory that SHEKEL_REPLAY names, never copied into the project.

A record holds a request that was really made and the answer that really came. Where the directory is absent the
tests that need it are skipped, and say so.
"""

from __future__ import annotations

import functools
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .server import Said

APIS = ("chat.completions", "responses", "messages")


@dataclass(frozen=True, slots=True)
class Record:
    """One exchange.

    Attributes:
        id: names the record in every failure.
        api: "chat.completions", "responses" or "messages".
        stream: whether a stream was asked for.
        beta: whether the request went to the beta resource (Anthropic).
        request: the request's body.
        said: the answer.
        usage: the usage that the record's own reading rules expect, raw; None where the provider said none.
        model: the model of the answer, or else of the request.
        features, oddities: what is special about it.
    """

    id: str
    api: str
    stream: bool
    beta: bool
    request: dict[str, Any]
    said: Said
    usage: dict[str, Any] | None
    model: str | None
    features: frozenset[str]
    oddities: frozenset[str]


@functools.cache
def _load(directory: str) -> dict[str, tuple[Record, ...]]:
    records: dict[str, list[Record]] = {api: [] for api in APIS}
    for file in sorted(Path(directory).glob("*.json")):
        raw = json.loads(file.read_text())
        if not isinstance(raw, dict) or raw.get("api") not in records or raw["method"] != "POST":
            continue
        records[raw["api"]].append(
            Record(
                id=raw["id"],
                api=raw["api"],
                stream=raw["stream"],
                beta="beta=true" in raw["path"] or "beta_path" in raw["features"],
                request=raw["request"],
                said=Said(raw["status"], raw["response_content_type"], raw["response_body"].encode()),
                usage=raw["usage"],
                model=raw["model"] or raw["request"].get("model"),
                features=frozenset(raw["features"]),
                oddities=frozenset(raw["oddities"]),
            )
        )
    return {api: tuple(found) for api, found in records.items()}


def records(api: str) -> tuple[Record, ...]:
    """All recorded exchanges of one API. Skips the calling test where there are none to read."""
    directory = os.environ.get("SHEKEL_REPLAY")
    if not directory:
        pytest.skip("recorded traffic is not part of the project: set SHEKEL_REPLAY to its directory")
    found = _load(directory)[api]
    if not found:
        pytest.fail(f"SHEKEL_REPLAY names {directory!r}, which holds no exchange of {api}")
    return found


def sample(all_records: tuple[Record, ...]) -> tuple[Record, ...]:
    """Every tenth record, and all with oddities: for what is too slow to do with each."""
    return tuple(record for at, record in enumerate(all_records) if at % 10 == 0 or record.oddities)
