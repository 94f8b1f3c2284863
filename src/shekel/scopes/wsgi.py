"""WSGI middleware: every request in the scope that a resolver says, to the end of its answer.

A server reads an answer after the application has returned it, perhaps in another thread. So each request has a context
of its own, in which the application runs and every step of its answer; nothing of it is seen in between.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .outside import outside
from .resolving import TIMEOUT, Entries, Headers, Incoming, Resolver, Resolving, show

Environ = dict[str, Any]
App = Callable[[Environ, Any], Iterable[bytes]]


class WsgiScopeMiddleware:
    """Runs each request of a WSGI application in a scope.

        app.wsgi_app = shekel.WsgiScopeMiddleware(app.wsgi_app, resolver=lambda request: {"user_id": …})

    Put it inside OpenTelemetry's middleware, which reads the baggage: wrap with ours first.

    Args:
        app: the application.
        resolver: a function of the `Incoming` request that returns the arguments of `scope`, or None where nobody is
            known.
        otherwise: the entries of requests whose resolver raises or returns what is no scope; see `ScopeMiddleware`.
        timeout: seconds after which a resolver is counted as slow (5). It cannot be interrupted.
        propagate: as for `scope`.

    Raises:
        ValueError: a setting that makes no sense.
    """

    def __init__(
        self,
        app: App,
        resolver: Resolver | None = None,
        *,
        otherwise: Entries | None = None,
        timeout: float | None = TIMEOUT,
        propagate: bool = True,
    ) -> None:
        self.app = app
        self._resolving = Resolving(resolver, otherwise, timeout, propagate)

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        """Serve one request."""
        request = Incoming(
            Headers(_named(environ)), environ.get("REQUEST_METHOD", ""), environ.get("PATH_INFO", ""), environ
        )
        outside.header(request.headers.get("baggage"))
        own = contextvars.copy_context()
        body = own.run(self._serve, request, start_response)
        wrapper = environ.get("wsgi.file_wrapper")
        if isinstance(body, (list, tuple)) or (isinstance(wrapper, type) and isinstance(body, wrapper)):
            return body  # nothing of the application runs any more, and servers send these faster
        return _Body(own, body)

    def _serve(self, request: Incoming, start_response: Any) -> Iterable[bytes]:
        self._resolving.scope_of(request).__enter__()  # never left: the context is this request's own
        show()
        return self.app(request.raw, start_response)  # type: ignore[arg-type]


class _Body:
    """An answer whose steps all run in one context."""

    def __init__(self, own: contextvars.Context, body: Iterable[bytes]) -> None:
        self._own = own
        self._body = body
        self._steps: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._steps is None:
            self._steps = self._own.run(iter, self._body)
        return self._own.run(next, self._steps)

    def close(self) -> None:
        close = getattr(self._body, "close", None)
        if close is not None:
            self._own.run(close)


def _named(environ: Environ) -> Iterator[tuple[str, str]]:
    for name, value in environ.items():
        if name.startswith("HTTP_"):
            yield name[5:].replace("_", "-"), value
        elif name in ("CONTENT_TYPE", "CONTENT_LENGTH") and value:
            yield name.replace("_", "-"), value
