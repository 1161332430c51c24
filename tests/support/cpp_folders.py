"""Folders that are not as the exporter wrote them."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from glm_runtime.folder.manifest import describe_file


def change_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """With a checksum that fits."""
    path = folder / "glm_manifest.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    del content["checksum"]
    checksum = hashlib.sha256(dump(content).encode()).hexdigest()
    path.write_text(dump({**content, "checksum": checksum}), encoding="utf-8")


def dump(content: dict[str, Any]) -> str:
    """As the manifest is written."""
    return json.dumps(content, sort_keys=True, indent=2, ensure_ascii=False) + "\n"


def change_limits(folder: Path, copy: Path, limits: dict[str, Any]) -> Path:
    """The folder with other values in generation_config.json, which its manifest vouches for."""
    shutil.copytree(folder, copy)
    path = copy / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | limits), encoding="utf-8")
    entry = vars(describe_file(path))
    change_manifest(copy, lambda m: m["files"].update({path.name: entry}))
    return copy


def use_tokenizer(folder: Path, copy: Path, content: str) -> Path:
    """The folder with another tokenizer.json, which its manifest vouches for."""
    shutil.copytree(folder, copy)
    (copy / "tokenizer.json").write_text(content, encoding="utf-8")
    entry = vars(describe_file(copy / "tokenizer.json"))
    change_manifest(copy, lambda m: m["files"].update({"tokenizer.json": entry}))
    return copy


def use_table(folder: Path, copy: Path, content: bytes) -> Path:
    """The folder with another chat_table.json, which its manifest vouches for."""
    shutil.copytree(folder, copy)
    (copy / "chat_table.json").write_bytes(content)
    entry = vars(describe_file(copy / "chat_table.json"))
    change_manifest(copy, lambda m: m["files"].update({"chat_table.json": entry}))
    return copy
