"""Reading of request bodies and answers that may be anything: mappings, models of an SDK, or something strange.

A body is walked once, without recursion, and its text is measured as it passes. What a key means beyond text (media,
ids, encrypted blocks) is said by each endpoint in a table. This file must never know a provider, import an SDK, keep
any text, consume an iterator, or loop for ever on a body that contains itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from json.encoder import encode_basestring
from typing import Any

from shekel.estimation import Text, widths

_SENTINELS = frozenset({"NotGiven", "Omit"})  # each SDK has its own classes, so they are known by name
_UNSENT = frozenset({"parsed", "parsed_arguments", "parsed_output"})  # fields of parsed answers that SDKs do not send
_MOST_NODES = 2_000_000  # a body with more can only be one that contains itself

Handler = Callable[["Walk", Mapping[str, Any], Any], bool]
"""What to do with a special key: gets the walk, the mapping and the value; True to walk the value as well."""


def get(source: Any, name: str) -> Any:
    """A field of a mapping or an object; None if there is none, or a sentinel stands for its absence."""
    if source is None:
        return None
    try:
        if type(source) is dict:
            value = source.get(name)
        else:
            # Models of the SDKs: looking into the two dictionaries is many times faster than asking for an attribute
            # that is not there, which is what happens most.
            value = source.__dict__.get(name, _ABSENT)
            if value is _ABSENT:
                extra = source.__pydantic_extra__
                value = None if extra is None else extra.get(name)
    except Exception:
        value = _attribute(source, name)
    if value is None or type(value) in _PLAIN:
        return value
    return None if type(value).__name__ in _SENTINELS else plain(value)


def plain(value: Any) -> Any:
    """A text or number of a subclass (a member of an enum) as JSON writes it, whatever its own methods say."""
    if isinstance(value, str):
        return str.__str__(value)
    if type(value) is bool:
        return value
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    return value


_PLAIN = frozenset({str, int, bool, float, list, dict, tuple})
_ABSENT = object()


def _attribute(source: Any, name: str) -> Any:
    """The same of whatever is no model of an SDK."""
    try:
        value = getattr(source, name, None)
        return source.get(name) if value is None and isinstance(source, Mapping) else value
    except Exception:
        return None


def given(body: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a body that are sent: without None and the SDKs' sentinels, texts and numbers plain."""
    return {
        k if type(k) is str else plain(k): v if type(v) in _PLAIN else plain(v)
        for k, v in body.items()
        if v is not None and (type(v) in _PLAIN or type(v).__name__ not in _SENTINELS)
    }


SCALARS = frozenset({str, int, bool, float})
"""The types that a span attribute may have."""


def unknown(body: dict[str, Any], known: frozenset[str]) -> list[str]:
    """The fields of a body that are not among the known ones, in order."""
    return [] if body.keys() <= known else sorted(map(str, body.keys() - known))


def integer(value: Any) -> int:
    """A count, or 0 for whatever is not one."""
    value = value if type(value) is int else plain(value)
    return value if type(value) is int and value > 0 else 0


def string(value: Any) -> str | None:
    """A string, or None for whatever is not one."""
    value = value if type(value) is str else plain(value)
    return value if type(value) is str and value else None


def cap_of(value: Any) -> int | None:
    """A cap on output tokens, or None for what is not one."""
    value = value if type(value) is int else plain(value)
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
        entries: keys and values of schemas, each of which brings punctuation of its own.
        mappings: mappings in content, each of which may bring delimiters.
    """

    __slots__ = ("_four", "_one", "_three", "_two", "bound", "entries", "extra", "mappings", "model", "unbounded")

    def __init__(self, model: str = "") -> None:
        self.model = model
        self.bound = 0
        self.extra = 0
        self.unbounded: str | None = None
        self.entries = 0
        self.mappings = 0
        self._one = self._two = self._three = self._four = 0

    @property
    def text(self) -> Text:
        """All text walked so far."""
        return Text(self._one, self._two, self._three, self._four)

    def add(self, text: str) -> None:
        """Count one string."""
        if text.isascii():
            self._one += len(text)
        else:
            one, two, three, four = widths(text)
            self._one += one
            self._two += two
            self._three += three
            self._four += four

    def open_ended(self, field: str) -> None:
        """Say that this field makes the input unbounded; the first one is told."""
        if self.unbounded is None:
            self.unbounded = field or "unknown"

    def content(self, root: Any, special: Mapping[str, Handler | None], field: str) -> None:
        """Walk messages: strings count, keys do not, unless `special` says otherwise (None: the key is left out)."""
        if root is None:
            return
        if type(root) is str:
            self.add(root)
            return
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
                        if handle is None or value is None:
                            continue
                        if handle(self, node, value if type(value) in _PLAIN else plain(value)):
                            stack.append(value)
                    elif type(value) is str:
                        if value.isascii():
                            self._one += len(value)
                        else:
                            self.add(value)
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
            if kind not in _PLAIN:
                node = plain(node)
                kind = type(node)
            self.entries += 1
            if kind is str:
                self._quoted(node)
            elif kind is list or kind is tuple:
                stack.extend(node)
            elif kind is int or kind is bool or node is None:
                self._one += 5 if kind is not int else 1 + node.bit_length() // 3
            elif kind is float:
                self._one += len(repr(node))
            elif kind is dict or (node := self._fields(node, stack, field)) is not None:
                for key, value in node.items():
                    if isinstance(key, str):
                        self._quoted(key if type(key) is str else plain(key))
                    self.entries += 1
                    stack.append(value)

    def _quoted(self, text: str) -> None:
        """Count a string of JSON: what is escaped in it takes more bytes than it has."""
        self.add(text)
        self.bound += len(encode_basestring(text)) - len(text) - 2

    def _fields(self, node: Any, stack: list[Any], field: str) -> dict[Any, Any] | None:
        """The fields of what is neither a plain dict, list, tuple nor str; None if it has none, or was dealt with."""
        if node is None or isinstance(node, bool | int | float):
            return None
        if isinstance(node, str):
            self.add(plain(node))
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
