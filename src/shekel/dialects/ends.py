"""Ends: how the call behind a span failed, read from what the span says when it ends.

A span gives names and numbers where a door has the exception itself: `error.type`, the type of a recorded exception,
an HTTP status. Never the text of an error.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from ..settlement import Billing, Failure
from ..telemetry import names
from .base import Seen, count, text


class Ending(Protocol):
    """What is read of a span, besides its attributes."""

    @property
    def status(self) -> Any: ...
    @property
    def events(self) -> Any: ...


_NOTHING = frozenset(
    {
        # Refused by a budget of ours, or of whoever else raises these names: never sent.
        "BudgetExceededError", "BudgetPausedError", "UnboundedCallError", "UnpricedModelError", "FallbackError",
        # Before anything was sent (botocore, httpx, aiohttp, grpc, the standard library).
        "ConnectError", "ConnectTimeout", "ConnectTimeoutError", "PoolTimeout", "ProxyError", "UnsupportedProtocol",
        "InvalidURL", "LocalProtocolError", "ConnectionRefusedError", "gaierror", "EndpointConnectionError",
        "ProxyConnectionError", "NoCredentialsError", "PartialCredentialsError", "NoRegionError",
        "ParamValidationError", "ClientConnectorError", "NewConnectionError", "CookieConflict",
        # A complete 4xx: Bedrock, the generated SDKs, Google's.
        "ThrottlingException", "TooManyRequestsException", "ValidationException", "AccessDeniedException",
        "ResourceNotFoundException", "ServiceQuotaExceededException", "ModelNotReadyException",
        "UnrecognizedClientException", "ExpiredTokenException", "ServiceUnavailableException",
        "RateLimitError", "BadRequestError", "AuthenticationError", "PermissionDeniedError", "NotFoundError",
        "UnprocessableEntityError", "OverloadedError", "ServiceUnavailableError", "ResourceExhausted",
        "InvalidArgument", "PermissionDenied", "Unauthenticated", "NotFound", "ServiceUnavailable",
    }
)  # fmt: skip
_PERHAPS = frozenset(
    {
        "InternalServerException", "InternalServerError", "ModelErrorException", "ModelTimeoutException",
        "ConflictException", "ConflictError", "BadGateway", "GatewayTimeout", "ServerError",
    }
)  # fmt: skip


def failure_of(span: Ending, seen: Seen) -> Failure | None:
    """The failure that a span says it ended with; None if it says none."""
    kind = text(seen.attributes.get(names.ERROR_TYPE))
    failed = getattr(span.status, "is_ok", True) is False
    if kind is None and not failed:
        return None
    status = next((s for name in names.HTTP_STATUS if (s := count(seen.attributes.get(name))) is not None), None)
    raised = _exception(span.events)
    name = (kind or raised or "_OTHER").rpartition(".")[2]
    if status is None or status < 400:
        said = count(name)
        status = said if said is not None and 400 <= said < 600 else None
    return Failure(kind or raised or "_OTHER", _billing(status, name, raised), status)


def _billing(status: int | None, name: str, raised: str | None) -> Billing:
    if status is not None:
        return Billing.of_status(status)
    for each in (name, (raised or "").rpartition(".")[2]):
        if each in _NOTHING:
            return Billing.NOTHING
        if each in _PERHAPS:
            return Billing.PERHAPS
    return Billing.PROBABLY


def _exception(events: Iterable[Any]) -> str | None:
    """The type of the exception that was recorded last."""
    last = None
    for event in events or ():
        if event.name == names.EXCEPTION:
            last = text((event.attributes or {}).get(names.EXCEPTION_TYPE)) or last
    return last
