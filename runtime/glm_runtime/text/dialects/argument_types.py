"""Text of an argument to JSON, by the types that a tool's JSON schema allows for it."""

from collections.abc import Mapping

from glm_runtime.text.dialects.json_scanner import read_json, write_string

_MAX_SCHEMAS = 200  # a schema may refer to itself


def list_types(parameters: object, key: str) -> frozenset[str] | None:
    """Return the types that a schema of parameters allows for a key; `None` if it does not say."""
    properties = parameters.get("properties") if isinstance(parameters, Mapping) else None
    waiting = [properties.get(key) if isinstance(properties, Mapping) else None]
    found: set[str] = set()
    for _ in range(_MAX_SCHEMAS):
        if not waiting:
            return frozenset(found)
        types, alternatives = _read_schema(waiting.pop(), parameters)
        if not types and not alternatives:
            return None
        found.update(types)
        waiting.extend(alternatives)
    return None


def write_value(text: str, types: frozenset[str] | None) -> str:
    """Return the JSON of an argument: its own text if it is JSON and no string, or a string.

    Where a string is allowed, only a value of another allowed type is taken as JSON.
    """
    kind = _find_kind(text)
    if kind is None or (types is not None and "string" in types and kind not in types):
        return write_string(text)
    return text.strip()


def _find_kind(text: str) -> str | None:
    """Return the JSON type of a text; `None` if it is not JSON, or is a string."""
    try:
        value = read_json(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, bool):
        return "boolean"
    kinds = {dict: "object", list: "array", int: "number", float: "number", type(None): "null"}
    return kinds.get(type(value))


def _read_schema(schema: object, root: object) -> tuple[list[str], list[object]]:
    """Return the types that a schema names, or the schemas of which one must hold."""
    if not isinstance(schema, Mapping):
        return [], []
    type_, reference = schema.get("type"), schema.get("$ref")
    if isinstance(type_, str | list):
        named = [type_] if isinstance(type_, str) else type_
        return ["number" if one == "integer" else str(one) for one in named], []
    if isinstance(reference, str):
        return [], [_resolve(reference, root)]
    values = _list(schema.get("enum"))
    if values and all(isinstance(one, str) for one in values):
        return ["string"], []
    return [], [*_list(schema.get("anyOf")), *_list(schema.get("oneOf"))]


def _resolve(reference: str, root: object) -> object:
    """Return the part of a schema that a reference such as `#/$defs/Name` names."""
    found = root
    for part in reference.removeprefix("#/").split("/"):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
