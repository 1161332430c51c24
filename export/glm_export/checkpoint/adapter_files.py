"""LoRA adapters as PEFT saves them: how one is recognised, alone or beside a checkpoint.

An adapter's folder has adapter_config.json and adapter_model.safetensors or .bin. transformers
applies an adapter that lies beside the weights, so that leaving it out would change the answers.
"""

from dataclasses import dataclass
from pathlib import Path

from glm_export.checkpoint.json_files import read_optional_json
from glm_export.errors import CheckpointError

ADAPTER_CONFIG = "adapter_config.json"
# The weights, in the order in which PEFT looks for them.
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")


@dataclass(frozen=True)
class AdapterFiles:
    """The files of an adapter.

    Attributes:
        folder: the folder that holds them.
        names: names of the files, the configuration first.
        base_model: folder or hub id of the base model from the configuration; "" if unknown.
    """

    folder: Path
    names: tuple[str, ...]
    base_model: str

    @property
    def description(self) -> str:
        """The adapter and its base model in words."""
        base = f" of {self.base_model!r}" if self.base_model else ""
        return f"a LoRA adapter{base} ({', '.join(self.names)})"


def find_adapter(folder: Path) -> AdapterFiles | None:
    """Return the files of an adapter in a folder; None if it holds none.

    Raises:
        CheckpointError: adapter_config.json is not readable JSON.
    """
    names = tuple(n for n in (ADAPTER_CONFIG, *ADAPTER_WEIGHTS) if (folder / n).is_file())
    if not names:
        return None
    base = read_optional_json(folder / ADAPTER_CONFIG).get("base_model_name_or_path")
    return AdapterFiles(folder, names, base if isinstance(base, str) else "")


def refuse_lone_adapter(adapter: AdapterFiles) -> CheckpointError:
    """Return the error for an adapter that is given in place of a checkpoint."""
    base = f"the folder of {adapter.base_model!r}" if adapter.base_model else "its base model"
    return CheckpointError(
        f"{adapter.folder} holds {adapter.description} and no whole model; give {base} as the "
        f"checkpoint, and --adapter {adapter.folder} to merge the adapter into it."
    )


def refuse_neighbour(adapter: AdapterFiles) -> CheckpointError:
    """Return the error for an adapter that lies beside a checkpoint and would not be merged."""
    return CheckpointError(
        f"{adapter.folder} holds {adapter.description} beside the model, which would be left out; "
        f"give --adapter {adapter.folder} to merge it, or move its files elsewhere to export the "
        "model without it."
    )
