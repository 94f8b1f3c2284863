"""One client's TCP connection: HTTP/1.1 by h11, and the promptest possible notice of its end.

It knows bytes and the moment when the client went away; what is asked and answered is the exchange's.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import h11

_Headers = Iterable[tuple[str, str]]


class Owner(Protocol):
    """Who serves a connection's requests. All calls come from the loop's thread."""

    def opened(self, connection: Connection) -> None: ...
    def requested(self, connection: Connection, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        """A whole request has come; the next one comes only after `Connection.end`."""

    def closed(self, connection: Connection) -> None: ...


class Connection(asyncio.Protocol):
    """A connection. One request at a time, kept alive."""

    def __init__(self, owner: Owner) -> None:
        import h11

        self._h11 = h11
        self._http = h11.Connection(h11.SERVER)
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._full = False
        self._request: h11.Request | None = None
        self._body = bytearray()
        self.closed_at: float | None = None
        self.attempt_id: str | None = None
        """The last attempt on this connection, whose bill is told when the connection closes."""

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._owner.opened(self)

    def data_received(self, data: bytes) -> None:
        self._http.receive_data(data)
        self._advance()

    def eof_received(self) -> bool:
        self._gone()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone()

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._wake()

    # What the exchange calls.

    async def wait(self, seconds: float | None) -> bool:
        """Sleep, but no longer than the client stays. May wake early; returns whether the client is gone."""
        if self.closed_at is None:
            self._waiter = self._loop.create_future()
            alarm = None if seconds is None else self._loop.call_later(seconds, self._wake)
            try:
                await self._waiter
            finally:
                self._waiter = None
                if alarm is not None:
                    alarm.cancel()
        return self.closed_at is not None

    async def wait_until(self, moment: float) -> bool:
        """Sleep until a moment of `time.monotonic()`, or until the client is gone; returns whether it is."""
        while (left := moment - time.monotonic()) > 0:
            if await self.wait(left):
                return True
        return self.closed_at is not None

    async def has_room(self) -> bool:
        """Wait while the client does not read; returns whether it is gone. Always lets others run."""
        await asyncio.sleep(0)
        while self._full and self.closed_at is None:
            await self.wait(None)
        return self.closed_at is not None

    def head(self, status: int, headers: _Headers) -> None:
        """Send the status line and headers."""
        self._send(self._h11.Response(status_code=status, headers=list(headers)))

    def write(self, data: bytes) -> None:
        """Send a piece of the body."""
        if data:
            self._send(self._h11.Data(data=data))

    def end(self) -> None:
        """End the body properly, and take the client's next request, or close if there can be none."""
        self._send(self._h11.EndOfMessage())
        if self.closed_at is not None:
            return
        if self._http.our_state is self._h11.DONE and self._http.their_state is self._h11.DONE:
            self._http.start_next_cycle()
            self._advance()
        elif self._transport is not None:
            self._transport.close()

    async def reset(self) -> None:
        """Reset the connection (TCP RST), after what was written has left."""
        assert self._transport is not None
        while self._transport.get_write_buffer_size() and not await self.wait(0.001):
            pass
        if self.closed_at is None:
            sock = self._transport.get_extra_info("socket")
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.abort()

    def abort(self) -> None:
        """Close at once, whatever is still to be sent."""
        if self._transport is not None:
            self._transport.abort()
        self._gone()

    # Inside.

    def _advance(self) -> None:
        try:
            while True:
                event = self._http.next_event()
                if event is self._h11.NEED_DATA or event is self._h11.PAUSED:
                    return
                if isinstance(event, self._h11.Request):
                    self._request = event
                    self._body.clear()
                elif isinstance(event, self._h11.Data):
                    self._body += event.data
                elif isinstance(event, self._h11.EndOfMessage):
                    self._deliver()
                else:
                    return
        except self._h11.RemoteProtocolError:
            self.abort()

    def _deliver(self) -> None:
        assert self._request is not None
        request = self._request
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers}
        method, path = request.method.decode("latin-1"), request.target.decode("latin-1")
        self._owner.requested(self, method, path, headers, bytes(self._body))

    def _send(self, event: h11.Event) -> None:
        if self.closed_at is None and self._transport is not None and (data := self._http.send(event)):
            self._transport.write(data)

    def _gone(self) -> None:
        if self.closed_at is None:
            self.closed_at = time.monotonic()
            self._wake()
            self._owner.closed(self)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
