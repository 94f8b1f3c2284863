"""Shekel's own faults: said once, counted always, never raised into the program.

A program that calls a model must not break because its meter did. Every place where our code runs inside a call is
guarded, and what it catches ends here.
"""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from collections import Counter

logger = logging.getLogger("shekel")

counted: Counter[str] = Counter()
"""How often each place failed, by its name; `shekel.errors` reads it."""

_said: set[str] = set()
_NOT_THE_PROGRAMS = ("shekel", "openai", "anthropic")
"""The packages between a line of the program and what happens in a call."""

lock = threading.RLock()


def report(place: str, error: BaseException) -> None:
    """Count a fault of ours; log it the first time it happens at that place.

    The log line holds the error's type and the place, never its text: an error's text may quote content.
    """
    with lock:
        counted[place] += 1
        if place in _said:
            return
        _said.add(place)
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    at = f" ({last.tb_frame.f_code.co_filename}:{last.tb_lineno})" if last is not None else ""
    logger.warning(
        "Shekel failed while it %s: %s%s. The call goes on, and may be charged by estimate; this is said once.",
        place,
        type(error).__name__,
        at,
    )


def tell(place: str, message: str, *args: object) -> None:
    """Count a fault at a place, and log this sentence of it: for what the program's owner has to put right."""
    with lock:
        counted[place] += 1
    logger.warning(message, *args)


def warn_once(key: str, message: str, *args: object) -> None:
    """Log a warning the first time `key` is seen."""
    with lock:
        if key in _said:
            return
        _said.add(key)
    logger.warning(message, *args)


def warn_program(message: str) -> None:
    """Warn at the line of the program that is being run: past our own code and the SDK's.

    Where there is none, as in a thread of ours, the warning names this line.

    Raises:
        Warning: a filter of the program makes it an error.
    """
    level = 1
    frame = sys._getframe().f_back
    while frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] in _NOT_THE_PROGRAMS:
        level += 1
        frame = frame.f_back
    warnings.warn(message, stacklevel=1 if frame is None else level + 1)
