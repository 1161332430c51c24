"""Reading values of config.json's quantization_config; unsupported values are refused."""

from collections.abc import Iterable, Mapping
from typing import Any

from glm_export.checkpoint.checkpoint import Checkpoint
from glm_export.checkpoint.name_patterns import Matches, PatternError, match_names
from glm_export.errors import UnsupportedModelError
from glm_export.model.architectures.description import read_count, require_value


def read_bits(settings: Mapping[str, Any], key: str, *supported: int) -> int:
    """Read the number of bits of a code.

    Raises:
        UnsupportedModelError: the value is missing or not supported.
    """
    bits = read_count(settings, key)
    require_value(settings, key, *supported)
    return bits


def read_group_size(settings: Mapping[str, Any]) -> int:
    """Read the number of inputs that share one scale; -1 means the whole row.

    Raises:
        UnsupportedModelError: the value is missing, or neither -1 nor positive.
    """
    value = settings.get("group_size")
    if isinstance(value, bool) or not isinstance(value, int) or (value < 1 and value != -1):
        raise UnsupportedModelError(
            f"config.json says group_size={value!r}; -1 or a whole number of at least 1 is needed: "
            "check quantization_config."
        )
    return value


def read_block(block: object, key: str) -> tuple[int, int]:
    """Read the rows and columns that share a scale.

    Raises:
        UnsupportedModelError: these are not two whole numbers of at least 1.
    """
    if isinstance(block, list) and len(block) == 2:
        rows, columns = block
        if type(rows) is int and type(columns) is int and min(rows, columns) >= 1:
            return rows, columns
    raise UnsupportedModelError(
        f"config.json says {key}={block!r}; two whole numbers of at least 1 are needed: check "
        "quantization_config."
    )


def read_object(settings: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Read a JSON object; return an empty one if it is missing or null.

    Raises:
        UnsupportedModelError: the value is not an object.
    """
    value = settings.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise UnsupportedModelError(
            f"config.json says {key}={value!r}; an object is needed: check config.json."
        )
    return value


def require_name(settings: Mapping[str, Any], key: str, *supported: str) -> None:
    """Refuse a name that is not supported. Case is ignored, and a missing value is accepted."""
    value = settings.get(key)
    require_value({key: value.lower() if isinstance(value, str) else value}, key, *supported)


def find_matches(patterns: Iterable[str], checkpoint: Checkpoint) -> Matches:
    """Return the modules whose names begin as each regular expression of config.json says.

    Raises:
        UnsupportedModelError: this is not a regular expression, or it takes too long.
    """
    names = sorted({name.rpartition(".")[0] for name in checkpoint.tensors})
    try:
        return match_names(tuple(patterns), tuple(names))
    except PatternError as error:
        raise UnsupportedModelError(
            f"config.json names modules by {error.pattern!r:.80}, {error}; check "
            "quantization_config."
        ) from error
