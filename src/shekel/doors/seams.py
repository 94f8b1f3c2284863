"""Where the openai and anthropic SDKs can be wrapped, and how wrappers are put there and taken off again.

What the wrappers do is not known here: that is `stainless`.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from types import FunctionType
from typing import Any, TypeAlias

from .. import faults

CLIENTS = (("SyncAPIClient", False), ("AsyncAPIClient", True))
"""The client classes of a `_base_client`, and whether they are async."""

LOOPS = (("Stream", "__iter__"), ("AsyncStream", "__aiter__"))
"""The loops over a stream: what a `_base_client` imports, and the method."""

_REQUIRED = ("request", "_build_request", "_process_response")
_NO_METHODS = (staticmethod, classmethod, property)

_DEPTH = 64
"""So many wrappers are looked under: some go in a circle."""


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

    def imported(self) -> Any:
        """Its `_base_client`, where the program has imported it; None if not.

        One that another thread is just importing is waited for: it has not all its classes yet, and nobody would tell
        of it later who was not there when it began.
        """
        if _is_half(sys.modules.get(self.module)):
            with suppress(Exception):  # the import's own, which the program gets
                import_module(self.module)
        module = sys.modules.get(self.module)
        return None if _is_half(module) else module

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


def _is_half(module: Any) -> bool:
    """Whether a module is being imported."""
    return bool(getattr(getattr(module, "__spec__", None), "_initializing", False))


SDKS = (Sdk("openai", (3, 51)), Sdk("anthropic", (2, 10)))


class Live:
    """Whether the wrappers of a seam still count. One that somebody else's hides cannot be taken off."""

    __slots__ = ("on",)

    def __init__(self) -> None:
        self.on = True


Make: TypeAlias = Callable[[Any, Live], Any]
"""Makes a wrapper from the method that is there, and from what says whether the wrapper still counts.

None leaves the method alone.
"""


class Seam:
    """One wrapper on a class. There may be several, where somebody hides one: all of them count, and a call once.

    Args:
        owner: the class.
        name: of the method.
        make: makes the wrapper.
    """

    __slots__ = ("_former", "_live", "_make", "_name", "_ours", "_outermost", "_owner")

    def __init__(self, owner: type, name: str, make: Make) -> None:
        self._owner = owner
        self._name = name
        self._make = make
        self._live = Live()
        self._outermost: Any = None
        self._former: Any = None
        self._ours: Any = None
        self._put()

    def keep(self) -> None:
        """Put the wrapper there again if somebody took it off, or hides it behind one that does not show what it calls.

        Cheap where nothing has changed.
        """
        self._live.on = True
        now = self._owner.__dict__.get(self._name)
        if now is self._outermost or now is None:  # without a method of its own, the class has its base's
            return
        if self._is_under(now):
            self._outermost = now
        else:
            self._put()

    def remove(self) -> None:
        """Take the wrapper off if it is outermost. Under somebody else's it stays, and passes calls on."""
        self._live.on = False
        self._outermost = None
        there = self._owner.__dict__.get(self._name)
        if _is_ours(there):
            setattr(self._owner, self._name, _under(there))

    def _put(self) -> None:
        """Wrap what is there, if it is a method: what is not called with the client (a mock) is left alone."""
        owner, name = self._owner, self._name
        there = self._outermost = owner.__dict__[name] if name in owner.__dict__ else getattr(owner, name)
        former = _under(there)
        if former is self._former:  # as it was before
            self._outermost = self._ours
            setattr(owner, name, self._ours)
            return
        try:
            if isinstance(former, _NO_METHODS) or not hasattr(type(former), "__get__"):
                return
            # Called as the class would call it: a wrapper of wrapt's takes the client for an argument otherwise.
            ours = self._make(former.__get__(None, owner), self._live)
        except Exception as error:
            faults.report(f"wrapped {owner.__name__}.{name}", error)
            return
        if ours is not None:
            _placed[ours] = former, self._live
            self._former, self._ours = former, ours
            self._outermost = ours
            setattr(owner, name, ours)

    def _is_under(self, there: Any) -> bool:
        """Whether a method is a wrapper of this seam, or one over it that shows what it wraps."""
        for _ in range(_DEPTH):
            if _is_ours(there) and _placed[there][1] is self._live:
                return True
            there = getattr(there, "__wrapped__", None)
            if there is None:
                break
        return False


class Seams:
    """The wrappers that one door puts on classes. Once taken off, they are kept for the next time."""

    def __init__(self) -> None:
        self._placed: dict[tuple[type, str], Seam] = {}
        self.in_place = False

    def place(self, owner: type, name: str, make: Make) -> None:
        """Put a wrapper on a class, where it has none of this door.

        Args:
            owner: the class.
            name: of the method.
            make: makes the wrapper.
        """
        self.in_place = True
        if (owner, name) not in self._placed:
            self._placed[owner, name] = Seam(owner, name, make)

    def keep(self) -> None:
        """Put all of them there that are not: whoever took them off."""
        self.in_place = bool(self._placed)
        for seam in self._placed.values():
            seam.keep()

    def remove(self) -> None:
        """Take off what is outermost; what lies under somebody else's wrapper passes calls on."""
        for seam in reversed(tuple(self._placed.values())):  # an SDK may be imported just now
            seam.remove()
        self.in_place = False


_placed: weakref.WeakKeyDictionary[FunctionType, tuple[Any, Live]] = weakref.WeakKeyDictionary()
"""Of each wrapper of a door that somebody still has: what was there before, and whether it counts."""


def _is_ours(there: Any) -> bool:
    return type(there) is FunctionType and there in _placed  # a proxy is equal to what it wraps


def _under(there: Any) -> Any:
    """What lies under our wrappers: those that count no more may have been put back by whoever took them off."""
    while _is_ours(there):
        there = _placed[there][0]
    return there


def is_of_others(former: Any) -> bool:
    """Whether what is to be wrapped is a wrapper of somebody else's, which may start a span for the call."""
    return hasattr(former, "__wrapped__")


def definer(owner: type, name: str) -> type:
    """The class that has a method, of a class and its bases: others may share it."""
    return next(base for base in owner.__mro__ if name in base.__dict__)


def overriding(base: type, name: str) -> list[type]:
    """The subclasses, at any depth, that have a method of their own."""
    found: list[type] = []
    below = [base]
    for each in below:
        inside: list[type] = each.__subclasses__()
        for subclass in inside:
            below.append(subclass)
            if name in subclass.__dict__:
                found.append(subclass)
    return found
