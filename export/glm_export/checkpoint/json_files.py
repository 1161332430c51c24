"""JSON files of a checkpoint, and what lies in their place if they are not readable."""

import json
from pathlib import Path
from typing import Any

from glm_export.errors import CheckpointError

_HEADER_START = 8  # of a safetensors file's JSON header
# How other files begin, and what they are.
_BEGINNINGS = (
    (b"version https://git-lfs", "it is a git-lfs pointer: the content was not downloaded"),
    (b"\xff\xfe", "it is UTF-16 and not UTF-8 text"),
    (b"\xfe\xff", "it is UTF-16 and not UTF-8 text"),
    (b"PK\x03\x04", "it is a zip file, as torch.save writes a pytorch_model.bin"),
    (b"GGUF", "it is a GGUF file"),
    (b"<", "it is a web page"),
)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file. A byte order mark before it does no harm.

    Raises:
        CheckpointError: the file is missing or cannot be read, is not UTF-8 JSON, or does not hold
            an object.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise CheckpointError(
            f"there is no {path.name} in {path.parent}; "
            "give a Hugging Face folder with config.json and *.safetensors."
        ) from error
    except OSError as error:
        raise CheckpointError(
            f"{path.name} cannot be read ({error.strerror}); "
            f"check that {path} is a file that you may read."
        ) from error
    try:
        content = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path.name} is not readable JSON ({describe_content(data) or error}); "
            "correct it, or download it again."
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path.name} does not hold a JSON object; download it again.")
    return content


def read_optional_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file; return an empty one if there is no file."""
    return read_json(path) if path.is_file() else {}


def describe_content(data: bytes) -> str:
    """Say what the bytes are that should have been a checkpoint's file; "" if that is unknown."""
    if not data.strip():
        return "the file is empty"
    if data[_HEADER_START : _HEADER_START + 2] == b'{"':
        return "it is a safetensors file"
    return next((what for start, what in _BEGINNINGS if data.lstrip().startswith(start)), "")
