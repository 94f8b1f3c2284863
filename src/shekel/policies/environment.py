"""The deployment environment of this process, such as "production": what policies with `match={"environment": …}` ask.

It is, in this order: what `shekel.configure(environment=…)` says, SHEKEL_ENVIRONMENT, the attribute
`deployment.environment.name` (or `deployment.environment`, its older name) of the resource of the tracer provider in
use, and the same in OTEL_RESOURCE_ATTRIBUTES, which counts where no SDK is. A process that has none matches no policy
with such a condition, and says so once: whoever limits only production must say where production is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

from .. import faults

VARIABLE = "SHEKEL_ENVIRONMENT"
ATTRIBUTES = ("deployment.environment.name", "deployment.environment")


class Environment:
    """Says the environment.

    Args:
        provider: the tracer provider in use.
    """

    def __init__(self, provider: Callable[[], Any]) -> None:
        self._provider = provider
        self.given: str | None = None
        self._read: tuple[Any, str | None] = (None, None)

    def __call__(self) -> str | None:
        """The environment; None where nobody says one."""
        if self.given is not None:
            return self.given
        provider = self._provider()
        if self._read[0] is not provider:  # every call asks, and a provider's resource never changes
            self._read = (provider, self._look(provider))
        if self._read[1] is None:
            faults.warn_once(
                "no environment",
                "A policy is for one deployment environment, and this process has none, so the policy does not apply. "
                "Say it with shekel.configure(environment=…), %s or the resource attribute %s.",
                VARIABLE,
                ATTRIBUTES[0],
            )
        return self._read[1]

    def _look(self, provider: Any) -> str | None:
        said = os.environ.get(VARIABLE, "").strip()
        if said:
            return said
        resource = getattr(getattr(provider, "resource", None), "attributes", None)
        found = _in(resource) if isinstance(resource, Mapping) else None
        return found or _in(_of_variable(os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")))


def _in(attributes: Mapping[str, Any]) -> str | None:
    for name in ATTRIBUTES:
        value = attributes.get(name)
        if isinstance(value, str) and value:
            return value
    return None


def _of_variable(text: str) -> dict[str, str]:
    pairs = (pair.partition("=") for pair in text.split(",") if "=" in pair)
    return {key.strip(): unquote(value.strip()) for key, _, value in pairs}
