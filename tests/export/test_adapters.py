"""LoRA adapters as PEFT saves them, alone or beside a checkpoint: named, never dropped silently."""

from pathlib import Path

import numpy as np
import pytest

from glm_export import ExportOptions
from glm_export.checkpoint.adapter_files import find_adapter
from glm_export.checkpoint.checkpoint import check_folder, open_checkpoint
from glm_export.errors import CheckpointError
from support.broken_checkpoints import (
    WEIGHTS,
    from_array,
    split_into_shards,
    write_json,
    write_safetensors,
    write_small,
)
from support.refusals import assert_export_refused, assert_sentence

BASE = "zai-org/GLM-4-9B-0414"
NAMES = ("adapter_config.json", "adapter_model.safetensors")


def write_adapter(folder: Path, *names: str) -> None:
    """Files as PEFT's `save_pretrained` names them."""
    folder.mkdir(exist_ok=True)
    if NAMES[0] in names:
        content = {"peft_type": "LORA", "base_model_name_or_path": BASE, "r": 4}
        write_json(folder / NAMES[0], content)
    if NAMES[1] in names:
        tensor = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
        write_safetensors(
            folder / NAMES[1], {tensor: from_array(np.zeros((4, 64), dtype=np.float32))}
        )


def test_a_folder_without_an_adapter(tmp_path: Path) -> None:
    assert find_adapter(write_small(tmp_path / "checkpoint")) is None


@pytest.mark.parametrize("names", [NAMES, NAMES[:1], NAMES[1:]], ids="+".join)
def test_what_is_found(tmp_path: Path, names: tuple[str, ...]) -> None:
    write_adapter(tmp_path, *names)
    adapter = find_adapter(tmp_path)
    assert adapter is not None
    assert adapter.names == names
    assert adapter.base_model == (BASE if NAMES[0] in names else "")


@pytest.mark.usefixtures("no_tracing")
@pytest.mark.parametrize("is_sharded", [False, True])
@pytest.mark.parametrize("names", [NAMES, NAMES[1:]], ids="+".join)
def test_beside_a_checkpoint(tmp_path: Path, is_sharded: bool, names: tuple[str, ...]) -> None:
    """Beside shards it was dropped silently; beside one file the sentence was about tensors."""
    checkpoint = write_small(tmp_path / "checkpoint")
    if is_sharded:
        split_into_shards(checkpoint, "safetensors")
    write_adapter(checkpoint, *names)
    options = ExportOptions(checkpoint, tmp_path / "out")
    words = (f"a LoRA adapter{f' of {BASE!r}' if NAMES[0] in names else ''} ({', '.join(names)})",)
    assert_export_refused(options, CheckpointError, *words, "beside the model", "--adapter")
    with pytest.raises(CheckpointError, match="beside the model"):
        open_checkpoint(checkpoint)


@pytest.mark.usefixtures("no_tracing")
@pytest.mark.parametrize("has_config", [False, True])
def test_alone(tmp_path: Path, has_config: bool) -> None:
    """Trainers copy config.json and the tokenizer beside an adapter, or they do not."""
    folder = write_small(tmp_path / "adapter")
    (folder / WEIGHTS).unlink()
    if not has_config:
        (folder / "config.json").unlink()
    write_adapter(folder, *NAMES)
    for call in (check_folder, open_checkpoint):
        with pytest.raises(CheckpointError) as caught:
            call(folder)
        assert_sentence(
            str(caught.value), str(folder), f"of {BASE!r}", "no whole model", "--adapter"
        )
