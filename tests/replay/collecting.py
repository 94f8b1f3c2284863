"""Garbage is collected when a test says so, in the thread that says so.

A test's server has a thread of its own in the same process, and Python collects in whichever thread allocates. Where
that is the server's, and the garbage has an asynchronous stream of the SDK's that was dropped, asyncio begins to close
it in the loop's thread while the server's is still clearing it up: "async generator already executing". So it is with
the plain SDK and one thread more than the loop's; it is no difference that instrumentation makes, and none to be seen.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def collected_by_hand() -> Iterator[Callable[[], object]]:
    """Collect no garbage in the block but what is young, by what is returned, and all of it at its end.

    What was there before is kept out of it: both SDKs' modules and what other tests have left take a second each time.
    """
    was_on = gc.isenabled()
    gc.disable()
    gc.freeze()
    try:
        yield lambda: gc.collect(1)
    finally:
        gc.collect()
        gc.unfreeze()
        if was_on:
            gc.enable()
