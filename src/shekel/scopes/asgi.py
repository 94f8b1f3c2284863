"""ASGI middleware: every request in the scope that a resolver says, to the end of its answer.

Streamed answers stay in it: what an application starts for a request, tasks and threads of a pool, inherits the context
it was called in.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any

from .outside import outside
from .resolving import TIMEOUT, AsyncResolver, Entries, Headers, Incoming, Resolving, show

Connection = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Connection, Receive, Send], Awaitable[None]]


class ScopeMiddleware:
    """Runs each request of an ASGI application in a scope.

        app.add_middleware(shekel.ScopeMiddleware, resolver=lambda request: {"user_id": user_of(request.headers)})

    Put it inside OpenTelemetry's middleware, which reads the baggage; `FastAPIInstrumentor` and the like are outside by
    themselves. Without a resolver it takes over what came from outside and is trusted, at once, and so signs it anew.

    Args:
        app: the application.
        resolver: a function, async or not, of the `Incoming` request that returns the arguments of `scope`, or None
            where nobody is known. One that is not async runs in the event loop: it must not block.
        otherwise: the entries of requests whose resolver raises, is late, or returns what is no scope. Name somebody
            with a small budget of his own; by default there are none, and such a call is charged to no policy.
        timeout: seconds after which an async resolver is given up (5); None waits.
        propagate: as for `scope`.

    Raises:
        ValueError: a setting that makes no sense.
    """

    def __init__(
        self,
        app: App,
        resolver: AsyncResolver | None = None,
        *,
        otherwise: Entries | None = None,
        timeout: float | None = TIMEOUT,
        propagate: bool = True,
    ) -> None:
        self.app = app
        self._resolving = Resolving(resolver, otherwise, timeout, propagate)

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        request = Incoming(Headers(_decoded(scope)), scope.get("method", ""), scope.get("path", ""), scope)
        outside.header(request.headers.get("baggage"))
        with await self._resolving.scope_of_async(request):
            show()
            await self.app(scope, receive, send)


def _decoded(scope: Connection) -> Iterator[tuple[str, str]]:
    return ((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope.get("headers", ()))
