"""An adapter whose settings and headers were read: its low-rank changes and its whole tensors.

Names lose PEFT's prefix, so that they are those of the base model. Nothing here knows the model.
Source: PEFT 0.21, `utils/save_and_load.py` and `tuners/lora/layer.py`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from glm_export.checkpoint.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from glm_export.checkpoint.adapters.choice import Adapter
from glm_export.checkpoint.adapters.settings import LoraSettings, read_settings
from glm_export.checkpoint.checkpoint import Checkpoint
from glm_export.checkpoint.file_states import read_states
from glm_export.checkpoint.json_files import read_json
from glm_export.checkpoint.safetensors_header import StoredTensor, read_header
from glm_export.checkpoint.source_name import name_checkpoint
from glm_export.checkpoint.tensor_names import strip_wrappers
from glm_export.checkpoint.weight_files import WeightFiles
from glm_export.errors import CheckpointError, UnsupportedModelError

_WRAPPERS = re.compile(r"\.(base_layer|modules_to_save\.default)\.")
_LOW_RANK = re.compile(r"(.+)\.lora_(embedding_)?([AB])(\.default)?(\.weight|\.bias)?")
_DORA = "lora_magnitude_vector"


@dataclass(frozen=True)
class LowRankChange:
    """The tensors of one module's change, by their names in the adapter's file.

    The change of a linear layer is `up` @ `down`, that of an embedding its transpose.

    Attributes:
        module: name of the module in the base model.
        is_embedding: True for an embedding.
        down: [rank, inputs]; for an embedding [rank, vocabulary].
        up: [outputs, rank].
        bias: [outputs], added to the module's bias with the same factor; "" if there is none.
    """

    module: str
    is_embedding: bool
    down: str = ""
    up: str = ""
    bias: str = ""


@dataclass(frozen=True)
class OpenAdapter:
    """An adapter whose files were read and checked.

    Attributes:
        name: name of its folder, made unique among the adapters of one export.
        weight: factor of its change.
        settings: ranks and factors.
        stored: its tensors; its config is adapter_config.json.
        changes: low-rank changes.
        replaced: whole tensors: name in the base model -> name in the adapter's file.
        left_out: modules whose change the settings do not apply; see `selection.py`.
    """

    name: str
    weight: float
    settings: LoraSettings
    stored: Checkpoint
    changes: tuple[LowRankChange, ...]
    replaced: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    @property
    def files(self) -> dict[str, Path]:
        """Its files by name, each with the name of its folder."""
        paths = (self.stored.folder / ADAPTER_CONFIG, *self.stored.weight_files)
        return {f"{self.name}/{path.name}": path for path in paths}

    @property
    def weight_file(self) -> str:
        """Name of the file that holds its tensors, as in `files`."""
        return f"{self.name}/{self.stored.weight_files[0].name}"

    @property
    def note(self) -> str:
        """A sentence about the merge."""
        count = len(self.changes) + len(self.replaced)
        note = f"adapter {self.name} was merged with weight {self.weight:g} ({count} changes)."
        if not self.left_out:
            return note
        return (
            f"{note} {len(self.left_out)} of its changes were left out, as in PEFT, because "
            f"{ADAPTER_CONFIG} does not name their modules, for example {self.left_out[0]}."
        )

    @property
    def base_model(self) -> str:
        """Folder or hub id of the base model from the settings; "" if unknown."""
        base = self.stored.config.get("base_model_name_or_path")
        return base if isinstance(base, str) else ""


def open_adapters(adapters: Iterable[Adapter]) -> tuple[OpenAdapter, ...]:
    """Read the settings and headers of adapters.

    Raises:
        CheckpointError: a file is missing or broken, or a change is not complete.
        UnsupportedModelError: an adapter is not plain LoRA.
    """
    found: list[OpenAdapter] = []
    for adapter in adapters:
        name = _make_unique(name_checkpoint(adapter.folder), [one.name for one in found])
        try:
            found.append(_open(adapter, name))
        except (CheckpointError, UnsupportedModelError) as error:
            raise type(error)(f"adapter {adapter.folder}: {error}") from error
        except OSError as error:
            raise CheckpointError(
                f"adapter {adapter.folder} cannot be read ({error.strerror or error}); check the "
                "path and its permissions."
            ) from error
    return tuple(found)


def check_adapter_folder(folder: Path) -> None:
    """Check that a folder holds an adapter that can be merged, without reading its weights.

    Raises:
        CheckpointError: a file is missing or broken.
        UnsupportedModelError: the adapter is not plain LoRA.
    """
    try:
        _find_weights(folder)
        read_settings(read_json(folder / ADAPTER_CONFIG))
    except (CheckpointError, UnsupportedModelError) as error:
        raise type(error)(f"adapter {folder}: {error}") from error


def _open(adapter: Adapter, name: str) -> OpenAdapter:
    path = _find_weights(adapter.folder)
    states = read_states(adapter.folder)  # before anything is read
    config = read_json(adapter.folder / ADAPTER_CONFIG)
    settings = read_settings(config)
    tensors = {tensor.name: tensor for tensor in _read_header(path)}
    states.require_unchanged([path])
    stored = Checkpoint(adapter.folder, config, tensors, WeightFiles((path,)), states)
    changes, replaced = _sort_out(tensors)
    settings = replace(settings, modules=tuple(change.module for change in changes))
    for change in changes:
        _check_change(stored, change, settings)
    return OpenAdapter(name, float(adapter.weight), settings, stored, changes, replaced)


def _find_weights(folder: Path) -> Path:
    if not folder.is_dir():
        raise CheckpointError(
            "it is not a folder; give the folder that PEFT's save_pretrained made."
        )
    found = [folder / name for name in ADAPTER_WEIGHTS if (folder / name).is_file()]
    if not found or not (folder / ADAPTER_CONFIG).is_file():
        inner = next(iter(sorted(folder.glob(f"*/{ADAPTER_CONFIG}"))), None)  # a named adapter
        advice = (
            f"give {inner.parent}" if inner else "give the folder that PEFT's save_pretrained made"
        )
        raise CheckpointError(
            f"there is no {ADAPTER_CONFIG} with {' or '.join(ADAPTER_WEIGHTS)} in it; {advice}."
        )
    return found[0]


def _read_header(path: Path) -> list[StoredTensor]:
    if path.suffix != ".bin":
        return read_header(path)
    from glm_export.checkpoint.torch_file import read_torch_file  # noqa: PLC0415 - imports torch

    return read_torch_file(path)


def _sort_out(names: Iterable[str]) -> tuple[tuple[LowRankChange, ...], dict[str, str]]:
    parts: dict[str, dict[str, str]] = {}
    embeddings: set[str] = set()
    replaced: dict[str, str] = {}
    for name in names:
        own = _WRAPPERS.sub(".", strip_wrappers(name))
        match = _LOW_RANK.fullmatch(own)
        if _DORA in own:
            raise UnsupportedModelError(
                f"{name} is a magnitude of DoRA, which is not plain LoRA; merge it with PEFT "
                "(merge_and_unload, save_pretrained) and export the result."
            )
        if match is None:
            replaced[own] = name
            continue
        module, embedding, side, _, kind = match.groups()
        place = "bias" if kind == ".bias" else {"A": "down", "B": "up"}[side]
        parts.setdefault(module, {})[place] = name
        embeddings.update([module] if embedding else [])
    changes = (LowRankChange(name, name in embeddings, **of) for name, of in parts.items())
    return tuple(changes), replaced


def _check_change(stored: Checkpoint, change: LowRankChange, settings: LoraSettings) -> None:
    if not change.down or not change.up:
        raise CheckpointError(
            f"{change.module} has a lora_A or a lora_B and not both; download the adapter again."
        )
    down, up = (stored.tensors[name] for name in (change.down, change.up))
    rank = settings.find_rank(change.module)
    if len(down.shape) != 2 or len(up.shape) != 2 or not down.shape[0] == up.shape[1] == rank:
        raise CheckpointError(
            f"{change.down} is {list(down.shape)} and {change.up} is {list(up.shape)}, but "
            f"{ADAPTER_CONFIG} gives {change.module} the rank {rank}; check that both files belong "
            "together."
        )


def _make_unique(name: str, others: Sequence[str]) -> str:
    candidate, number = name, 2
    while candidate in others:
        candidate, number = f"{name}-{number}", number + 1
    return candidate
