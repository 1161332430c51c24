"""Reads JSON into frozen dataclasses and refuses values of other types.

Supported types are str, int, float, bool, None, tuples, dictionaries with string keys, and
dataclasses. This file knows nothing about folders or models; `manifest.py` uses it.
"""

import dataclasses
import json
import types
from collections.abc import Mapping
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from glm_runtime.errors import FolderError

# Metadata of a field that was added later: its default is not written, so that older files keep
# their bytes when they are written again.
OMITTED_IF_DEFAULT: Mapping[str, bool] = types.MappingProxyType({"is_omitted_if_default": True})
_Record = TypeVar("_Record")
_JSON_NAMES = {
    str: "a string",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


def parse_json(text: str) -> Any:
    """Parse JSON.

    Raises:
        ValueError: the text is not JSON, or is nested deeper than Python can follow.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("its values are nested too deep") from error


def decode_record(kind: type[_Record], value: object, where: str) -> _Record:
    """Build one `kind` (a dataclass) from a decoded JSON object.

    Args:
        kind: the dataclass; fields with defaults may be missing in the JSON.
        value: the result of `parse_json`.
        where: name of the value in an error, for example `glm_manifest.json: source`.

    Raises:
        FolderError: a key is missing or unknown, or a value has the wrong type.
    """
    record = _expect_mapping(value, where)
    hints = get_type_hints(kind)
    for key in record:
        if key not in hints:
            raise FolderError(
                f"{where} has the unknown key {key!r} where only {', '.join(sorted(hints))} "
                "are expected; export the folder again or upgrade glm-export."
            )
    arguments: dict[str, Any] = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]  # any dataclass
        if field.name in record:
            place = f"{where}.{field.name}"
            arguments[field.name] = _decode(hints[field.name], record[field.name], place)
        elif field.default is dataclasses.MISSING:
            raise FolderError(
                f"{where} has no {field.name!r} where one is expected; export the folder again."
            )
    return kind(**arguments)


def encode_record(record: object) -> dict[str, object]:
    """Return a dataclass and the records in it as values that `json.dumps` accepts."""
    fields = dataclasses.fields(record)  # type: ignore[arg-type]  # any dataclass
    values = {field: getattr(record, field.name) for field in fields}
    return {
        field.name: _encode(value)
        for field, value in values.items()
        if not (field.metadata.get("is_omitted_if_default") and value == field.default)
    }


def _decode(hint: Any, value: object, where: str) -> object:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _decode_optional(hint, value, where)
    if origin is tuple:
        item_hint = get_args(hint)[0]
        items = enumerate(_expect_list(value, where))
        return tuple(_decode(item_hint, item, f"{where}[{i}]") for i, item in items)
    if origin is dict:
        item_hint = get_args(hint)[1]
        entries = _expect_mapping(value, where).items()
        return {key: _decode(item_hint, item, f"{where}[{key!r}]") for key, item in entries}
    if dataclasses.is_dataclass(hint):
        return decode_record(hint, value, where)  # type: ignore[arg-type]  # not an instance
    return _decode_scalar(hint, value, where)


def _decode_optional(hint: Any, value: object, where: str) -> object:
    if value is None:
        return None
    (inner,) = (arg for arg in get_args(hint) if arg is not type(None))
    return _decode(inner, value, where)


def _decode_scalar(hint: type, value: object, where: str) -> object:
    if hint is float and type(value) is int:
        try:
            return float(value)
        except OverflowError as error:
            raise _wrong_type(value, "a number up to 1e308", where) from error
    # `type is` instead of isinstance, because True is an int in Python.
    if type(value) is not hint:
        raise _wrong_type(value, _JSON_NAMES[hint], where)
    return value


def _expect_mapping(value: object, where: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise _wrong_type(value, "an object", where)
    return value


def _expect_list(value: object, where: str) -> list[object]:
    if not isinstance(value, list):
        raise _wrong_type(value, "a list", where)
    return value


def _wrong_type(value: object, expected: str, where: str) -> FolderError:
    names = {**_JSON_NAMES, dict: "an object", list: "a list"}
    found = names.get(type(value), "an unknown value")
    return FolderError(f"{where} is {found} where {expected} is expected; export the folder again.")


def _encode(value: object) -> object:
    if dataclasses.is_dataclass(value):
        return encode_record(value)
    if isinstance(value, Mapping):
        return {key: _encode(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_encode(item) for item in value]
    return value
