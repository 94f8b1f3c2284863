"""Raw answers: a body that the program reads later, in whichever way of the HTTP response, passes what reads it too.

Every way (`read`, `iter_bytes`, `iter_lines`, `stream_to_file`, ...) ends at `response.stream`, the iterable of the
connection's bytes, and so it is what ours takes the place of. Nothing of it is there where the SDK makes the chunks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

Reading = Callable[[Any], Any]


class _Read:
    """An iterable of bytes over the connection's own; put over its class, for httpx asks for that."""

    def __init__(self, inner: Any, reading: Reading) -> None:
        self.inner = inner
        self._reading = reading

    def __getattr__(self, name: str) -> Any:
        if name == "inner":  # a copy that is being made
            raise AttributeError(name)
        return getattr(self.inner, name)  # `elapsed`


class _SyncRead(_Read):
    def __iter__(self) -> Any:
        return self._reading(iter(self.inner))

    def close(self) -> None:
        self.inner.close()


class _AsyncRead(_Read):
    def __aiter__(self) -> Any:
        return self._reading(self.inner.__aiter__())

    async def aclose(self) -> None:
        await self.inner.aclose()


@cache
def _over(base: type, *, is_async: bool) -> type:
    return type(base.__name__, (_AsyncRead if is_async else _SyncRead, base), {})


def read_beside(response: Any, reading: Reading, *, is_async: bool) -> bool:
    """Let the bytes of a response that is not read yet pass `reading`.

    Args:
        reading: makes an iterator over the connection's own.

    Returns:
        whether they will.
    """
    wanted = "AsyncByteStream" if is_async else "SyncByteStream"
    base = next((kind for kind in type(response.stream).__mro__ if kind.__name__ == wanted), None)
    if base is None:
        return False
    response.stream = _over(base, is_async=is_async)(response.stream, reading)
    return True


def take_off(response: Any) -> None:
    """Let the bytes of a response pass nothing of ours any more: the SDK reads them."""
    stream = response.stream
    if isinstance(stream, _Read):
        response.stream = stream.inner
