"""A provider on loopback that says, byte for byte, what a real one once said.

A real HTTP/1.1 server in a thread of its own: one answer per request, chosen by the request's `x-replay` header, and
delivered as told: whole, in pieces of a few bytes, or cut off after some bytes. It keeps what it was sent, so that
two runs can be compared on the wire too. It must never know what is being tested: no SDK, no Shekel.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

# What differs from run to run on the wire: tracing may add its headers, the rest is HTTP's own business.
VOLATILE_HEADERS = frozenset({"traceparent", "tracestate", "content-length"})
# Between the first and the last stretch of a long body the pieces are longer, or a run would take minutes.
FINE_STRETCH = 800


class Ending(Enum):
    """How a body that is cut off ends."""

    EOF = "eof"  # the HTTP body is complete, as far as HTTP can tell
    CLOSE = "close"  # the connection is closed in the middle of the HTTP body
    RESET = "reset"  # the connection is reset


class Usage(Enum):
    """What a chat stream says of usage where the record says nothing."""

    AS_RECORDED = "as recorded"
    IF_ASKED = "if asked"  # as the provider's streams do: null in each chunk, then a chunk of its own
    NULLS = "nulls"  # the nulls whether asked or not, the chunk if asked


@dataclass(frozen=True, slots=True)
class Delivery:
    """How a body is handed over: in pieces or not, and cut off after which share of it, if at all.

    A few bytes are always missing: at 1.0, the event that ends a stream, or the last brace of a JSON body.
    """

    pieces: bool = False
    cut: float | None = None
    ending: Ending = Ending.EOF
    usage: Usage = Usage.AS_RECORDED


WHOLE = Delivery()
PIECES = Delivery(pieces=True)
GIVES_USAGE = Delivery(usage=Usage.IF_ASKED)
GIVES_NULLS = Delivery(usage=Usage.NULLS)


@dataclass(frozen=True, slots=True)
class Said:
    """An answer: status, content type, body."""

    status: int
    content_type: str
    body: bytes


@dataclass(slots=True)
class Received:
    """A request as it arrived."""

    path: str
    headers: dict[str, str]
    body: Any = field(repr=False)


class ReplayServer:
    """Serves what `says` holds under the name in `x-replay`. Use as a context manager; `port` is where it listens."""

    def __init__(self) -> None:
        self.says: dict[str, Said] = {}
        self.delivery = WHOLE
        self.received: list[Received] = []
        self.port = 0
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="replay-server", daemon=True)

    def __enter__(self) -> ReplayServer:
        self._thread.start()
        if not self._ready.wait(10):
            raise RuntimeError("the replay server did not start")
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._loop is not None
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client left, as clients do
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        request = await _read_request(reader)
        self.received.append(request)
        said, delivery = self.says[request.headers["x-replay"]], self.delivery
        asked = bool((request.body.get("stream_options") or {}).get("include_usage"))
        if delivery.usage is Usage.NULLS or (delivery.usage is Usage.IF_ASKED and asked):
            said = with_usage(said, chunk=asked)
        body = said.body if delivery.cut is None else said.body[: max(0, int(len(said.body) * delivery.cut) - 12)]
        chunked = delivery.pieces or delivery.cut is not None or said.content_type.startswith("text/event-stream")
        head = [
            f"HTTP/1.1 {said.status} Replayed",
            f"content-type: {said.content_type}",
            "x-request-id: req_replay",
            "request-id: req_replay",
            "transfer-encoding: chunked" if chunked else f"content-length: {len(body)}",
        ]
        cut_off = delivery.cut is not None and delivery.ending is not Ending.EOF
        parts = ["\r\n".join([*head, "", ""]).encode()]
        if chunked:
            pieces = _pieces(body) if delivery.pieces else filter(None, [body])
            parts += [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces]
            parts += [] if cut_off else [b"0\r\n\r\n"]
        else:
            parts.append(body)
        # In one write: how much of a body a client has in its hands when it closes is part of what it sees.
        writer.write(b"".join(parts))
        await writer.drain()
        if cut_off and delivery.ending is Ending.RESET:
            # What is still under way would be lost with the reset, more or less of it from run to run.
            await asyncio.sleep(0.02)
            reset(writer)
        return not cut_off


def reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection with a TCP reset in place of an orderly end."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


INVENTED_USAGE = {"prompt_tokens": 1234, "completion_tokens": 567, "total_tokens": 1801}


def with_usage(said: Said, *, chunk: bool) -> Said:
    """A recorded chat stream as it would have come, had its request asked for usage; the last chunk only with `chunk`.

    Source: OpenAI's API reference, `stream_options.include_usage`: an additional chunk before `data: [DONE]` whose
    `choices` is empty, and a `usage` field with a null value in all other chunks. A record that has it stays as it is.
    """
    if b'"usage":' in said.body.replace(b": ", b":") or not said.content_type.startswith("text/event-stream"):
        return said
    lines: list[str] = []
    last: dict[str, Any] = {}
    for line in said.body.decode().splitlines():
        if line == "data: [DONE]" and chunk:
            last = {key: value for key, value in last.items() if key not in ("choices", "obfuscation")}
            lines += [f"data: {json.dumps({**last, 'choices': [], 'usage': INVENTED_USAGE})}", ""]
        elif line.startswith("data: {"):
            last = json.loads(line.removeprefix("data: "))
            line = f"data: {json.dumps({**last, 'usage': None})}"
        lines.append(line)
    return Said(said.status, said.content_type, ("\n".join(lines) + "\n").encode())


async def _read_request(reader: asyncio.StreamReader) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    kept = {name: value for name, value in headers.items() if name not in VOLATILE_HEADERS}
    return Received(head[0].split(" ")[1], kept, json.loads(body))


def _pieces(body: bytes) -> Iterator[bytes]:
    """The body in pieces of 1 to 7 bytes, the same ones every time."""
    sizes, at = random.Random(len(body)), 0
    while at < len(body):
        fine = at < FINE_STRETCH or at > len(body) - FINE_STRETCH
        size = sizes.randint(1, 7) if fine else sizes.randint(8, 700)
        yield body[at : at + size]
        at += size
