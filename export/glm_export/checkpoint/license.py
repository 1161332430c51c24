"""The license of a checkpoint: the metadata of its model card, and its license files.

Nothing is guessed from names or addresses. If no file states the license, it is unknown.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from glm_export.errors import CheckpointError

CARD_NAME = "README.md"
_FILE_NAME = re.compile(r"((model[_-])?licen[cs]e([_-]model)?|notice)(\.(txt|md))?", re.IGNORECASE)
_LARGEST_FILE_BYTES = 1 << 20
_KEYS = ("license", "license_name", "license_link")
_ELSEWHERE = "other"  # Hugging Face's value for a license without a short name


@dataclass(frozen=True)
class License:
    """A checkpoint's license.

    Attributes:
        name: license name from the model card; "" if the card has none.
        files: contents of the license files by name, which are copied to the output.
    """

    name: str
    files: Mapping[str, bytes]


def read_license(folder: Path) -> License:
    """Read the card and the license files of a checkpoint.

    Raises:
        CheckpointError: a file cannot be read.

    Source: Hugging Face's model card metadata (`license`, `license_name`, `license_link`).
    """
    try:
        paths = [path for path in sorted(folder.iterdir()) if _is_license(path)]
        files = {path.name: path.read_bytes() for path in paths}
        card = folder / CARD_NAME
        head = _read_head(card.read_text("utf-8", "replace")) if card.is_file() else {}
    except OSError as error:
        raise CheckpointError(
            f"{error.filename} cannot be read ({error.strerror}); check its permissions."
        ) from error
    name = head.get("license", "")
    if name in ("", _ELSEWHERE):
        name = head.get("license_name", name)
    link = head.get("license_link", "")
    return License(f"{name} ({link})" if name and link else name or link, files)


def _is_license(path: Path) -> bool:
    is_named_so = _FILE_NAME.fullmatch(path.name) is not None
    return is_named_so and path.is_file() and path.stat().st_size <= _LARGEST_FILE_BYTES


def _read_head(text: str) -> dict[str, str]:
    """Read the plain `key: value` lines between the first two lines of three dashes."""
    lines = text.lstrip("\ufeff").splitlines()
    if not lines or lines[0].strip() != "---":
        return {}
    found: dict[str, str] = {}
    for line in lines[1:]:
        if line.strip() == "---":
            return found
        key, colon, value = line.partition(":")
        value = " ".join(value.partition(" #")[0].split()).strip("\"'[]")
        is_said = value.isprintable() and value[:1] not in ("", ">", "|", "~") and value != "null"
        if colon and key.strip("\"' ") in _KEYS and is_said:
            found[key.strip("\"' ")] = value
    return {}  # without a second line of dashes there is no head
