"""The smallest value that a JSON schema allows: what the stand-in answers where a schema is asked for.

Covers what SDK helpers send (objects, arrays, strings with formats, numbers with bounds, enums, unions, `$ref`); it
does not solve patterns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_FORMATS = {
    "date": "2030-01-01",
    "date-time": "2030-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "duration": "PT1S",
    "email": "a@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "ipv4": "127.0.0.1",
    "ipv6": "::1",
}


def smallest(schema: Mapping[str, Any], root: Mapping[str, Any] | None = None) -> Any:
    """A minimal instance of a JSON schema.

    Args:
        schema: the schema.
        root: where `$ref` is looked up; the schema itself if None.

    Returns:
        a JSON value.
    """
    root = schema if root is None else root
    if "$ref" in schema:
        found: Any = root
        for step in str(schema["$ref"]).removeprefix("#").strip("/").split("/"):
            found = found[step] if step else found
        return smallest(found, root)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    for union in ("anyOf", "oneOf"):
        if schema.get(union):
            # Not the reference if there is another: a tree must end somewhere.
            return smallest(min(schema[union], key=lambda option: "$ref" in option), root)
    if schema.get("allOf"):
        merged: dict[str, Any] = {key: value for key, value in schema.items() if key != "allOf"}
        for part in schema["allOf"]:
            merged.update(part)
        return smallest(merged, root)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = kind[0]
    if kind == "object":
        fields = schema.get("properties", {})
        return {name: smallest(fields.get(name, {}), root) for name in schema.get("required", fields)}
    if kind == "array":
        return [smallest(schema.get("items") or {}, root) for _ in range(int(schema.get("minItems", 0)))]
    if kind == "integer":
        return int(_least(schema))
    if kind == "number":
        return float(_least(schema))
    if kind == "boolean":
        return True
    if kind == "null":
        return None
    return _FORMATS.get(schema.get("format", ""), "word").ljust(int(schema.get("minLength", 0)), ".")[
        : int(schema.get("maxLength", 1 << 30))
    ]


def _least(schema: Mapping[str, Any]) -> float:
    if "minimum" in schema:
        return float(schema["minimum"])
    if "exclusiveMinimum" in schema:
        return float(schema["exclusiveMinimum"]) + 1
    return min(1.0, float(schema.get("maximum", 1.0)))
