"""Folders that are given in place of a checkpoint: what they are, and what to give instead."""

from collections.abc import Iterator
from pathlib import Path

from glm_export.checkpoint.adapter_files import find_adapter, refuse_lone_adapter
from glm_export.errors import CheckpointError

_MANIFEST = "glm_manifest.json"
_CONFIG = "config.json"
# Patterns of files, what a folder with them is, and what to do.
_KINDS = (
    (
        ("zero_to_fp32.py",),
        "a DeepSpeed checkpoint in parts",
        "make a whole one with its zero_to_fp32.py, and give that",
    ),
    (
        ("mp_rank_*_model_states.pt", "*/mp_rank_*_model_states.pt"),
        "a checkpoint of SwissArmyTransformer, the form of GLM-130B",
        "give a later model as a Hugging Face folder, for example GLM-4-9B-0414",
    ),
    (("*.gguf",), "a model for llama.cpp", "give the Hugging Face folder that it was made from"),
    (("*.onnx",), "an ONNX model", "give the Hugging Face folder that it was made from"),
)
_DEPTHS = (f"*/{_CONFIG}", f"snapshots/*/{_CONFIG}")  # the latter in the cache of Hugging Face


def find_other_kind(folder: Path) -> CheckpointError | None:
    """Return an error that says what a folder without config.json or weights is; None if unknown.

    Raises:
        CheckpointError: adapter_config.json is not readable JSON.
        OSError: the folder cannot be read.
    """
    if (folder / _MANIFEST).is_file():
        return CheckpointError(
            f"{folder} is an exported folder already ({_MANIFEST}) and not a checkpoint; run it "
            f"with `glm-run chat {folder}`, or give the checkpoint that it was made from."
        )
    adapter = find_adapter(folder)
    if adapter is not None:
        return refuse_lone_adapter(adapter)
    for patterns, kind, advice in _KINDS:
        found = next((path for pattern in patterns for path in folder.glob(pattern)), None)
        if found is not None:
            return CheckpointError(f"{folder} is {kind} ({found.name}); {advice}.")
    inner = next(_find_inner(folder), None)
    if inner is not None:
        return CheckpointError(
            f"{folder} holds no model itself, but a folder with one; give {inner}."
        )
    return None


def _find_inner(folder: Path) -> Iterator[Path]:
    if (folder / _CONFIG).exists():
        return
    for pattern in _DEPTHS:
        yield from (path.parent for path in sorted(folder.glob(pattern)))
