"""An example of what a JSON Schema admits, for documentation."""

from collections.abc import Mapping
from typing import Any

_TEXTS = {
    "date-time": "2026-11-24T09:30:00Z",
    "date": "2026-11-24",
    "time": "09:30:00Z",
    "duration": "PT90S",
    "uuid": "0199f2f0-7c3a-7000-8a61-3f1d2c9b5e77",
    "email": "ann@example.org",
    "uri": "https://example.org/",
}
_REF = "#/components/schemas/"
_MAX_DEPTH = 8


def example(schema: Mapping[str, Any], shared: Mapping[str, Any], depth: int = 0) -> Any:
    """A value for `schema`, whose references are among `shared`: its own example or default, else the
    plainest one of its type. It is a guess: a caller that needs a valid one checks it."""
    if ref := schema.get("$ref"):
        schema = {
            **shared[ref.removeprefix(_REF)],
            **{k: v for k, v in schema.items() if k != "$ref"},
        }
    if schema.get("examples"):
        return schema["examples"][0]
    for given in ("default", "const"):
        if given in schema:
            return schema[given]
    if "enum" in schema:
        return schema["enum"][0]
    for choice in ("anyOf", "oneOf", "allOf"):
        if choice in schema and "type" not in schema:
            return example(schema[choice][0], shared, depth + 1)
    return _plain(schema, shared, depth)


def _plain(schema: Mapping[str, Any], shared: Mapping[str, Any], depth: int) -> Any:
    kind = schema.get("type")
    if kind == "object":
        if depth > _MAX_DEPTH:
            return {}
        required = schema.get("required", ())
        return {
            name: example(member, shared, depth + 1)
            for name, member in schema.get("properties", {}).items()
            if name in required or "default" in member or "examples" in member
        }
    if kind == "array":
        if "prefixItems" in schema:
            return [example(item, shared, depth + 1) for item in schema["prefixItems"]]
        if depth > _MAX_DEPTH or not (schema.get("items") or schema.get("minItems")):
            return []
        return [example(schema["items"], shared, depth + 1)] * max(1, schema.get("minItems", 1))
    if kind in ("integer", "number"):
        return schema.get(
            "minimum", schema.get("exclusiveMinimum", 0) + ("exclusiveMinimum" in schema)
        )
    if kind == "string":
        text = _TEXTS.get(schema.get("format", ""), "text")
        return text.ljust(schema.get("minLength", 0), "x")[: schema.get("maxLength")]
    return {"boolean": True}.get(str(kind))
