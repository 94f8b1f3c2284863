"""A watchdog for tests that would hang: it fails them, and shows where each thread stands."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable

import pytest

SECONDS = 60.0
"""More than any of these tests takes on the slowest machine; a deadlock takes for ever."""


def finishes(work: Callable[[], object], seconds: float = SECONDS) -> None:
    """Run `work` in a thread of its own; fail if it does not come back, and raise what it raises."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        frames = sys._current_frames()
        stacks = "\n".join(
            f"--- {each.name}\n" + "".join(traceback.format_stack(frames[each.ident]))
            for each in threading.enumerate()
            if each.ident in frames
        )
        pytest.fail(f"not done after {seconds} s: a deadlock.\n{stacks}")
    if raised:
        raise raised[0]
