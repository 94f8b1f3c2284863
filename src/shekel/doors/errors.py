"""How an attempt failed, read from the exception: by names and numbers, so that no SDK need be imported.

The rows are those of the table of settlement: what was not sent, or was refused, costs nothing; a timeout or a reset
leaves the provider working.
"""

from __future__ import annotations

import sys

from ..settlement import Billing, Failure, Outcome

_NEVER_SENT = frozenset(
    {
        "ConnectError",
        "ConnectTimeout",
        "PoolTimeout",
        "ProxyError",
        "UnsupportedProtocol",
        "InvalidURL",
        "LocalProtocolError",
        "CookieConflict",
        "ConnectionRefusedError",
        "gaierror",
    }
)
"""Names of transport errors (httpx, httpx2 and below) that are raised before a request is on its way."""


def of_status(status: int, kind: str) -> Failure:
    """The failure that an HTTP status stands for."""
    return Failure(kind, Billing.of_status(status), status)


def of(error: BaseException, *, sent: bool) -> tuple[Outcome, Failure]:
    """How a call ended that raised `error`.

    Args:
        error: what the SDK raised.
        sent: whether an attempt had been built; before that, nothing can have cost anything.
    """
    kind = type(error).__qualname__
    if not isinstance(error, Exception):
        return Outcome.CANCELLED, Failure(kind, Billing.PROBABLY if sent else Billing.NOTHING)
    if not sent:
        return Outcome.FAILED, Failure(kind, Billing.NOTHING)
    status = getattr(error, "status_code", None)
    if isinstance(status, int):
        return Outcome.FAILED, of_status(status, kind)
    return Outcome.FAILED, Failure(kind, Billing.NOTHING if never_sent(error) else Billing.PROBABLY)


def being_handled() -> tuple[Outcome, Failure] | None:
    """How a call fails whose error is being handled where this is called, if one is."""
    error = sys.exception()
    return None if error is None or isinstance(error, GeneratorExit) else of(error, sent=True)


def never_sent(error: BaseException) -> bool:
    """Whether the error, or what caused it, says that no request was on its way."""
    seen = 0
    link: BaseException | None = error
    while link is not None and seen < 8:
        if any(base.__name__ in _NEVER_SENT for base in type(link).__mro__):
            return True
        link = link.__cause__ or link.__context__
        seen += 1
    return False
