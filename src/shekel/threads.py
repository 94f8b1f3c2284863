"""Threads of ours: they begin in an empty context.

Some live as long as the process does. Where an instrumentation of threads hands on the context, they would keep the
block in force that happened to be around when they were needed first, and make the program's callbacks run inside it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import Context
from typing import Any


def start(name: str, target: Callable[..., object], *args: Any) -> threading.Thread:
    """Start a daemon thread.

    Raises:
        RuntimeError: Python ends, or there are too many.
    """
    thread = threading.Thread(target=target, args=args, name=name, daemon=True)
    Context().run(thread.start)
    return thread
