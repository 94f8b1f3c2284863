"""Where the openai and anthropic SDKs can be wrapped, and how wrappers are put there and taken off again.

What the wrappers do is not known here: that is `stainless`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any

CLIENTS = (("SyncAPIClient", False), ("AsyncAPIClient", True))
"""The client classes of a `_base_client`, and whether they are async."""

LOOPS = (("Stream", "__iter__"), ("AsyncStream", "__aiter__"))
"""The loops over a stream: what a `_base_client` imports, and the method."""

_REQUIRED = ("request", "_build_request", "_process_response")
_OURS = "_shekel"
"""What marks the wrappers of a door."""


@dataclass(frozen=True, slots=True)
class Sdk:
    """One SDK with this kind of client.

    Attributes:
        name: its import name, which is also its name in the endpoint tables.
        lowest: the lowest version that is supported, as numbers.
    """

    name: str
    lowest: tuple[int, ...]

    @property
    def module(self) -> str:
        return f"{self.name}._base_client"

    def problem(self, module: Any) -> str | None:
        """Why an imported `_base_client` cannot be wrapped, with its version; None if it can."""
        package = sys.modules.get(self.name)
        version = str(getattr(package, "__version__", "unknown"))
        numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
        if len(numbers) == 2 and numbers < self.lowest:
            lowest = ".".join(map(str, self.lowest))
            return f"version {version}, at least {lowest} is needed"
        for name, _ in CLIENTS:
            client = getattr(module, name, None)
            for seam in _REQUIRED:
                if not callable(getattr(client, seam, None)):
                    return f"version {version} has no {self.module}.{name}.{seam}"
        return None


SDKS = (Sdk("openai", (3, 51)), Sdk("anthropic", (2, 10)))


class Seams:
    """The wrappers that one door has put on classes."""

    def __init__(self) -> None:
        self._placed: list[tuple[type, str, Any, Any]] = []

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._placed)

    def place(self, owner: type, name: str, make: Callable[[Any], Any]) -> None:
        """Put a wrapper on a class.

        Args:
            owner: the class.
            name: of the method.
            make: makes the wrapper from the method that is there.
        """
        former = getattr(owner, name) if name not in owner.__dict__ else owner.__dict__[name]
        # Called as the class would call it: a wrapper of wrapt's takes the client for an argument otherwise.
        ours = make(former.__get__(None, owner))
        ours.__dict__[_OURS] = True
        setattr(owner, name, ours)
        self._placed.append((owner, name, ours, former))

    def place_once(self, owner: type, name: str, make: Callable[[Any], Any]) -> None:
        """Put a wrapper on the class that has the method, of a class and its bases, unless it has one already."""
        for base in owner.__mro__:
            if name in base.__dict__:
                if not any(base is former and name == seam for former, seam, _, _ in self._placed):
                    self.place(base, name, make)
                break

    def remove(self) -> None:
        """Take off what is outermost. What lies under somebody else's wrapper stays."""
        for owner, name, ours, former in reversed(self._placed):
            if owner.__dict__.get(name) is ours:
                setattr(owner, name, former)
        self._placed = []


def is_of_others(former: Any) -> bool:
    """Whether what is to be wrapped is a wrapper of somebody else's, which may start a span for the call."""
    if not hasattr(former, "__wrapped__"):
        return False
    return not (type(former) is FunctionType and former.__dict__.get(_OURS))  # a proxy shows what it wraps


def subclasses(base: type) -> list[type]:
    """All that a class has, at any depth, each once."""
    found: list[type] = []
    waiting: list[type] = list(base.__subclasses__())
    while waiting:
        each = waiting.pop()
        if each not in found:
            found.append(each)
            waiting.extend(each.__subclasses__())
    return found
