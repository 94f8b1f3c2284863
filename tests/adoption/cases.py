"""Who traces, in which order, and every way of calling in each case."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

import pytest

from . import calls
from .instrumentations import TOGETHER
from .stage import Stage


def cases() -> list[Any]:
    """Every instrumentation alone and all of an SDK together, with ours put on first, last and in between."""
    return [
        pytest.param(sdk, names, ours, id=f"{names[0] if len(names) == 1 else f'all-{sdk}'}-ours-{ours}")
        for sdk, together in TOGETHER.items()
        for names in [*((name,) for name in together), together]
        for ours in (("first", "last") if len(names) == 1 else ("first", "between", "last"))
    ]


def each_way(on: Stage, is_async: bool, check: Callable[[str, Callable[[], calls.Seen]], None]) -> None:
    """Have `check` make a call in every way that a program can."""
    if not is_async:
        for way, ask in calls.SYNC[on.sdk].items():
            check(way, lambda ask=ask: ask(on.clients[0]))  # type: ignore[misc]
        return
    with asyncio.Runner() as runner:
        for way, ask_async in calls.ASYNC[on.sdk].items():
            check(way, lambda ask=ask_async: runner.run(ask(on.clients[1]), context=copy_context()))  # type: ignore[misc]
        runner.run(on.clients[1].close())  # in the loop that its connections belong to
