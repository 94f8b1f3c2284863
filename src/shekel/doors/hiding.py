"""Requests that are no calls (a list of models, an upload): they pass as they are, but do not tell who pays either."""

from __future__ import annotations

from contextvars import Token
from types import TracebackType
from typing import TYPE_CHECKING

from opentelemetry.context import Context

from .. import context as ctx
from .. import faults
from ..budgets.scope import without_scope

if TYPE_CHECKING:
    from ..runtime import Runtime


class passing:
    """Keeps the scope's baggage from the provider while a request is sent.

    Args:
        runtime: knows the policies.
    """

    __slots__ = ("_runtime", "_token")

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._token: Token[Context] | None = None

    def __enter__(self) -> None:
        try:
            here = ctx.current()
            bare = without_scope(here, self._runtime.policies.keys)
            if bare is not here:
                self._token = ctx.attach(bare)
        except Exception as error:
            faults.report("hid the scope", error)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            ctx.detach(self._token)
