"""Reading of request bodies and answers that may be anything: mappings, models of an SDK, or something strange.

A body is walked once, without recursion, and its text is measured as it passes. What a key means beyond text (media,
ids, encrypted blocks) is said by each endpoint in a table. This file must never know a provider, import an SDK, keep
any text, consume an iterator, or loop for ever on a body that contains itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from shekel.estimation import NOTHING, Text, measure

_SENTINELS = frozenset({"NotGiven", "Omit"})  # each SDK has its own classes, so they are known by name
_UNSENT = frozenset({"parsed", "parsed_arguments", "parsed_output"})  # fields of parsed answers that SDKs do not send
_MOST_NODES = 2_000_000  # a body with more can only be one that contains itself

Handler = Callable[["Walk", Mapping[str, Any], Any], bool]
"""What to do with a special key: gets the walk, the mapping and the value; True to walk the value as well."""


def get(source: Any, name: str) -> Any:
    """A field of a mapping or an object; None if there is none, or a sentinel stands for its absence."""
    try:
        value = source.get(name) if isinstance(source, dict) else getattr(source, name, None)
        if value is None and isinstance(source, Mapping):
            value = source.get(name)
    except Exception:
        return None
    return None if type(value).__name__ in _SENTINELS else value


def given(body: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a body that are sent: without None and the SDKs' sentinels."""
    return {k: v for k, v in body.items() if v is not None and type(v).__name__ not in _SENTINELS}


def integer(value: Any) -> int:
    """A count, or 0 for whatever is not one."""
    return value if type(value) is int and value > 0 else 0


def string(value: Any) -> str | None:
    """A string, or None for whatever is not one."""
    return value if isinstance(value, str) and value else None


def cap_of(value: Any) -> int | None:
    """A cap on output tokens, or None for what is not one."""
    return value if type(value) is int and value >= 0 else None


def items(value: Any) -> tuple[Any, ...]:
    """The members of a list or tuple; nothing for anything else (iterators are left alone)."""
    return tuple(value) if isinstance(value, list | tuple) else ()


class Walk:
    """What a body is made of, summed up as it is walked.

    Attributes:
        bound: tokens beside `text` that the request can be billed for at most (structure, encrypted blocks, media).
        extra: tokens beside `text`, as a best estimate.
        unbounded: the first field found that nothing bounds.
        entries: keys of schemas, each of which brings punctuation of its own.
        mappings: mappings in content, each of which may bring delimiters.
    """

    __slots__ = ("_one", "_wide", "bound", "entries", "extra", "mappings", "model", "unbounded")

    def __init__(self, model: str = "") -> None:
        self.model = model
        self.bound = 0
        self.extra = 0
        self.unbounded: str | None = None
        self.entries = 0
        self.mappings = 0
        self._one = 0
        self._wide = NOTHING

    @property
    def text(self) -> Text:
        """All text walked so far."""
        return Text(self._one) + self._wide

    def add(self, text: str) -> None:
        """Count one string."""
        if text.isascii():
            self._one += len(text)
        else:
            self._wide = self._wide + measure(text)

    def open_ended(self, field: str) -> None:
        """Say that this field makes the input unbounded; the first one is told."""
        if self.unbounded is None:
            self.unbounded = field or "unknown"

    def content(self, root: Any, special: Mapping[str, Handler | None], field: str) -> None:
        """Walk messages: strings count, keys do not, unless `special` says otherwise (None: the key is left out)."""
        stack = [root]
        visited = 0
        while stack:
            node = stack.pop()
            visited += 1
            if visited > _MOST_NODES:
                self.open_ended(field)
                return
            kind = type(node)
            if kind is list or kind is tuple:
                stack.extend(node)
            elif kind is str:
                self.add(node)
            elif kind is dict or (node := self._fields(node, stack, field)) is not None:
                self.mappings += 1
                for key, value in node.items():
                    if key in special:
                        handle = special[key]
                        if handle is not None and value is not None and handle(self, node, value):
                            stack.append(value)
                    elif type(value) is str:
                        if value.isascii():
                            self._one += len(value)
                        else:
                            self._wide = self._wide + measure(value)
                    elif value is not None:
                        stack.append(value)

    def schema(self, root: Any, field: str) -> None:
        """Walk JSON that is sent as such (schemas, arguments of tools): keys, strings and numbers count."""
        stack = [root]
        visited = 0
        while stack:
            node = stack.pop()
            visited += 1
            if visited > _MOST_NODES:
                self.open_ended(field)
                return
            kind = type(node)
            if kind is str:
                self.add(node)
                self.entries += 1
            elif kind is list or kind is tuple:
                stack.extend(node)
            elif kind is int or kind is float or kind is bool or node is None:
                self._one += 5 if kind is not int else 1 + node.bit_length() // 3
                self.entries += 1
            elif kind is dict or (node := self._fields(node, stack, field)) is not None:
                for key, value in node.items():
                    if isinstance(key, str):
                        self.add(key)
                    self.entries += 1
                    stack.append(value)

    def _fields(self, node: Any, stack: list[Any], field: str) -> dict[Any, Any] | None:
        """The fields of what is neither a plain dict, list, tuple nor str; None if it has none, or was dealt with."""
        if node is None or isinstance(node, bool | int | float):
            return None
        if isinstance(node, str):
            self.add(str(node))
        elif isinstance(node, Mapping):
            return dict(node)
        elif isinstance(node, list | tuple | set | frozenset):
            stack.extend(node)
        elif type(node).__name__ in _SENTINELS:
            return None
        elif isinstance(node, bytes | bytearray | memoryview | Iterator) or hasattr(node, "read"):
            self.open_ended(field)  # an upload, or something that is used up by looking at it
        elif hasattr(type(node), "model_fields"):  # an answer of the SDK, handed back as part of the next request
            fields = {k: v for k, v in vars(node).items() if v is not None and k not in _UNSENT}
            extra = getattr(node, "__pydantic_extra__", None)
            if isinstance(extra, dict):
                fields.update(extra)
            return fields
        else:
            self.open_ended(field)
        return None
