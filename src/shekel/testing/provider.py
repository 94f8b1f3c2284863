"""FakeProvider: a real HTTP server on loopback that stands in for OpenAI and Anthropic, and keeps its own bill.

The real SDKs talk to it over real sockets. It runs in a daemon thread with an event loop of its own, so that it works
beside sync and async code alike. It must never import what it is used to test: no budgets, no prices of Shekel's.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from .answer import Answer, Asked, plan
from .bill import Bill, list_price
from .chat import Chat
from .connection import Connection
from .exchange import Exchange
from .messages import Messages
from .reply import Reply, RequestSeen
from .responses import Responses
from .wire import Problem, Wire

_ROUTES: dict[str, Wire] = {
    "/v1/chat/completions": Chat(),
    "/v1/responses": Responses(),
    "/v1/messages": Messages(),
}

Decide = Callable[[RequestSeen], Reply | None]


class FakeProvider:
    """A stand-in for both providers, on 127.0.0.1 and a free port.

    For each request the reply is: the next one queued with `reply()`, else what `decide` returns, else `default`.

        with FakeProvider(output_tokens=200, pace=0.002) as provider:
            client = openai.OpenAI(base_url=provider.openai_url, api_key="test")
            ...
            provider.wait_idle()
            assert provider.bill.usd <= Decimal("0.05")

    Args:
        default: the reply where nothing else is said; `Reply()` if None.
        decide: chooses a reply by the request; called in the server's thread; None means the default.
        keep_requests: how many requests `requests` remembers.
        **fields: fields of `Reply`, over those of `default`.

    Attributes:
        default, decide: as above; may be replaced at any time.
        bill: what a provider would charge, one `Attempt` per HTTP attempt that has ended.
    """

    def __init__(
        self,
        default: Reply | None = None,
        *,
        decide: Decide | None = None,
        keep_requests: int = 1000,
        **fields: Any,
    ) -> None:
        self.default = replace(default or Reply(), **fields)
        self.decide = decide
        self.bill = Bill()
        self._requests: deque[RequestSeen] = deque(maxlen=keep_requests)
        self._queue: deque[Reply] = deque()
        self._name = secrets.token_hex(4)
        self._serial = 0
        self._idle = threading.Condition()
        self._busy = 0
        self._open_streams = 0
        self._connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._fault: BaseException | None = None
        self._port: int | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: asyncio.Server | None = None
        self._thread: threading.Thread | None = None

    # Coming and going.

    def start(self) -> Self:
        """Start the server; returns when it accepts connections. Starting twice changes nothing."""
        if self._thread is None:
            list_price("openai", "gpt-4o-mini", input=1, output=1)  # loads the price list now, not in a first request
            ready: threading.Event = threading.Event()
            self._thread = threading.Thread(
                target=self._run, args=(ready,), name="shekel-testing-provider", daemon=True
            )
            self._thread.start()
            ready.wait()
            _accept_usage(self.host, True)
        return self

    def close(self) -> None:
        """Stop: reset open connections, put unfinished attempts on the bill, free the port. Closing twice is fine.

        Raises:
            RuntimeError: if the stand-in itself failed on the way (a fault of its own, never the client's).
        """
        if self._thread is not None and self._loop is not None:
            _accept_usage(self.host, False)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._thread = self._loop = None
            self._raise_fault()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # Where it is.

    @property
    def host(self) -> str:
        """Where it listens: "127.0.0.1:PORT"."""
        if self._port is None:
            raise RuntimeError("the FakeProvider has not been started: use it in a `with` block, or call start()")
        return f"127.0.0.1:{self._port}"

    @property
    def openai_url(self) -> str:
        """`base_url` for OpenAI clients."""
        return f"http://{self.host}/v1"

    @property
    def anthropic_url(self) -> str:
        """`base_url` for Anthropic clients."""
        return f"http://{self.host}"

    # What it does, and what it saw.

    def reply(self, *replies: Reply) -> None:
        """Queue replies for the next HTTP attempts (retries take one each), first in, first out."""
        self._queue.extend(replies)

    @property
    def requests(self) -> list[RequestSeen]:
        """The last requests received, oldest first; `keep_requests` says how many."""
        return list(self._requests)

    @property
    def open_streams(self) -> int:
        """Streams that have not ended and whose client is still connected."""
        return self._open_streams

    @property
    def open_connections(self) -> int:
        """TCP connections that are not closed, idle ones of a client's pool included."""
        return len(self._connections)

    def wait_idle(self, timeout: float = 10.0) -> None:
        """Wait until no request is in progress, so that the bill is final. Blocks: in a coroutine use a thread.

        Args:
            timeout: seconds.

        Raises:
            TimeoutError: if a request is still in progress then.
            RuntimeError: if the stand-in itself failed.
        """
        deadline = time.monotonic() + timeout
        if self._loop is not None:
            # What clients have already done (sent, closed) is in the kernel: let the server see it first.
            asyncio.run_coroutine_threadsafe(_several_turns(), self._loop).result(timeout)
        with self._idle:
            while self._busy:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"{self._busy} requests were still in progress after {timeout} s")
                self._idle.wait(left)
        self._raise_fault()

    # The server's thread.

    def _run(self, ready: threading.Event) -> None:
        loop = asyncio.new_event_loop()
        try:
            self._server = loop.run_until_complete(
                loop.create_server(lambda: Connection(self), "127.0.0.1", 0, backlog=1024)
            )
            self._port = self._server.sockets[0].getsockname()[1]
            self._loop = loop
            ready.set()
            loop.run_forever()
            loop.run_until_complete(self._shut())
        finally:
            ready.set()
            loop.close()

    async def _shut(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in list(self._connections):
            connection.abort()
        await _several_turns()  # transports close their sockets in the next turns of the loop
        self._port = None

    def opened(self, connection: Connection) -> None:
        """A client has connected. For `Connection` only."""
        self._connections.add(connection)

    def closed(self, connection: Connection) -> None:
        """A connection is gone. For `Connection` only."""
        self._connections.discard(connection)
        if connection.attempt_id is not None and connection.closed_at is not None:
            self.bill._mark_closed(connection.attempt_id, connection.closed_at)

    def requested(self, connection: Connection, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        """A request is complete. For `Connection` only."""
        with self._idle:
            self._busy += 1
        task = asyncio.get_running_loop().create_task(self._serve(connection, method, path, headers, body))
        self._tasks.add(task)
        task.add_done_callback(self._served)

    def _served(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (fault := task.exception()) is not None:
            self._fault = self._fault or fault
        with self._idle:
            self._busy -= 1
            self._idle.notify_all()

    async def _serve(
        self, connection: Connection, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> None:
        try:
            await self._answer(connection, method, path, headers, body)
        except Exception:
            connection.abort()
            raise

    def _answer(
        self, connection: Connection, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> Coroutine[Any, Any, None]:
        started = time.monotonic()
        route = path.partition("?")[0]
        known = _ROUTES.get(route)
        # An unknown path is refused in the words of whichever provider the client was written for.
        wire = known or _ROUTES["/v1/messages" if "anthropic-version" in headers else "/v1/chat/completions"]
        parsed = _parse(body)
        seen = RequestSeen(wire.endpoint if known else route, path, headers, parsed, started)
        self._requests.append(seen)
        self._serial += 1
        serial = f"{self._name}{self._serial:08x}"
        problem = (
            Problem(f"Invalid URL ({method} {route})", status=404)
            if known is None or method != "POST"
            else wire.check(parsed)
        )
        reply = self.default
        if problem is None:
            try:
                reply = self._choose(seen)
            except Exception as error:
                problem = Problem(f"FakeProvider.decide raised {error!r}")
        try:
            answer = self._plan(serial, wire, parsed, reply, problem)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            problem = Problem(f"The request is malformed: {error!r}")
            answer = self._plan(serial, wire, parsed, reply, problem)
        connection.attempt_id = f"req_{serial}"
        exchange = Exchange(
            connection, wire, answer, connection.attempt_id, self.bill, started, self._counted(answer.asked.stream)
        )
        if problem is not None:
            return _refuse(exchange, problem)
        return exchange.run()

    def _plan(self, serial: str, wire: Wire, body: Any, reply: Reply, problem: Problem | None) -> Answer:
        if problem is None:
            return plan(serial, int(time.time()), body, wire.asked(body), reply, wire.prompt(body))
        model = body.get("model") if isinstance(body, dict) else None
        nothing = Asked(str(model or ""), False, 1, 0, {}, None, None, None)
        return plan(serial, int(time.time()), {}, nothing, Reply(output_tokens=0), 0)

    def _choose(self, seen: RequestSeen) -> Reply:
        if self._queue:
            return self._queue.popleft()
        return (self.decide(seen) if self.decide is not None else None) or self.default

    def _counted(self, stream: bool) -> Callable[[], None]:
        """Count a stream as open; what is returned counts it out, once."""
        if stream:
            self._open_streams += 1
        open_ = stream

        def ended() -> None:
            nonlocal open_
            if open_:
                open_ = False
                self._open_streams -= 1

        return ended

    def _raise_fault(self) -> None:
        if self._fault is not None:
            fault, self._fault = self._fault, None
            raise RuntimeError("the FakeProvider itself failed; this is a fault of the stand-in") from fault


def _accept_usage(host: str, accepts: bool) -> None:
    """Let Shekel, in this process, ask chat streams of this host for their usage; it asks only hosts it knows."""
    from ..runtime import the_runtime

    runtime = the_runtime()
    runtime.usage_hosts = runtime.usage_hosts | {host} if accepts else runtime.usage_hosts - {host}


async def _refuse(exchange: Exchange, problem: Problem) -> None:
    exchange.refuse(problem)


async def _several_turns() -> None:
    # Accepting a connection, reading its request and starting its task take one turn of the loop each.
    for _ in range(6):
        await asyncio.sleep(0)


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None
