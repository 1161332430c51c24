"""The files of a checkpoint folder that hold its weights, in transformers' order of preference.

Whatever else lies there is listed as unused. This module reads an index and no weights.
Source: `_get_resolved_checkpoint_files` in transformers' `modeling_utils.py` (5.23).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from glm_export.checkpoint.adapter_files import ADAPTER_WEIGHTS
from glm_export.checkpoint.json_files import read_json
from glm_export.checkpoint.other_folders import find_other_kind
from glm_export.errors import CheckpointError

_INDEX_END = ".index.json"
# A whole file or an index; the first that exists is read.
_PREFERRED = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
# Files without an index and under other names, which transformers would not find.
_OTHERS = ("*.safetensors", "pytorch_model*.bin")
_CANDIDATES = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json")
# Beginnings of the names of what trainers save beside the weights.
_TRAINING_STATES = ("training_args", "optimizer", "scheduler", "scaler", "sampler", "random_states")
_NOT_IN_NAMES = "/\\:\0"  # characters that no file name in an index may contain, on any system


@dataclass(frozen=True)
class WeightFiles:
    """The files that hold the weights, and those that lie beside them without being read.

    Attributes:
        paths: the files that are read.
        index: the index that names them; None if there is none or it is not used.
        weight_map: file name of each tensor in the index.
        unused: other weight files and indexes in the folder.
    """

    paths: tuple[Path, ...]
    index: Path | None = None
    weight_map: Mapping[str, str] = field(default_factory=dict)
    unused: tuple[Path, ...] = ()

    @property
    def note(self) -> str:
        """A sentence that names the unused files; "" if there are none."""
        if not self.unused:
            return ""
        unused, used = (", ".join(p.name for p in paths) for paths in (self.unused, self.paths))
        chosen = self.index.name if self.index else used
        verb = "was" if len(self.unused) == 1 else "were"
        return (
            f"{unused} {verb} not used: the weights come from {chosen}, in the order in which "
            "transformers looks for files."
        )


def find_weight_files(folder: Path, config: Mapping[str, object]) -> WeightFiles:
    """Find the weight files of a checkpoint.

    Args:
        folder: the checkpoint's folder.
        config: content of config.json, whose `transformers_weights` may name a file or an index.

    Raises:
        CheckpointError: there are none, or the index is broken or names a missing file.
        OSError: the folder cannot be read.
    """
    named = config.get("transformers_weights")
    if named is not None:
        _check_name("config.json", "transformers_weights", named)
    names = _PREFERRED if named is None else (str(named),)
    first = next((folder / name for name in names if _exists(folder / name)), None)
    if first is None and named is not None:
        raise CheckpointError(
            f"config.json says transformers_weights={named!r}, which is missing; download it into "
            f"{folder}, or remove that line."
        )
    if first is None:
        return _find_others(folder)
    if not first.name.endswith(_INDEX_END):
        return WeightFiles((first,), unused=_list_unused(folder, {first}))
    weight_map = _read_index(first)
    paths = tuple(sorted({folder / name for name in weight_map.values()}))
    return WeightFiles(paths, first, weight_map, _list_unused(folder, {first, *paths}))


def _exists(path: Path) -> bool:
    """Return True for a link that leads nowhere, too: it is refused and not passed over."""
    return path.exists() or path.is_symlink()


def _find_others(folder: Path) -> WeightFiles:
    for pattern in _OTHERS:
        paths = {path for path in folder.glob(pattern) if path.name not in ADAPTER_WEIGHTS}
        if paths:
            return WeightFiles(tuple(sorted(paths)), unused=_list_unused(folder, paths))
    raise find_other_kind(folder) or CheckpointError(
        f"there is no {' and no '.join(_OTHERS)} in {folder}; give a Hugging Face folder with "
        "config.json and the weights."
    )


def _list_unused(folder: Path, used: set[Path]) -> tuple[Path, ...]:
    found = {path for pattern in _CANDIDATES for path in folder.glob(pattern)} - used
    others = {path for path in found if path.name not in ADAPTER_WEIGHTS}
    return tuple(sorted(path for path in others if not path.name.startswith(_TRAINING_STATES)))


def _read_index(index: Path) -> dict[str, str]:
    """Read the file name of each tensor. A file may be a link, as in the Hugging Face cache."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index.name} has no weight_map; download it again.")
    for tensor, file in weight_map.items():
        _check_name(index.name, tensor, file)
    for file in sorted(set(weight_map.values())):
        if not (index.parent / file).is_file():
            raise CheckpointError(
                f"{index.name} names {file}, which is missing; download it into {index.parent}."
            )
    return weight_map


def _check_name(source: str, subject: str, file: object) -> None:
    is_plain = isinstance(file, str) and file not in ("", ".", "..")
    if not is_plain or set(str(file)) & set(_NOT_IN_NAMES):
        raise CheckpointError(
            f"{source} says that {subject} is in {file!r}, which is not a file name or is "
            "outside its folder; download it again."
        )
