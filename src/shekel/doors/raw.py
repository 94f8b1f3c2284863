"""Raw answers: a body that the program reads later, by `read` or `aread` of the response, is counted when it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import ref

from .closing import AsyncCloseHook, CloseHook


def when_read(response: Any, hook: CloseHook, read: Callable[[Any], None]) -> None:
    """Shadow what reads the body of one HTTP response.

    Args:
        response: not read yet.
        hook: sees the response close, and is told that a close at the end of reading is not the program's.
        read: given the response once its body is read.
    """
    me: Any = ref(response)  # not the response itself: that would be a cycle, and it would be closed late
    if isinstance(hook, AsyncCloseHook):

        async def aread() -> bytes:
            response = me()
            hook.quiet = True
            try:
                content: bytes = await type(response).aread(response)
            finally:
                hook.quiet = False
            read(response)
            return content

        response.aread = aread
    else:

        def read_whole() -> bytes:
            response = me()
            hook.quiet = True
            try:
                content: bytes = type(response).read(response)
            finally:
                hook.quiet = False
            read(response)
            return content

        response.read = read_whole
