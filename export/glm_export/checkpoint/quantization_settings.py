"""Where a checkpoint's quantization settings are: config.json, or a file of older programs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glm_export.checkpoint.json_files import read_json

KEY = "quantization_config"
# AutoGPTQ and GPTQModel write the first, and AutoAWQ wrote the second before transformers read
# config.json. Each is used only if config.json says nothing.
_GPTQ_FILE, _AWQ_FILE = "quantize_config.json", "quant_config.json"
SETTINGS_FILES = (_GPTQ_FILE, _AWQ_FILE)
_AWQ_NAMES = {"w_bit": "bits", "q_group_size": "group_size"}


def add_settings(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return config.json with the quantization settings of a file of its own, if it has none.

    Raises:
        CheckpointError: that file is not readable JSON.
    """
    if config.get(KEY) is not None:
        return dict(config)
    if (folder / _GPTQ_FILE).is_file():
        return {**config, KEY: {"quant_method": "gptq", **read_json(folder / _GPTQ_FILE)}}
    if (folder / _AWQ_FILE).is_file():
        found = read_json(folder / _AWQ_FILE)
        renamed = {_AWQ_NAMES.get(key, key): value for key, value in found.items()}
        return {**config, KEY: {"quant_method": "awq", **renamed}}
    return dict(config)
