"""The adapters that a user chooses, each with a weight."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from glm_export.errors import OptionsError


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter to merge into the checkpoint.

    Attributes:
        folder: folder with adapter_config.json and adapter_model.safetensors or .bin.
        weight: factor of the adapter's change; 1 is the adapter as it was trained.

    Raises:
        OptionsError: the weight is 0 or no finite number.
    """

    folder: Path
    weight: float = 1.0

    def __post_init__(self) -> None:
        """Check the weight."""
        if not math.isfinite(self.weight) or self.weight == 0:
            raise OptionsError(
                f"the weight of adapter {self.folder} is {self.weight}; choose a number such as "
                "0.5, or leave the adapter out."
            )


def parse_adapter(text: str) -> Adapter:
    """Read `DIR` or `DIR=WEIGHT`; a folder whose name has an equals sign is found, too.

    Raises:
        OptionsError: the weight is not a number, is 0 or not finite.
    """
    folder, separator, weight = text.rpartition("=")
    if not separator or Path(text).is_dir():
        return Adapter(Path(text))
    try:
        return Adapter(Path(folder), float(weight))
    except ValueError as error:
        raise OptionsError(
            f"--adapter {text!r} is not understood; write DIR or DIR=WEIGHT, for example "
            "./my-lora=0.5."
        ) from error


def check_adapters(adapters: Sequence[Adapter]) -> None:
    """Refuse a folder that is given twice.

    Raises:
        OptionsError: two adapters are the same folder.
    """
    places: dict[str, Path] = {}
    for adapter in adapters:
        first = places.setdefault(os.path.realpath(adapter.folder), adapter.folder)
        if first is not adapter.folder:
            raise OptionsError(
                f"adapter {adapter.folder} is the same folder as {first}; give it once, with the "
                "sum of both weights."
            )
