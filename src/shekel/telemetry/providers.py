"""Tracer providers: when the program sets the global one, also after Shekel was started.

OpenTelemetry has no event for it. Tracers that were made before resolve to the new provider at their next span, so a
processor that is added at that moment misses none.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from opentelemetry import trace

_SETTER = "_set_tracer_provider"
_told: list[Callable[[], None]] = []


def tell_of_new(tell: Callable[[], None]) -> None:
    """Have `tell` called now, if a provider is set already, and whenever one is set; each listener once."""
    if tell in _told:
        tell()
        return
    _told.append(tell)
    former: Any = getattr(trace, _SETTER, None)
    if callable(former) and len(_told) == 1:

        @functools.wraps(former)
        def set_provider(*args: Any, **kwargs: Any) -> Any:
            result = former(*args, **kwargs)
            for each in _told:
                each()
            return result

        setattr(trace, _SETTER, set_provider)
    tell()
