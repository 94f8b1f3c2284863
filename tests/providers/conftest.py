"""Recorded exchanges for the tests of the endpoints: read where SHEKEL_REPLAY points, never copied."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Record = dict[str, Any]


@pytest.fixture(scope="session")
def records() -> Callable[[str], list[Record]]:
    """The recorded exchanges of one API, those that the provider refused included."""
    where = os.environ.get("SHEKEL_REPLAY")
    if not where:
        pytest.skip("SHEKEL_REPLAY does not point to recorded traffic")
    found = [json.loads(path.read_text()) for path in sorted(Path(where).glob("*.json"))]

    def of(api: str) -> list[Record]:
        chosen = [record for record in found if record["api"] == api]
        assert chosen, f"no {api} in {where}"
        return chosen

    return of
